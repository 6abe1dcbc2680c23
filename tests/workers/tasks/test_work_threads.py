import asyncio
import threading

import pytest

from workers.tasks.work_threads import WORK_THREADS, Checkpoint, WorkCancelled, run_in_work_thread


async def test_work_runs_in_another_thread_and_its_answer_comes_back() -> None:
    assert await run_in_work_thread(lambda checkpoint: threading.get_ident()) != threading.get_ident()


async def test_an_error_of_the_work_reaches_the_job() -> None:
    def work(checkpoint: Checkpoint) -> None:
        raise ZeroDivisionError("of the work")

    with pytest.raises(ZeroDivisionError, match="of the work"):
        await run_in_work_thread(work)


async def test_cancelled_work_leaves_at_its_next_checkpoint() -> None:
    started, left = threading.Event(), threading.Event()

    def endless(checkpoint: Checkpoint) -> None:
        started.set()
        try:
            while True:
                checkpoint()
        except WorkCancelled:
            left.set()
            raise

    job = asyncio.create_task(run_in_work_thread(endless))
    assert await asyncio.to_thread(started.wait, 10)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert await asyncio.to_thread(left.wait, 10)


async def test_work_that_was_cancelled_while_waiting_for_a_thread_never_starts() -> None:
    release = threading.Event()
    ran = threading.Event()
    try:
        blocking = [
            asyncio.create_task(run_in_work_thread(lambda checkpoint: release.wait(10))) for _ in range(WORK_THREADS)
        ]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(run_in_work_thread(lambda checkpoint: ran.set()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    finally:
        release.set()
    assert all(await asyncio.gather(*blocking))
    await run_in_work_thread(lambda checkpoint: None)
    assert not ran.is_set()


async def test_no_more_than_the_allowed_work_runs_at_once() -> None:
    running = most = 0
    lock = threading.Lock()
    all_busy = threading.Barrier(WORK_THREADS)

    def work(checkpoint: Checkpoint) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_busy.wait(10)
        with lock:
            running -= 1

    await asyncio.gather(*(run_in_work_thread(work) for _ in range(3 * WORK_THREADS)))
    assert most == WORK_THREADS
