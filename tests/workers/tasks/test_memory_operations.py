import asyncio
import time
import zlib

import psutil
import pytest

from tests.workers.tasks.event_loop import ticking, wait_until
from workers.tasks.memory_operations import MIB, memory_operations_task
from workers.tasks.work_threads import WORK_THREADS


async def test_memory_task_reads_back_what_it_wrote() -> None:
    patterns = [number.to_bytes(8, "big") * (MIB // 8) for number in range(2 * 3)]

    done = await memory_operations_task({}, size_mb=3, rounds=2)

    assert done.checksum == zlib.crc32(b"".join(patterns))
    assert done.intact
    assert done.allocated_bytes == 3 * MIB
    assert done.written_bytes == 6 * MIB


async def test_memory_task_holds_its_memory_and_gives_it_back() -> None:
    before = psutil.Process().memory_info().rss
    done = await memory_operations_task({}, size_mb=128, rounds=1)
    assert done.rss_peak_bytes - before > 100 * MIB
    assert done.rss_peak_bytes - done.rss_after_bytes > 100 * MIB


async def test_event_loop_goes_on_while_memory_tasks_run() -> None:
    async with ticking() as ticks:
        await asyncio.gather(*(memory_operations_task({}, size_mb=64, rounds=3) for _ in range(WORK_THREADS)))
        # On the loop, the tasks would leave it no tick at all.
        assert ticks.count > 0.1 * ticks.expected


async def test_cancelled_memory_task_stops_and_gives_its_memory_back() -> None:
    process = psutil.Process()
    cpu_started = time.process_time()
    await memory_operations_task({}, size_mb=8, rounds=2)
    whole_cpu_s = (time.process_time() - cpu_started) * 32 * 10  # of 256 MiB and 20 rounds

    before = process.memory_info().rss
    cpu_started = time.process_time()
    job = asyncio.create_task(memory_operations_task({}, size_mb=256, rounds=20))
    await wait_until(lambda: process.memory_info().rss - before > 50 * MIB)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    await wait_until(lambda: process.memory_info().rss - before < 20 * MIB)
    assert time.process_time() - cpu_started < 0.25 * whole_cpu_s
