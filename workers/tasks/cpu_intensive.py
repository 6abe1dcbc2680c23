"""``cpu_intensive_task``: key stretching, the same answer for the same number of iterations everywhere."""

import hashlib
import time
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from workers.tasks.work_threads import Checkpoint, run_in_work_thread

__all__ = ["CHUNK_ITERATIONS", "CpuWork", "cpu_intensive_task", "stretch"]

CHUNK_ITERATIONS: Final = 20_000
"""Iterations between two checks for cancellation: about 5 ms on a current core. Part of the answer's
definition, see `stretch`."""


class CpuWork(Struct, frozen=True, kw_only=True):
    """What `cpu_intensive_task` did.

    Attributes:
        iterations: as asked for.
        digest: hex, the same for the same ``iterations`` on every machine.
        cpu_ms: processor time spent.
        ran_ms: time from start to end, waiting for a free thread included.
    """

    iterations: int
    digest: str
    cpu_ms: float
    ran_ms: float


async def cpu_intensive_task(
    ctx: dict[str, Any],
    *,
    iterations: Annotated[int, Meta(ge=1, le=20_000_000)] = 200_000,
) -> CpuWork:
    """Keeps one processor core busy with hashing and returns the digest.

    The work runs in a thread and lets go of the GIL: other jobs of the worker go on. At most one per
    core runs at a time, the others wait.

    Args:
        ctx: arq's job context.
        iterations: HMAC-SHA-256 rounds, 1 to 20 000 000. The default, 200 000, takes about 50 ms.
    """
    started = time.perf_counter()

    def work(checkpoint: Checkpoint) -> tuple[str, float]:
        cpu_started = time.thread_time()
        digest = stretch(iterations, checkpoint).hex()
        return digest, (time.thread_time() - cpu_started) * 1000

    digest, cpu_ms = await run_in_work_thread(work)
    return CpuWork(
        iterations=iterations,
        digest=digest,
        cpu_ms=round(cpu_ms, 3),
        ran_ms=round((time.perf_counter() - started) * 1000, 3),
    )


def stretch(iterations: int, checkpoint: Checkpoint) -> bytes:
    """The digest of a PBKDF2 chain.

    Starting from the password ``b"aegis-tasks"``, each link is PBKDF2-HMAC-SHA-256 with the same salt
    and `CHUNK_ITERATIONS` iterations (the last one: what remains), its output the next link's password.
    """
    digest = b"aegis-tasks"
    remaining = iterations
    while remaining > 0:
        checkpoint()
        chunk = min(remaining, CHUNK_ITERATIONS)
        digest = hashlib.pbkdf2_hmac("sha256", digest, b"aegis-tasks", chunk)
        remaining -= chunk
    return digest
