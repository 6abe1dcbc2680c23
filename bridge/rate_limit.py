"""The limit on a caller's requests, true across processes: each is counted in Redis before it is served."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.coalescer import Coalescer
from bridge.errors import RateLimited
from bridge.rate import Rate
from bridge.scripts import Scripts

__all__ = ["RateLimit"]

MOST: Final = 1000
"""Requests that share one call."""


class Request(NamedTuple):
    """A request of a caller, by name, under its limit."""

    caller: str
    rate: Rate


class RateLimit:
    """Counts requests; those that come at the same time share a script call, so it costs little under load."""

    def __init__(self, scripts: Scripts) -> None:
        self.scripts = scripts
        self.coalescer: Coalescer[Request, int] = Coalescer(self._take_all, most=MOST)

    async def take(self, caller: str, rate: Rate) -> None:
        """One more request of this caller is admitted.

        Raises:
            RateLimited: it is not; such a request does not count.
        """
        wait_us = await self.coalescer.submit(Request(caller, rate))
        if wait_us:
            raise RateLimited(rate.text, retry_after_seconds=wait_us / 1_000_000)

    async def _take_all(self, requests: Sequence[Request]) -> list[int]:
        """For each 0, or how long it has to wait, µs."""
        counts = Counter(requests)
        answers = await self.scripts.rate_limit([(*request, count) for request, count in counts.items()])
        left = {request: [admitted, wait_us] for request, (admitted, wait_us) in zip(counts, answers, strict=True)}
        waits = []
        for request in requests:
            answer = left[request]
            answer[0] -= 1
            waits.append(0 if answer[0] >= 0 else answer[1])
        return waits
