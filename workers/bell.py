"""Wake-ups: a blocking read on the queue's bell, so that an idle worker starts a job at once and asks for none."""

import asyncio
import logging
from typing import Any, Final

from redis.asyncio import Redis

from bridge.broker import is_away
from workers.backoff import Backoff

__all__ = ["BLOCK_S", "Bell"]

logger = logging.getLogger("aegis.workers")

BLOCK_S: Final = 5
"""Longest read; the client has to bear a silence of that length."""
EXPIRES_S: Final = 60
"""As in the scripts that ring."""


class Bell:
    """Listens while somebody waits.

    Args:
        redis: a client for the blocking read alone, whose socket timeout is above `BLOCK_S`.
        key: the list.
    """

    def __init__(self, redis: Redis, key: str) -> None:
        self.redis = redis
        self.key = key
        self._rung = asyncio.Event()
        self._wanted = asyncio.Event()

    def ring(self) -> None:
        """Whoever waits looks for jobs now."""
        self._rung.set()

    async def wait(self, timeout_s: float) -> None:
        """Somebody rang, or the time is over."""
        self._wanted.set()
        timer = asyncio.get_running_loop().call_later(timeout_s, self._rung.set)
        try:
            await self._rung.wait()
        finally:
            timer.cancel()
            self._rung.clear()
            self._wanted.clear()

    async def listen(self) -> None:
        """Takes a token of the list whenever somebody waits, for ever."""
        backoff = Backoff("wake-ups do not arrive", logger)
        while True:
            await self._wanted.wait()
            try:
                reading: Any = self.redis.blpop([self.key], timeout=BLOCK_S)
                token = await reading
                if token is None:
                    continue
                if not self._wanted.is_set():
                    await self._pass_on(token[1])
                self._rung.set()
            except Exception as error:
                await backoff.after(error, is_expected=is_away(error))
            else:
                backoff.reset()
                await asyncio.sleep(0)

    async def _pass_on(self, token: bytes) -> None:
        """The worker has become busy meanwhile: another one may be idle."""
        if not await self.redis.exists(self.key):
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.rpush(self.key, token)
                pipe.expire(self.key, EXPIRES_S)
                await pipe.execute()
