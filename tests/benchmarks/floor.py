"""The floor: what one process and one Valkey can do with batched scripts. Not an implementation.

There are no checks, retries, aborts, renewals, counters, results of failures, conversions or logs.
"""

import asyncio
import time
from typing import Any

import msgspec

from bridge.new_job import new_job_id
from tests.benchmarks.contest import AT_ONCE, Contender, Tally, compete
from tests.benchmarks.ours import open_pool

ENQUEUE = """
for i = 1, #ARGV, 2 do
  redis.call('SET', 'job:' .. ARGV[i], ARGV[i + 1])
  redis.call('ZADD', 'queue', 0, ARGV[i])
  redis.call('XADD', 'events', 'MAXLEN', '~', 1000000, '*', 'kind', 'enqueued', 'job_id', ARGV[i])
end
if redis.call('EXISTS', 'bell') == 0 then redis.call('RPUSH', 'bell', 1) end
"""
CLAIM = """
local jobs = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'queue', 0, ARGV[2], 'LIMIT', 0, ARGV[1])) do
  redis.call('SET', 'in-progress:' .. id, ARGV[4], 'PX', 10000)
  redis.call('INCR', 'try:' .. id)
  redis.call('ZADD', 'queue', ARGV[3], id)
  redis.call('XADD', 'events', 'MAXLEN', '~', 1000000, '*', 'kind', 'started', 'job_id', id)
  jobs[#jobs + 1], jobs[#jobs + 2] = id, redis.call('GET', 'job:' .. id)
end
return jobs
"""
FINISH = """
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  redis.call('SET', 'result:' .. id, ARGV[i + 1], 'PX', 3600000)
  redis.call('DEL', 'in-progress:' .. id, 'try:' .. id, 'job:' .. id)
  redis.call('ZREM', 'queue', id)
  redis.call('XADD', 'events', 'MAXLEN', '~', 1000000, '*', 'kind', 'succeeded', 'job_id', id, 'data', ARGV[i + 1])
end
"""


async def make(port: int, tally: Tally) -> Contender:
    redis, bell = (open_pool(f"redis://127.0.0.1:{port}/0") for _ in range(2))
    enqueue_script, claim, finish = (redis.register_script(text) for text in (ENQUEUE, CLAIM, FINISH))
    running: set[asyncio.Task[None]] = set()
    done: list[bytes | str] = []
    has_done = asyncio.Event()

    async def noop(user_id: int = 0) -> None:
        tally.ran()

    async def stamp(sent_s: float) -> None:
        tally.started(sent_s)

    tasks: dict[str, Any] = {"noop": noop, "stamp": stamp}

    def job(task: str, **arguments: Any) -> tuple[str, bytes]:
        return new_job_id(), msgspec.json.encode({"t": None, "f": task, "a": (), "k": arguments, "et": 0})

    async def enqueue(task: str, **arguments: Any) -> None:
        await enqueue_script(args=job(task, **arguments))

    async def enqueue_many(count: int) -> None:
        await enqueue_script(args=[part for number in range(count) for part in job("noop", user_id=number)])

    async def run(job_id: bytes, body: bytes) -> None:
        payload = msgspec.json.decode(body)
        async with asyncio.timeout(300):
            payload["r"] = await tasks[payload["f"]](**payload["k"])
        done.extend((job_id, msgspec.json.encode({**payload, "s": True, "ft": time.time_ns() // 1_000_000})))
        has_done.set()

    async def finish_forever() -> None:
        while True:
            await has_done.wait()
            has_done.clear()
            batch = done.copy()
            done.clear()
            await finish(args=batch)

    async def work() -> None:
        finishing = asyncio.create_task(finish_forever())
        while not finishing.done():
            wanted, now_ms = AT_ONCE - len(running), time.time_ns() // 1_000_000
            jobs = await claim(args=[wanted, now_ms, now_ms + 10_000, "token"])
            for at in range(0, len(jobs), 2):
                task = asyncio.create_task(run(jobs[at], jobs[at + 1]))
                running.add(task)
                task.add_done_callback(running.discard)
            if wanted and not jobs:
                await bell.blpop(["bell"], timeout=1)  # type: ignore[misc]
            await asyncio.sleep(0)

    async def left() -> int:
        return int(await redis.zcard("queue"))

    return Contender(enqueue=enqueue, work=work, enqueue_many=enqueue_many, left=left)


if __name__ == "__main__":
    compete(make)
