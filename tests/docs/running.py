"""A worker that runs inside a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.broker import open_redis
from bridge.catalog import Queue
from bridge.settings import Settings
from workers.run import make_worker, run_workers

__all__ = ["running_worker"]


@asynccontextmanager
async def running_worker(queue: Queue, settings: Settings) -> AsyncIterator[None]:
    """While inside, jobs of the queue are run."""
    redis = open_redis(settings)
    redis.default_queue_name = queue.key
    working = asyncio.create_task(run_workers([make_worker(queue, redis=redis)]))
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
