"""What is stored of a job when it has ended, and for how long."""

from datetime import timedelta
from typing import Any

import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.jobs import JobStatus

from bridge import keys
from tests.conformance.conftest import (
    QUEUE,
    Context,
    Holding,
    MakeWorker,
    drain,
    enqueue,
    named,
    result_of,
    running,
    until,
)

ARQ_KEEPS_RESULTS_MS = 3_600_000


async def work(ctx: Context, *args: Any, **kwargs: Any) -> str:
    return "done"


async def refuse(ctx: Context) -> None:
    raise ValueError("not today")


async def retry_once(ctx: Context) -> str:
    if ctx["job_try"] == 1:
        raise Retry
    return "second time"


async def test_result_says_what_ran(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "work", 1, "two", three=3, _job_id="job")
    await drain(make_worker([work]))
    result = await result_of(job)
    assert (result.function, list(result.args), result.kwargs) == ("work", [1, "two"], {"three": 3})
    assert (result.job_id, result.queue_name, result.job_try) == ("job", QUEUE, 1)


async def test_result_says_how_it_ended(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "work")
    await drain(make_worker([work]))
    result = await result_of(job)
    assert (result.success, result.result) == (True, "done")


async def test_result_says_when(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "work")
    info = await job.info()
    await drain(make_worker([work]))
    result = await result_of(job)
    assert info is not None
    assert info.enqueue_time == result.enqueue_time
    assert result.enqueue_time <= result.start_time <= result.finish_time


async def test_result_of_a_failed_job_is_its_exception(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "refuse")
    await drain(make_worker([refuse]))
    result = await result_of(job)
    assert not result.success
    assert isinstance(result.result, ValueError)
    assert str(result.result) == "not today"


async def test_status_tells_how_far_a_job_is(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold")
    assert await job.status() == JobStatus.queued
    async with running(make_worker([holding.function], burst=False)):
        await until(lambda: holding.started)
        assert await job.status() == JobStatus.in_progress
        holding.gate.set()
        assert await job.result(timeout=5, poll_delay=0.01) == "held"
        assert await job.status() == JobStatus.complete


async def test_producer_can_wait_for_the_result(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async with running(make_worker([work], burst=False)):
        job = await enqueue(producer, "work")
        assert await job.result(timeout=5, poll_delay=0.01) == "done"


@pytest.mark.parametrize("name", ["work", "refuse", "retry_once", "unknown"])
async def test_only_the_result_is_left_of_a_job(make_worker: MakeWorker, producer: ArqRedis, name: str) -> None:
    await enqueue(producer, name, _job_id="job")
    await drain(make_worker([work, refuse, retry_once]))
    of_the_job = [key async for key in producer.scan_iter("arq:*:job")]
    assert of_the_job == [keys.result("job").encode()]
    assert await producer.zcard(QUEUE) == 0


async def lifetime_ms(producer: ArqRedis, job_id: str) -> int | None:
    """Of a result: -1 when it lasts forever, None when it is not stored."""
    pttl: int = await producer.pttl(keys.result(job_id))
    return None if pttl == -2 else pttl


async def run(make_worker: MakeWorker, producer: ArqRedis, function: Any, **options: Any) -> int | None:
    """The lifetime of the result of one job of this function."""
    await enqueue(producer, function.name, _job_id="job")
    await drain(make_worker([function], **options))
    return await lifetime_ms(producer, "job")


def is_about(lifetime: int | None, expected_ms: int) -> bool:
    return lifetime is not None and expected_ms - 10_000 < lifetime <= expected_ms


async def test_result_is_kept_for_an_hour_by_default(make_worker: MakeWorker, producer: ArqRedis) -> None:
    assert is_about(await run(make_worker, producer, named(work)), ARQ_KEEPS_RESULTS_MS)


@pytest.mark.parametrize("function", [work, refuse])
@pytest.mark.parametrize("keep_result", [60, 59.5, timedelta(minutes=1)])
async def test_result_is_kept_as_long_as_the_worker_says(
    make_worker: MakeWorker, producer: ArqRedis, function: Any, keep_result: float | timedelta
) -> None:
    assert is_about(await run(make_worker, producer, named(function), keep_result=keep_result), 60_000)


@pytest.mark.parametrize("keep_result", [60, timedelta(minutes=1)])
async def test_result_is_kept_as_long_as_the_function_says(
    make_worker: MakeWorker, producer: ArqRedis, keep_result: float | timedelta
) -> None:
    assert is_about(await run(make_worker, producer, named(work, keep_result=keep_result), keep_result=120), 60_000)


async def test_result_of_an_unknown_function_is_kept_as_long_as_the_worker_says(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    await enqueue(producer, "unknown", _job_id="job")
    await drain(make_worker([work], keep_result=60))
    assert is_about(await lifetime_ms(producer, "job"), 60_000)


@pytest.mark.parametrize("name", ["work", "refuse", "unknown"])
async def test_worker_may_keep_no_results(make_worker: MakeWorker, producer: ArqRedis, name: str) -> None:
    await enqueue(producer, name, _job_id="job")
    worker = make_worker([work, refuse], keep_result=0)
    await drain(worker)
    assert worker.jobs_complete + worker.jobs_failed == 1
    assert await lifetime_ms(producer, "job") is None


@pytest.mark.parametrize("function", [work, refuse])
async def test_function_may_keep_no_results(make_worker: MakeWorker, producer: ArqRedis, function: Any) -> None:
    assert await run(make_worker, producer, named(function, keep_result=0)) is None


async def test_function_may_keep_results_where_the_worker_keeps_none(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    assert is_about(await run(make_worker, producer, named(work, keep_result=60), keep_result=0), 60_000)


@pytest.mark.parametrize("function", [work, refuse])
async def test_worker_may_keep_results_forever(make_worker: MakeWorker, producer: ArqRedis, function: Any) -> None:
    assert await run(make_worker, producer, named(function), keep_result_forever=True) == -1


async def test_function_may_keep_results_forever(make_worker: MakeWorker, producer: ArqRedis) -> None:
    assert await run(make_worker, producer, named(work, keep_result_forever=True)) == -1


async def test_forever_wins_over_a_time(make_worker: MakeWorker, producer: ArqRedis) -> None:
    assert await run(make_worker, producer, named(work, keep_result=0, keep_result_forever=True)) == -1


async def test_function_may_keep_results_for_a_time_where_the_worker_keeps_them_forever(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    function = named(work, keep_result=60, keep_result_forever=False)
    assert is_about(await run(make_worker, producer, function, keep_result_forever=True), 60_000)


async def test_id_is_taken_while_the_result_is_kept(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await run(make_worker, producer, named(work))
    assert await producer.enqueue_job("work", _job_id="job") is None


async def test_id_is_free_again_when_no_result_is_kept(make_worker: MakeWorker, producer: ArqRedis) -> None:
    for _ in range(2):
        assert await run(make_worker, producer, named(work, keep_result=0)) is None
