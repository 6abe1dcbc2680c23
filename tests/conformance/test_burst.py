"""Burst runs: workers that end when there is nothing left to do."""

import asyncio
from datetime import timedelta

import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.jobs import JobStatus
from arq.worker import FailedJobs

from tests.conformance.conftest import QUEUE, Context, MakeWorker, drain, enqueue, named


async def double(ctx: Context, number: int) -> int:
    return number * 2


async def refuse(ctx: Context, reason: str = "not today") -> None:
    raise ValueError(reason)


async def retry_once(ctx: Context) -> None:
    if ctx["job_try"] == 1:
        raise Retry


async def test_burst_ends_at_once_when_nothing_is_queued(make_worker: MakeWorker, producer: ArqRedis) -> None:
    worker = make_worker([double])
    await drain(worker)
    assert worker.jobs_complete == 0


async def test_burst_runs_all_that_is_queued(make_worker: MakeWorker, producer: ArqRedis) -> None:
    for number in range(50):
        await enqueue(producer, "double", number)
    worker = make_worker([double])
    await drain(worker)
    assert worker.jobs_complete == 50
    assert await producer.zcard(QUEUE) == 0


async def test_burst_runs_what_its_jobs_enqueue(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def count_down(ctx: Context, number: int) -> None:
        if number:
            await ctx["redis"].enqueue_job("count_down", number - 1)

    await enqueue(producer, "count_down", 3)
    worker = make_worker([named(count_down)])
    await drain(worker)
    assert worker.jobs_complete == 4


async def test_burst_waits_for_jobs_that_run(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def nap(ctx: Context) -> str:
        await asyncio.sleep(0.1)
        return "awake"

    job = await enqueue(producer, "nap")
    await drain(make_worker([named(nap)]))
    assert await job.status() == JobStatus.complete


@pytest.mark.parametrize("defer_by", [0.2, timedelta(milliseconds=200)])
async def test_burst_waits_for_deferred_jobs(
    make_worker: MakeWorker, producer: ArqRedis, defer_by: float | timedelta
) -> None:
    job = await enqueue(producer, "double", 21, _defer_by=defer_by)
    await drain(make_worker([double]))
    assert await job.result(timeout=5) == 42


async def test_worker_counts_how_its_jobs_have_ended(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue(producer, "double", 1)
    await enqueue(producer, "double", 2)
    await enqueue(producer, "refuse")
    await enqueue(producer, "retry_once")
    worker = make_worker([double, refuse, retry_once])
    await drain(worker)
    assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (3, 1, 1)


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_max_burst_jobs_ends_the_burst_early(make_worker: MakeWorker, producer: ArqRedis, limit: int) -> None:
    for number in range(5):
        await enqueue(producer, "double", number)
    worker = make_worker([double], max_burst_jobs=limit)
    await drain(worker)
    assert worker.jobs_complete == limit
    assert await producer.zcard(QUEUE) == 5 - limit


async def test_max_burst_jobs_leaves_the_others_queued(make_worker: MakeWorker, producer: ArqRedis) -> None:
    first, second = [await enqueue(producer, "double", 1, _job_id=job_id) for job_id in "ab"]
    await drain(make_worker([double], max_burst_jobs=1))
    assert (await first.status(), await second.status()) == (JobStatus.complete, JobStatus.queued)


async def test_max_burst_jobs_is_no_number_that_has_to_be_reached(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue(producer, "double", 1)
    worker = make_worker([double], max_burst_jobs=100)
    await drain(worker)
    assert worker.jobs_complete == 1


async def test_max_burst_jobs_counts_failures_and_retries_too(make_worker: MakeWorker, producer: ArqRedis) -> None:
    for job_id, name in enumerate(["refuse", "retry_once", "refuse"]):
        await enqueue(producer, name, _job_id=str(job_id))
    worker = make_worker([refuse, retry_once], max_burst_jobs=2)
    await drain(worker)
    assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (0, 1, 1)


async def test_run_check_tells_how_many_jobs_have_succeeded(make_worker: MakeWorker, producer: ArqRedis) -> None:
    for number in range(3):
        await enqueue(producer, "double", number)
    assert await make_worker([double]).run_check() == 3


async def test_run_check_raises_when_a_job_has_failed(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue(producer, "double", 1)
    await enqueue(producer, "refuse")
    with pytest.raises(FailedJobs) as caught:
        await make_worker([double, refuse]).run_check()
    assert caught.value.count == 1
    assert str(caught.value) == "1 job failed ValueError('not today')"


async def test_run_check_raises_with_the_results_of_all_failed_jobs(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    await enqueue(producer, "double", 1, _job_id="good")
    for job_id in ("one", "two"):
        await enqueue(producer, "refuse", job_id, _job_id=job_id)
    with pytest.raises(FailedJobs, match="2 jobs failed:") as caught:
        await make_worker([double, refuse]).run_check()
    assert caught.value.count == 2
    assert {(result.job_id, str(result.result)) for result in caught.value.job_results} == {
        ("one", "one"),
        ("two", "two"),
    }


async def test_run_check_can_limit_the_jobs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    for number in range(5):
        await enqueue(producer, "double", number)
    assert await make_worker([double]).run_check(max_burst_jobs=2) == 2
    assert await producer.zcard(QUEUE) == 3


async def test_run_check_can_refuse_retries(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue(producer, "retry_once")
    worker = make_worker([retry_once])
    with pytest.raises(FailedJobs):
        await worker.run_check(retry_jobs=False)
    assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)


async def test_run_check_can_be_called_again(make_worker: MakeWorker, producer: ArqRedis) -> None:
    worker = make_worker([double])
    await enqueue(producer, "double", 1)
    assert await worker.run_check() == 1
    await enqueue(producer, "double", 2)
    assert await worker.run_check() == 2
