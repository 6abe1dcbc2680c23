"""Wake-ups: a blocking read that ends when there may be jobs, or when the worker rings for itself."""

import asyncio
import logging
from typing import Any, Final

from redis.asyncio import Redis

from bridge import keys
from bridge.broker import is_away

__all__ = ["Bell"]

logger = logging.getLogger("aegis.workers")

EXPIRES_S: Final = 60
"""A ring that nobody heard is forgotten."""


class Bell:
    """The lists that a worker reads from while it has nothing to do.

    Args:
        redis: a client that bears silence as long as the reads block.
        queue: short name.
        worker_id: the worker, which has a list of its own.
    """

    def __init__(self, redis: Redis, *, queue: str, worker_id: str) -> None:
        self.redis = redis
        self.own, self.shared = keys.ring(worker_id), keys.wake(queue)
        self.lists = (self.own, self.shared)
        self._ringing: set[asyncio.Task[None]] = set()

    async def wait(self, timeout_s: float) -> bool:
        """Somebody rang, or the time is over; whether it was for any worker of the queue, who has to look then."""
        reading: Any = self.redis.blpop(list(self.lists), timeout=timeout_s)  # type: ignore[arg-type]  # since Redis 6
        rung = await reading
        return rung is not None and rung[0] == self.shared.encode()

    async def pass_on(self) -> None:
        """Another worker looks instead."""
        pushing: Any = self.redis.rpush(self.shared, "1")
        await pushing

    def ring(self) -> None:
        """This worker's read ends, or its next one does."""
        ringing = asyncio.get_running_loop().create_task(self._ring())
        self._ringing.add(ringing)
        ringing.add_done_callback(self._ringing.discard)

    async def _ring(self) -> None:
        try:
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.rpush(self.own, "1")
                pipe.expire(self.own, EXPIRES_S)
                await pipe.execute()
        except Exception as error:  # then the read ends by itself
            if not is_away(error):
                logger.exception("a worker cannot ring for itself")
