"""Jobs that take too long."""

import asyncio
from datetime import timedelta

import pytest
from arq.connections import ArqRedis

from tests.conformance.conftest import Context, MakeWorker, drain, enqueue, failure_of, named


async def hang(ctx: Context) -> None:
    await asyncio.Event().wait()


async def nap(ctx: Context) -> str:
    await asyncio.sleep(0.1)
    return "awake"


@pytest.mark.parametrize("limit", [0.05, timedelta(milliseconds=50)])
async def test_job_that_outlasts_the_workers_timeout_fails(
    make_worker: MakeWorker, producer: ArqRedis, limit: float | timedelta
) -> None:
    job = await enqueue(producer, "hang")
    worker = make_worker([hang], job_timeout=limit)
    await drain(worker)
    with pytest.raises(TimeoutError):
        await job.result(timeout=5)
    assert worker.jobs_failed == 1


@pytest.mark.parametrize("limit", [0.05, timedelta(milliseconds=50)])
async def test_job_that_outlasts_its_functions_timeout_fails(
    make_worker: MakeWorker, producer: ArqRedis, limit: float | timedelta
) -> None:
    job = await enqueue(producer, "hang")
    await drain(make_worker([named(hang, timeout=limit)]))
    assert isinstance(await failure_of(job), TimeoutError)


async def test_functions_timeout_may_be_longer_than_the_workers(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "nap")
    await drain(make_worker([named(nap, timeout=10)], job_timeout=0.01))
    assert await job.result(timeout=5) == "awake"


async def test_each_function_has_its_own_timeout(make_worker: MakeWorker, producer: ArqRedis) -> None:
    hanging, napping = await enqueue(producer, "hang"), await enqueue(producer, "nap")
    await drain(make_worker([named(hang, timeout=0.02), named(nap, timeout=10)]))
    assert isinstance(await failure_of(hanging), TimeoutError)
    assert await napping.result(timeout=5) == "awake"


async def test_job_that_timed_out_is_cancelled_and_may_tidy_up(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def tidy(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            tidied.append(ctx["job_id"])
            raise

    tidied: list[str] = []
    await enqueue(producer, "tidy", _job_id="job")
    await drain(make_worker([named(tidy)], job_timeout=0.02))
    assert tidied == ["job"]


async def test_job_that_timed_out_is_not_retried(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def note(ctx: Context) -> None:
        tries.append(ctx["job_try"])
        await asyncio.Event().wait()

    tries: list[int] = []
    await enqueue(producer, "note")
    worker = make_worker([named(note)], job_timeout=0.02)
    await drain(worker)
    assert (tries, worker.jobs_retried) == ([1], 0)


async def test_job_that_timed_out_makes_room_for_others(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue(producer, "hang")
    job = await enqueue(producer, "nap")
    await drain(make_worker([named(hang, timeout=0.02), nap], max_jobs=1))
    assert await job.result(timeout=5) == "awake"


async def test_timeout_error_of_the_task_itself_fails_the_job_too(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def call_a_slow_service(ctx: Context) -> None:
        raise TimeoutError("no answer")

    job = await enqueue(producer, "call_a_slow_service")
    await drain(make_worker([named(call_a_slow_service)]))
    with pytest.raises(TimeoutError, match="no answer"):
        await job.result(timeout=5)
