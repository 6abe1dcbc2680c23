"""The timeouts of all running jobs on one timer: a timer for each job would cost more than a short job."""

import asyncio
import math
from collections.abc import Set

from workers.claim import Run

__all__ = ["Deadlines"]


class Deadlines:
    """Stops runs whose deadline has passed.

    Args:
        runs: those that are running.
    """

    def __init__(self, runs: Set[Run]) -> None:
        self.runs = runs
        self.loop = asyncio.get_running_loop()
        self.next_s = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, run: Run) -> None:
        """The run will be stopped at its deadline."""
        if run.deadline_s < self.next_s:
            self._set(run.deadline_s)

    def close(self) -> None:
        """No run is stopped any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, deadline_s: float) -> None:
        self.close()
        self.next_s = deadline_s
        self._timer = self.loop.call_at(deadline_s, self._expire) if deadline_s < math.inf else None

    def _expire(self) -> None:
        now_s = self.loop.time()
        next_s = math.inf
        for run in list(self.runs):
            if run.deadline_s <= now_s:
                run.stop("timeout")
            elif run.deadline_s < next_s:
                next_s = run.deadline_s
        self._set(next_s)
