"""Bytes in Valkey: of a queued job with one small argument, and of an event in the stream."""

import asyncio

from redis.asyncio import Redis

from bridge import keys
from tests.benchmarks import contest
from tests.benchmarks.bench_queue import tally
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.ours import contender_at, open_pool


async def measure(url: str, *, jobs: int) -> Values:
    contender, redis = contender_at(url), open_pool(url)
    await contest.fill(contender, tally, contest.BULK)  # the script, the connections and their buffers
    await redis.flushall()
    empty = await used_bytes(redis)
    await contest.fill(contender, tally, jobs)
    full = await used_bytes(redis)
    events = await redis.xlen(keys.EVENTS)
    await redis.delete(keys.EVENTS)
    without_events = await used_bytes(redis)
    return {
        "bytes_per_job": (without_events - empty) / jobs,
        "stream_bytes_per_event": (full - without_events) / events,
    }


async def used_bytes(redis: Redis) -> int:
    """What Valkey has allocated, once everything that was deleted has been freed."""
    while (await redis.info("memory"))["lazyfree_pending_objects"]:  # noqa: ASYNC110 - it is in Redis
        await asyncio.sleep(0.01)
    return int((await redis.info("memory"))["used_memory"])


if __name__ == "__main__":
    run_figure(measure, __doc__, jobs=100_000)
