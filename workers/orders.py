"""Aborts of running jobs, which reach their worker by a blocking read: at once, and asked for only while jobs run."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from bridge.broker import is_away
from workers.backoff import Backoff

__all__ = ["Abort", "Orders"]

logger = logging.getLogger("aegis.workers")

BLOCK_S: Final = 2


class Abort(msgspec.Struct, frozen=True):
    """The order to abort a job; ``note`` is JSON with who asked and why."""

    job_id: str
    token: str
    note: str


class Orders:
    """Listens while jobs run.

    Args:
        redis: a client for the blocking read alone.
        key: the worker's list.
        has_work: whether jobs run.
        obey: called with each order.
    """

    def __init__(self, redis: Redis, key: str, *, has_work: Callable[[], bool], obey: Callable[[Abort], None]) -> None:
        self.redis = redis
        self.key = key
        self.has_work = has_work
        self.obey = obey
        self.wanted = asyncio.Event()

    async def listen(self) -> None:
        """Obeys what arrives, for ever."""
        backoff = Backoff("aborts do not arrive", logger)
        while True:
            await self.wanted.wait()
            if not self.has_work():
                self.wanted.clear()
                continue
            try:
                reading: Any = self.redis.blpop([self.key], timeout=BLOCK_S)
                order = await reading
                if order is not None:
                    self.obey(msgspec.json.decode(order[1], type=Abort))
            except Exception as error:
                await backoff.after(error, is_expected=is_away(error))
            else:
                backoff.reset()
