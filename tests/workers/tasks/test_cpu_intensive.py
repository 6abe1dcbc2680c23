import asyncio
import hashlib
import time

import pytest

from tests.workers.tasks.event_loop import ticking
from workers.tasks.cpu_intensive import CHUNK_ITERATIONS, cpu_intensive_task
from workers.tasks.work_threads import WORK_THREADS


async def test_cpu_task_returns_the_digest_of_the_documented_chain() -> None:
    first = hashlib.pbkdf2_hmac("sha256", b"aegis-tasks", b"aegis-tasks", CHUNK_ITERATIONS)
    second = hashlib.pbkdf2_hmac("sha256", first, b"aegis-tasks", CHUNK_ITERATIONS)
    third = hashlib.pbkdf2_hmac("sha256", second, b"aegis-tasks", 7)

    done = await cpu_intensive_task({}, iterations=2 * CHUNK_ITERATIONS + 7)

    assert done.digest == third.hex()
    assert done.iterations == 2 * CHUNK_ITERATIONS + 7


async def test_cpu_task_gives_the_same_digest_as_ever() -> None:
    done = await cpu_intensive_task({})
    assert done.iterations == 200_000
    assert done.digest == "4fbb64193a9231e4e6fd37855df65e90b6bb58e5832b411d5d0fa62965c9849f"


async def test_cpu_task_spends_processor_time_in_proportion_to_its_iterations() -> None:
    little = await cpu_intensive_task({}, iterations=100_000)
    much = await cpu_intensive_task({}, iterations=1_000_000)
    assert much.cpu_ms > 3 * little.cpu_ms


async def test_event_loop_goes_on_while_cpu_tasks_run() -> None:
    async with ticking() as ticks:
        await asyncio.gather(*(cpu_intensive_task({}, iterations=1_000_000) for _ in range(WORK_THREADS)))
        # On the loop, the tasks would leave it no tick at all.
        assert ticks.count > 0.1 * ticks.expected


async def test_cancelled_cpu_task_stops_working() -> None:
    little = await cpu_intensive_task({}, iterations=200_000)
    whole_cpu_s = little.cpu_ms / 1000 * 100 * WORK_THREADS  # of 20 million iterations on every thread

    cpu_started = time.process_time()
    jobs = [asyncio.create_task(cpu_intensive_task({}, iterations=20_000_000)) for _ in range(WORK_THREADS)]
    await asyncio.sleep(0.05)
    for job in jobs:
        job.cancel()
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    # Every thread is taken: this runs only once a cancelled task has left its own.
    await cpu_intensive_task({}, iterations=1)

    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert time.process_time() - cpu_started < 0.25 * whole_cpu_s


async def test_cpu_task_that_runs_into_its_timeout_is_cancelled() -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cpu_intensive_task({}, iterations=20_000_000), timeout=0.02)
