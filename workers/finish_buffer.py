"""Outcomes on their way to Redis: what is ready when the previous call returns goes into the next one."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bridge.broker import is_away
from bridge.scripts import Ending
from workers.backoff import Backoff
from workers.claim import Run

__all__ = ["FinishBuffer"]

logger = logging.getLogger("aegis.workers")

BATCH: Final = 500
"""Attempts in one call: a script blocks the server, and 500 take it a few milliseconds."""


class FinishBuffer:
    """Writes outcomes in batches, and keeps them while Redis is away.

    Args:
        finish: writes endings; answers which were committed.
        committed: told of each batch, and of each run whether it was committed, once it is.
    """

    def __init__(
        self,
        finish: Callable[[Sequence[Ending]], Awaitable[list[int]]],
        committed: Callable[[Sequence[tuple[Run, Ending]], Sequence[int]], None],
    ) -> None:
        self.finish = finish
        self.committed = committed
        self.waiting: deque[tuple[Run, Ending]] = deque()
        self._added = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, run: Run, ending: Ending) -> None:
        """The outcome will be written."""
        self.waiting.append((run, ending))
        self._added.set()
        self._emptied.clear()

    async def drained(self) -> None:
        """Nothing is waiting or being written."""
        await self._emptied.wait()

    async def run(self) -> None:
        """Writes what is added, for ever.

        A batch that Redis refuses for another reason than being away is written one by one, so that an outcome
        that cannot be written does not hold up the others; it is tried again and again.
        """
        backoff = Backoff("outcomes cannot be written", logger)
        size = BATCH
        while True:
            await self._added.wait()
            batch = [self.waiting[i] for i in range(min(len(self.waiting), size))]
            try:
                answers = await self.finish([ending for _, ending in batch])
            except Exception as error:
                if not is_away(error):
                    if len(batch) == 1:
                        self.waiting.rotate(-1)
                    size = 1
                await backoff.after(error, is_expected=is_away(error))
                continue
            backoff.reset()
            size = min(BATCH, size * 2)
            for _ in batch:
                self.waiting.popleft()
            self.committed(batch, answers)
            if not self.waiting:
                self._added.clear()
                self._emptied.set()
