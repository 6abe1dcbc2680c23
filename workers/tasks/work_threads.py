"""Threads for blocking work: a few per process, whose work stops soon after its job is cancelled.

Threads and not processes, because all that runs here spends its time where Python lets go of the GIL
(hashing, checksums, file operations): a thread starts in microseconds, needs no memory of its own, and cannot outlive
a worker that is killed.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

__all__ = ["WORK_THREADS", "Checkpoint", "WorkCancelled", "run_in_work_thread"]

WORK_THREADS: Final = min(os.cpu_count() or 1, 8)
"""How much of this work runs at once in one process: one per core, and at most 8, so that a host with
many cores does not hold the memory of dozens of jobs at once. Further work waits for its turn."""

Checkpoint = Callable[[], None]
"""Called by the work between its chunks; raises `WorkCancelled` once nobody wants the answer."""

Answer = TypeVar("Answer")

# No thread is started before the first job needs one.
threads: Final = ThreadPoolExecutor(max_workers=WORK_THREADS, thread_name_prefix="task-work")


class WorkCancelled(Exception):
    """The job was cancelled; raised inside its thread only, to leave the work."""


async def run_in_work_thread(work: Callable[[Checkpoint], Answer]) -> Answer:
    """Returns what ``work`` returned in a thread; the event loop stays free meanwhile.

    When the awaiting job is cancelled (abort, timeout, shutdown), ``work`` leaves at its next
    checkpoint, or never starts if it was still waiting for a thread.

    Args:
        work: takes a `Checkpoint`, which it calls every few milliseconds.
    """
    cancelled = threading.Event()

    def checkpoint() -> None:
        if cancelled.is_set():
            raise WorkCancelled

    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work, checkpoint)
    finally:
        cancelled.set()
