"""Pools for application code that enqueues jobs."""

import asyncio
from functools import cache
from weakref import WeakKeyDictionary

from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import Catalog, load_catalog
from bridge.settings import read_settings

__all__ = ["get_queue_pool"]

# A pool belongs to the event loop that its connections were opened in.
pools: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AegisRedis]] = WeakKeyDictionary()


async def get_queue_pool(queue_type: str) -> tuple[AegisRedis, str]:
    """A pool whose ``enqueue_job`` enqueues on this queue, and the queue's Redis key.

    The pool is made once for each event loop and queue, and shared from then on; it connects with
    its first command. ::

        redis, queue_name = await get_queue_pool("system")
        await redis.enqueue_job("send_welcome_email", user.id)

    Raises:
        InvalidQueueType: there is no such queue.
        ConfigurationError: the settings are wrong.
    """
    key = catalog().queue(queue_type).key
    of_this_loop = pools.setdefault(asyncio.get_running_loop(), {})
    if queue_type not in of_this_loop:
        redis = open_redis(read_settings())
        redis.default_queue_name = key
        of_this_loop[queue_type] = redis
    return of_this_loop[queue_type], key


@cache
def catalog() -> Catalog:
    return load_catalog(read_settings().queues)
