"""Renews the leases of all jobs of a worker together, from a thread: a task that blocks the event loop loses none."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from bridge import keys
from bridge.scripts import Scripts
from workers.claim import Run

__all__ = ["LeaseKeeper"]

RENEW_EVERY_S: Final = keys.LEASE_MS / 1000 / 4
"""Three renewals may fail before a lease ends."""
BATCH: Final = 1000


class LeaseKeeper:
    """Keeps leases; a duty for another thread than the event loop's.

    Args:
        queue_key: the queue's zset.
        leases: job id -> run, those to keep; the event loop changes it meanwhile.
        lost: called in the event loop with the runs that are no longer ours.
    """

    trouble = "leases cannot be renewed"

    def __init__(self, *, queue_key: str, leases: Mapping[str, Run], lost: Callable[[list[Run]], None]) -> None:
        self.queue_key = queue_key
        self.leases = leases
        self.lost = lost
        self.every_s = RENEW_EVERY_S
        self._main_loop = asyncio.get_running_loop()

    async def do(self, scripts: Scripts) -> None:
        """Every lease that is still ours has its full length again."""
        # A copy of a dict is one step for other threads.
        runs = list(dict(self.leases).values())
        for start in range(0, len(runs), BATCH):
            batch = runs[start : start + BATCH]
            positions = await scripts.renew(self.queue_key, [(run.job_id, run.token) for run in batch])
            if positions:
                self._main_loop.call_soon_threadsafe(self.lost, [batch[at] for at in positions])
