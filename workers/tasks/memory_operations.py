"""``memory_operations_task``: takes memory from the system, writes it, reads it back, gives it back."""

import mmap
import time
import zlib
from typing import Annotated, Any, Final

import psutil
from msgspec import Meta, Struct

from workers.tasks.work_threads import Checkpoint, run_in_work_thread

__all__ = ["MIB", "MemoryWork", "memory_operations_task"]

MIB: Final = 1024 * 1024


class MemoryWork(Struct, frozen=True, kw_only=True):
    """What `memory_operations_task` did.

    Attributes:
        allocated_bytes: held at once.
        written_bytes: over all rounds.
        checksum: CRC-32 of everything read back, the same for the same arguments on every machine.
        intact: whether what was read is what was written.
        rss_peak_bytes: memory of the whole worker process while this job held its own.
        rss_after_bytes: the same after this job gave it back.
        ran_ms: time from start to end, waiting for a free thread included.
    """

    allocated_bytes: int
    written_bytes: int
    checksum: int
    intact: bool
    rss_peak_bytes: int
    rss_after_bytes: int
    ran_ms: float


async def memory_operations_task(
    ctx: dict[str, Any],
    *,
    size_mb: Annotated[int, Meta(ge=1, le=256)] = 8,
    rounds: Annotated[int, Meta(ge=1, le=20)] = 2,
) -> MemoryWork:
    """Allocates memory, fills it, checks every byte of it and releases it.

    At most one per core (and eight) of one worker process hold memory at a time, the others wait.

    Args:
        ctx: arq's job context.
        size_mb: memory to hold, in MiB, 1 to 256. Default 8.
        rounds: times it is filled with a new pattern and read back, 1 to 20. Default 2.
    """
    started = time.perf_counter()

    def work(checkpoint: Checkpoint) -> tuple[int, int, int, int]:
        # A mapping of its own goes back to the system when it is closed; what a bytearray frees, the
        # C allocator may keep.
        with mmap.mmap(-1, size_mb * MIB) as memory:
            written = read = 0
            for round_number in range(rounds):
                written = fill(memory, round_number, written, checkpoint)
                read = read_back(memory, read, checkpoint)
            rss_peak_bytes = psutil.Process().memory_info().rss
        return written, read, rss_peak_bytes, psutil.Process().memory_info().rss

    written, read, rss_peak_bytes, rss_after_bytes = await run_in_work_thread(work)
    return MemoryWork(
        allocated_bytes=size_mb * MIB,
        written_bytes=size_mb * MIB * rounds,
        checksum=read,
        intact=read == written,
        rss_peak_bytes=rss_peak_bytes,
        rss_after_bytes=rss_after_bytes,
        ran_ms=round((time.perf_counter() - started) * 1000, 3),
    )


def fill(memory: mmap.mmap, round_number: int, checksum: int, checkpoint: Checkpoint) -> int:
    """Writes every block of ``memory``, each its own pattern, and returns the checksum carried on over them."""
    blocks = len(memory) // MIB
    for block in range(blocks):
        checkpoint()
        pattern = (round_number * blocks + block).to_bytes(8, "big") * (MIB // 8)
        memory[block * MIB : (block + 1) * MIB] = pattern
        checksum = zlib.crc32(pattern, checksum)
    return checksum


def read_back(memory: mmap.mmap, checksum: int, checkpoint: Checkpoint) -> int:
    """Returns the checksum carried on over every byte of ``memory``."""
    # The views are closed here: a mapping with an open view cannot be closed.
    with memoryview(memory) as view:
        for start in range(0, len(memory), MIB):
            checkpoint()
            with view[start : start + MIB] as block:
                checksum = zlib.crc32(block, checksum)
    return checksum
