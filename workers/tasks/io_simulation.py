"""``io_simulation_task``: waits as for a network, and writes, reads and removes small files."""

import os
import random
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import anyio.to_thread
from msgspec import Meta, Struct

from workers.tasks.temp_files import temp_folder

__all__ = ["JITTER", "IoWork", "io_simulation_task"]

JITTER: Final = 0.2
"""Each wait differs from the one asked for by up to this share of it, as answers of a network do."""


class IoWork(Struct, frozen=True, kw_only=True):
    """What `io_simulation_task` did.

    Attributes:
        operations: as asked for.
        waited_ms: spent waiting, over all operations.
        written_bytes: to files, over all operations.
        read_bytes: from those files.
        intact: whether what was read is what was written.
        ran_ms: time from start to end.
    """

    operations: int
    waited_ms: float
    written_bytes: int
    read_bytes: int
    intact: bool
    ran_ms: float


async def io_simulation_task(
    ctx: dict[str, Any],
    *,
    delay_ms: Annotated[int, Meta(ge=0, le=60_000)] = 100,
    operations: Annotated[int, Meta(ge=1, le=1_000)] = 2,
    file_bytes: Annotated[int, Meta(ge=0, le=1024 * 1024)] = 4096,
) -> IoWork:
    """Waits the way network calls do and writes, reads and removes a small file each time.

    Args:
        ctx: arq's job context.
        delay_ms: wait of one operation in ms, 0 to 60 000, give or take 20 %. Default 100.
        operations: waits and files, one after the other, 1 to 1 000. Default 2.
        file_bytes: size of each file, 0 to 1 048 576. Default 4096.
    """
    started = time.perf_counter()
    waited_s = 0.0
    read_bytes = 0
    intact = True
    for _ in range(operations):
        wait_started = time.perf_counter()
        await anyio.sleep(delay_ms / 1000 * random.uniform(1 - JITTER, 1 + JITTER))
        waited_s += time.perf_counter() - wait_started
        written, read = await anyio.to_thread.run_sync(write_and_read, file_bytes)
        read_bytes += len(read)
        intact = intact and read == written
    return IoWork(
        operations=operations,
        waited_ms=round(waited_s * 1000, 3),
        written_bytes=operations * file_bytes,
        read_bytes=read_bytes,
        intact=intact,
        ran_ms=round((time.perf_counter() - started) * 1000, 3),
    )


def write_and_read(file_bytes: int) -> tuple[bytes, bytes]:
    """Returns what was written to a new file and what it then held; the file is gone afterwards."""
    content = os.urandom(file_bytes)
    descriptor, name = tempfile.mkstemp(prefix="io-", dir=temp_folder())
    try:
        with os.fdopen(descriptor, "w+b") as file:
            file.write(content)
            file.seek(0)
            return content, file.read()
    finally:
        Path(name).unlink(missing_ok=True)  # a clean-up with max_age_hours=0 may have come first
