"""Events from their commit to the clients of one gateway process, and from the end of a job to who waits for it.

Gateway, Valkey, the writer of events and the clients are a process each; they share the cores of the machine.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import quantiles
from typing import Final
from urllib.parse import urlsplit

from bridge.aegis_redis import AegisRedis
from bridge.new_job import new_job_id
from bridge.scripts import NewJob
from tests.benchmarks.bench_queue import BENCH_KEY
from tests.benchmarks.contenders import ROOT, environment
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.idle import commands_sent, started_gateway
from tests.benchmarks.ours import QUEUE, open_pool
from tests.benchmarks.worker_processes import commands_on

CASES: Final = ((100, 1000), (1000, 200))
"""Clients, and events a second."""
WAITERS: Final = 100
IDLE_WAITERS: Final = 1000
BETWEEN_ENDS_S: Final = 0.03
FAR_MS: Final = 3_600_000


async def measure(url: str, *, seconds: float) -> Values:
    values: Values = {}
    redis = open_pool(url)
    with commands_on(url) as commands:
        await started_gateway(commands)
        port = int(commands.environ["AEGIS_PORT"])
        for clients, rate in CASES:
            heard = await listen(url, port, clients, rate, seconds)
            if heard["missed"]:
                raise RuntimeError(f"{heard['missed']} events did not reach their clients")
            values |= {f"{clients}_clients_{name}": value for name, value in heard.items()}
        values |= await ends(redis, port)
        async with waiters(redis, port, IDLE_WAITERS):
            values["idle_waiters_commands_per_s"] = await commands_sent(redis, seconds) / seconds
    return values


# --- streams --------------------------------------------------------------------------------------


async def listen(url: str, port: int, clients: int, rate: int, seconds: float) -> Values:
    """What the clients have seen."""
    count = int(rate * seconds)
    where = ["--port", str(port), "--clients", str(clients), "--events", str(count)]
    async with running("event_listeners", *where) as listeners:
        assert listeners.stdout
        if (await listeners.stdout.readline()).strip() != b"ready":
            raise RuntimeError("the clients cannot connect")
        source = ["--port", str(urlsplit(url).port), "--rate", str(rate), "--seconds", str(seconds)]
        async with running("event_source", *source) as writing:
            await writing.wait()
        values: Values = json.loads(await listeners.stdout.read())
        return values


@asynccontextmanager
async def running(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of this folder; it has ended afterwards."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment(), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# --- long polls -----------------------------------------------------------------------------------


async def ends(redis: AegisRedis, port: int) -> Values:
    """Jobs end one by one, by an abort, which is one script; each has somebody who waits for it."""
    took_ms = []
    async with waiters(redis, port, WAITERS) as answers:
        for job_id, answer in answers.items():
            started_s = time.perf_counter()
            await redis.scripts.abort(QUEUE, BENCH_KEY, job_id, keep_result_ms=FAR_MS)
            took_ms.append((await answer - started_s) * 1000)
            await asyncio.sleep(BETWEEN_ENDS_S)
    cuts = quantiles(took_ms, n=100)
    return {"end_p50_ms": cuts[49], "end_p99_ms": cuts[98]}


@asynccontextmanager
async def waiters(redis: AegisRedis, port: int, count: int) -> AsyncIterator[dict[str, "asyncio.Task[float]"]]:
    """Long polls of so many waiting jobs, by job: when each has been answered."""
    job_ids = [new_job_id() for _ in range(count)]
    body = (b'{"t":null,"f":"noop","a":[],"k":{},"et":', b"}")
    due = {"task": "noop", "queue": QUEUE, "queue_key": BENCH_KEY, "body": body, "delay_ms": FAR_MS}
    for start in range(0, count, 500):
        await redis.scripts.enqueue([NewJob(job_id=job_id, **due) for job_id in job_ids[start : start + 500]])  # type: ignore[arg-type]
    before = await looks(redis)
    tasks = {job_id: asyncio.create_task(wait(port, job_id)) for job_id in job_ids}
    while await looks(redis) < before + count:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.1)
    try:
        yield tasks
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def looks(redis: AegisRedis) -> int:
    """How often the state of a job was read, in a transaction: for each waiter once, and then it only waits."""
    statistics = await redis.info("commandstats")
    calls: int = statistics.get("cmdstat_exec", {}).get("calls", 0)
    return calls


async def wait(port: int, job_id: str) -> float:
    """When the answer has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /api/v1/tasks/result/{job_id}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status = await reader.readline()
        answered_s = time.perf_counter()
        if b" 200 " not in status:
            raise RuntimeError(status.decode(errors="replace"))
        return answered_s
    finally:
        writer.close()


if __name__ == "__main__":
    run_figure(measure, __doc__, seconds=5.0)
