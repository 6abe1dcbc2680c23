"""A worker tells that it lives, so that the others can tell when it does not."""

import os
import secrets
import socket
from collections.abc import Callable
from typing import Final

from bridge.scripts import Heartbeat, Scripts

__all__ = ["Heart", "new_worker_id"]

BEAT_EVERY_S: Final = 2.5


def new_worker_id(mark: str = "") -> str:
    """Host, process id and a random part, which begins with ``mark``: unique to one worker of one process."""
    return f"{socket.gethostname()}:{os.getpid()}:{mark}{secrets.token_hex(3)}"


class Heart:
    """Registers a worker with its first beat, and again if it has been taken for lost meanwhile; a duty.

    Args:
        worker_id: the worker.
        queue: short name of its queue.
        max_jobs: jobs it runs at a time.
        runner: ``BatchWorker`` or ``arq``.
        counts: how many attempts it runs now, and how many were done, failed and were retried; may be called
            from another thread.
    """

    trouble = "heartbeats do not arrive"
    every_s = BEAT_EVERY_S

    def __init__(
        self, worker_id: str, *, queue: str, max_jobs: int, runner: str, counts: Callable[[], tuple[int, int, int, int]]
    ) -> None:
        self.worker_id = worker_id
        self.counts = counts
        self._about = (socket.gethostname(), os.getpid(), queue, max_jobs, runner)
        self._started_at_ms = 0

    async def do(self, scripts: Scripts) -> None:
        """The worker has told that it lives."""
        sign = Heartbeat(*self._about, *self.counts())
        self._started_at_ms = await scripts.heartbeat(self.worker_id, sign, started_at_ms=self._started_at_ms)

    async def stop(self, scripts: Scripts) -> None:
        """The worker has told that it goes. A beat after this would register it again."""
        await scripts.leave(self.worker_id)
