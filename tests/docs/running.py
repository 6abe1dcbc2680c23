"""A worker, and a gateway, that run inside a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from bridge.broker import open_redis
from bridge.catalog import Catalog, Queue
from bridge.gateway.app import create_app
from bridge.settings import Settings
from workers.run import make_worker, run_workers

__all__ = ["gateway_client", "running_worker"]


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


@asynccontextmanager
async def gateway_client(settings: Settings, catalog: Catalog) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway, without a socket in between."""
    redis = open_redis(settings)
    app: Any = create_app(settings, catalog, redis)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await redis.aclose(close_connection_pool=True)
