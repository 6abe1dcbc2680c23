"""Waiting for a condition, and watching whether the event loop comes round."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

TICK_S: Final = 0.005
LIMIT_S: Final = 30


async def wait_until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Returns as soon as ``condition`` is true; fails when that takes half a minute."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            met = condition()
            if met if isinstance(met, bool) else await met:
                return
            await asyncio.sleep(TICK_S)


class Ticks:
    """Counts how often the event loop came round.

    Attributes:
        count: ticks so far, at most one in 5 ms.
        expected: ticks that fit into the time that has passed.
    """

    def __init__(self) -> None:
        self.count = 0
        self.started_s = asyncio.get_running_loop().time()

    @property
    def expected(self) -> float:
        return (asyncio.get_running_loop().time() - self.started_s) / TICK_S

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.count += 1


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticks]:
    """A block in which the event loop's ticks are counted."""
    ticks = Ticks()
    ticker = asyncio.create_task(ticks.tick())
    await asyncio.sleep(0)
    try:
        yield ticks
    finally:
        ticker.cancel()
