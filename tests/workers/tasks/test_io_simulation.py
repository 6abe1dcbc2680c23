import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.workers.tasks.event_loop import wait_until
from workers.tasks import io_simulation
from workers.tasks.io_simulation import JITTER, io_simulation_task
from workers.tasks.temp_files import cleanup_temp_files, temp_folder


async def test_io_task_runs_with_no_arguments_and_leaves_no_file(temp_root: Path) -> None:
    done = await io_simulation_task({})
    assert done.operations == 2
    assert done.written_bytes == done.read_bytes == 2 * 4096
    assert done.intact
    assert list(temp_folder().iterdir()) == []


async def test_io_task_waits_about_as_long_as_asked_for(temp_root: Path) -> None:
    done = await io_simulation_task({}, delay_ms=40, operations=3)
    assert done.waited_ms >= 3 * 40 * (1 - JITTER)
    assert done.ran_ms >= done.waited_ms


async def test_io_tasks_wait_side_by_side(temp_root: Path) -> None:
    started = time.perf_counter()
    await asyncio.gather(*(io_simulation_task({}, delay_ms=100, operations=2) for _ in range(50)))
    assert time.perf_counter() - started < 50 * 0.2 * (1 - JITTER)


async def test_io_task_reads_from_the_disk_what_it_wrote(temp_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real_write_and_read = io_simulation.write_and_read

    def watched(file_bytes: int) -> tuple[bytes, bytes]:
        content, read = real_write_and_read(file_bytes)
        written.append(content)
        return content, read[:-1]

    monkeypatch.setattr(io_simulation, "write_and_read", watched)
    done = await io_simulation_task({}, delay_ms=0, operations=2, file_bytes=100)
    assert [len(content) for content in written] == [100, 100]
    assert written[0] != written[1]
    assert done.read_bytes == 2 * 99
    assert not done.intact


async def test_io_task_survives_a_clean_up_that_takes_its_file(
    temp_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fdopen = os.fdopen

    def clean_up_first(*args: Any, **kwargs: Any) -> Any:
        for file in temp_folder().iterdir():
            file.unlink()
        return real_fdopen(*args, **kwargs)

    monkeypatch.setattr(os, "fdopen", clean_up_first)
    done = await io_simulation_task({}, delay_ms=0, operations=1)
    assert done.intact
    assert (await cleanup_temp_files({}, max_age_hours=0)).removed_files == 0


async def test_cancelled_io_task_leaves_no_file(temp_root: Path) -> None:
    jobs = [asyncio.create_task(io_simulation_task({}, delay_ms=1, operations=1_000)) for _ in range(10)]
    await asyncio.sleep(0.05)
    for job in jobs:
        job.cancel()
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    # A thread may be about to remove its file.
    await wait_until(lambda: not list(temp_folder().iterdir()))
