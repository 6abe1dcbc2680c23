"""What every command starts with: the settings, the queues, a connection, and the end of them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from bridge.broker import connect, is_in_memory
from bridge.catalog import load_catalog
from bridge.errors import ConfigurationError
from bridge.redis_backend import RedisBackend
from bridge.settings import Settings, read_settings

__all__ = ["open_backend", "run"]

CANCEL_AGAIN_S: Final = 1.0

Answer = TypeVar("Answer")


@asynccontextmanager
async def open_backend(settings: Settings | None = None) -> AsyncIterator[RedisBackend]:
    """An open connection that has answered, closed at the end.

    Raises:
        ConfigurationError: a setting or a queue is wrong, or the store is inside another process.
        StoreUnreachable: Redis does not answer.
    """
    settings = settings or read_settings()
    if is_in_memory(settings):
        raise ConfigurationError(
            "REDIS_URL=memory:// lives inside `aegis-tasks serve`: use its HTTP address, or another REDIS_URL"
        )
    catalog = load_catalog(settings.queues)
    redis = await connect(settings)
    try:
        backend = RedisBackend(settings, catalog, redis)
        try:
            yield backend
        finally:
            await backend.aclose()
    finally:
        await redis.aclose(close_connection_pool=True)


def run(main: Coroutine[Any, Any, Answer]) -> Answer:
    """Runs a command's coroutine, on uvloop where there is one."""
    if sys.platform == "win32":
        return asyncio.run(interruptible(main))
    import uvloop

    return uvloop.run(interruptible(main))


async def interruptible(main: Coroutine[Any, Any, Answer]) -> Answer:
    """What ``main`` returns; a cancellation, as Ctrl-C is one, reaches it for certain.

    On Python 3.11 one that arrives just before a task enters ``asyncio.timeout(0)``, as redis-py does
    with each command, is swallowed there: so it is repeated until it has been heard.
    """
    task = asyncio.ensure_future(main)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)
        if task.cancelled():
            raise
        return task.result()
