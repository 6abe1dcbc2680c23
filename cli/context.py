"""What every command starts with: the settings, the queues, a connection, and the end of them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from bridge.aegis_redis import AegisRedis
from bridge.broker import connect, is_in_memory
from bridge.catalog import Catalog, load_catalog
from bridge.control import Control
from bridge.dead_letters import DeadLetters
from bridge.enqueue import Enqueuer
from bridge.errors import ConfigurationError
from bridge.event_stream import EventStream
from bridge.inspector import Inspector
from bridge.scripts import Scripts
from bridge.settings import Settings, read_settings

__all__ = ["Backend", "open_backend", "run"]

CANCEL_AGAIN_S: Final = 1.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Backend:
    """The store and what is built on it."""

    settings: Settings
    catalog: Catalog
    redis: AegisRedis
    enqueuer: Enqueuer
    inspector: Inspector
    events: EventStream
    control: Control
    dead_letters: DeadLetters


@asynccontextmanager
async def open_backend(settings: Settings | None = None) -> AsyncIterator[Backend]:
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
        scripts = Scripts(redis, events_max_len=settings.events_max_len)
        yield Backend(
            settings=settings,
            catalog=catalog,
            redis=redis,
            enqueuer=Enqueuer(catalog, scripts),
            inspector=Inspector(redis, catalog, scripts, accept_pickle=settings.accept_pickle),
            events=EventStream(redis),
            control=Control(redis, catalog, scripts, keep_result_s=settings.keep_result_s),
            dead_letters=DeadLetters(redis, catalog, scripts, accept_pickle=settings.accept_pickle),
        )
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
