"""Seconds from the death of a worker process (kill -9) until all of its jobs have started in another one."""

import asyncio
import random
import time

from bridge.event_stream import EventStream
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.ours import QUEUE, new_jobs, open_pool
from tests.benchmarks.worker_processes import commands_on, started_workers, until_events
from workers.lease import RENEW_EVERY_S


async def measure(url: str, *, jobs: int) -> Values:
    redis = open_pool(url)
    with commands_on(url) as commands:
        (victim,) = await started_workers(commands, redis, 1, QUEUE)
        before = await EventStream(redis).last_id()
        await redis.scripts.enqueue(new_jobs(jobs, "sleep", seconds=3600))
        await until_events(redis, "job.started", jobs, after=before, alive=[victim])
        survivors = await started_workers(commands, redis, 1, QUEUE)
        await asyncio.sleep(random.random() * RENEW_EVERY_S)  # anywhere between two renewals of the leases
        before = await EventStream(redis).last_id()
        victim.process.kill()
        killed_s = time.time()
        restarts_ms = await until_events(redis, "job.started", jobs, after=before, alive=survivors)
    return {"first_s": min(restarts_ms) / 1000 - killed_s, "seconds": max(restarts_ms) / 1000 - killed_s}


if __name__ == "__main__":
    run_figure(measure, __doc__, jobs=50)
