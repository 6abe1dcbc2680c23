"""Jobs that run again."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.jobs import JobStatus
from arq.worker import Function, JobExecutionFailed, RetryJob, Worker

from bridge import keys
from tests.conformance.conftest import (
    Context,
    MakeWorker,
    drain,
    enqueue,
    failure_of,
    named,
    result_of,
    running,
    until,
)


class Stubborn:
    """A function that raises in its first runs, and then returns the number of its run.

    Args:
        raises: how many runs raise.
        error: makes what they raise.
        options: of arq's ``func``.
    """

    def __init__(self, raises: int, error: Callable[[], BaseException] = Retry, **options: Any) -> None:
        self.tries: list[int] = []
        self.started_at_s: list[float] = []

        async def stubborn(ctx: Context) -> int:
            self.started_at_s.append(time.monotonic())
            self.tries.append(ctx["job_try"])
            if len(self.tries) <= raises:
                raise error()
            return len(self.tries)

        self.function: Function = named(stubborn, **options)


ALWAYS = 1_000


async def test_retry_runs_the_job_again(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=2)
    job = await enqueue(producer, "stubborn")
    await drain(make_worker([stubborn.function]))
    assert await job.result(timeout=5) == 3


async def test_job_try_counts_the_runs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=2)
    job = await enqueue(producer, "stubborn")
    await drain(make_worker([stubborn.function]))
    assert stubborn.tries == [1, 2, 3]
    assert (await result_of(job)).job_try == 3


async def test_retries_are_counted_apart_from_the_end(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue(producer, "stubborn")
    worker = make_worker([Stubborn(raises=2).function])
    await drain(worker)
    assert (worker.jobs_complete, worker.jobs_retried, worker.jobs_failed) == (1, 2, 0)


async def test_retried_job_has_the_same_arguments(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def note(ctx: Context, *args: object, **kwargs: object) -> None:
        seen.append((args, kwargs))
        if ctx["job_try"] == 1:
            raise Retry

    seen: list[object] = []
    await enqueue(producer, "note", 1, two=2)
    await drain(make_worker([named(note)]))
    assert seen == [((1,), {"two": 2})] * 2


@pytest.mark.parametrize("defer", [0.2, timedelta(milliseconds=200)])
async def test_deferred_retry_waits(make_worker: MakeWorker, producer: ArqRedis, defer: float | timedelta) -> None:
    stubborn = Stubborn(raises=1, error=lambda: Retry(defer))
    job = await enqueue(producer, "stubborn")
    await drain(make_worker([stubborn.function]))
    first, second = stubborn.started_at_s
    assert second - first >= 0.198, "clocks of a millisecond"
    assert await job.result(timeout=5) == 2


async def test_deferred_retry_counts_from_the_end_of_the_run(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def slow(ctx: Context) -> None:
        if ctx["job_try"] == 1:
            await asyncio.sleep(0.2)
            ended_at_s.append(time.monotonic())
            raise Retry(defer=0.1)
        started_at_s.append(time.monotonic())

    ended_at_s: list[float] = []
    started_at_s: list[float] = []
    await enqueue(producer, "slow")
    await drain(make_worker([named(slow)]))
    assert started_at_s[0] - ended_at_s[0] >= 0.098, "clocks of a millisecond"


async def test_job_that_waits_for_its_retry_looks_deferred(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=1, error=lambda: Retry(defer=60))
    job = await enqueue(producer, "stubborn")
    async with running(make_worker([stubborn.function], burst=False)):
        await until(lambda: stubborn.tries)

        async def is_given_back() -> bool:
            return not await producer.exists(keys.in_progress(job.job_id))

        await until(is_given_back)
        assert await job.status() == JobStatus.deferred
    assert stubborn.tries == [1]


async def test_worker_does_other_jobs_until_the_retry_is_due(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def quick(ctx: Context) -> None:
        order.append("quick")

    async def slow(ctx: Context) -> None:
        order.append("slow")
        if ctx["job_try"] == 1:
            raise Retry(defer=0.2)

    order: list[str] = []
    await enqueue(producer, "slow", _job_id="a")
    await enqueue(producer, "quick", _job_id="b")
    await drain(make_worker([named(quick), named(slow)], max_jobs=1))
    assert order == ["slow", "quick", "slow"]


async def test_other_exceptions_are_not_retried(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=1, error=ValueError)
    job = await enqueue(producer, "stubborn")
    await drain(make_worker([stubborn.function]))
    assert stubborn.tries == [1]
    assert isinstance(await failure_of(job), ValueError)


@pytest.mark.parametrize("error", [RetryJob, asyncio.CancelledError])
async def test_job_that_raises_this_runs_again_at_once(
    make_worker: MakeWorker, producer: ArqRedis, error: type[BaseException]
) -> None:
    stubborn = Stubborn(raises=1, error=error)
    job = await enqueue(producer, "stubborn")
    await drain(make_worker([stubborn.function]))
    assert await job.result(timeout=5) == 2


async def is_out_of_tries(worker: Worker, job: Any, tries: int) -> None:
    assert await failure_of(job) == JobExecutionFailed(f"max {tries} retries exceeded")
    assert (await result_of(job)).job_try in {tries, tries + 1}, "the last run, or the one that was refused"
    assert worker.jobs_failed == 1


async def test_job_fails_when_its_tries_are_used_up(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=ALWAYS)
    job = await enqueue(producer, "stubborn")
    worker = make_worker([stubborn.function], max_tries=3)
    await drain(worker)
    assert stubborn.tries == [1, 2, 3]
    await is_out_of_tries(worker, job, tries=3)


async def test_five_tries_are_the_default(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=ALWAYS)
    job = await enqueue(producer, "stubborn")
    worker = make_worker([stubborn.function])
    await drain(worker)
    assert stubborn.tries == [1, 2, 3, 4, 5]
    await is_out_of_tries(worker, job, tries=5)


@pytest.mark.parametrize(("own", "of_the_worker"), [(1, 5), (3, 2)])
async def test_functions_own_tries_win(
    make_worker: MakeWorker, producer: ArqRedis, own: int, of_the_worker: int
) -> None:
    stubborn = Stubborn(raises=ALWAYS, max_tries=own)
    job = await enqueue(producer, "stubborn")
    worker = make_worker([stubborn.function], max_tries=of_the_worker)
    await drain(worker)
    assert len(stubborn.tries) == own
    await is_out_of_tries(worker, job, tries=own)


async def test_job_may_succeed_in_its_last_try(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "stubborn")
    await drain(make_worker([Stubborn(raises=2).function], max_tries=3))
    assert await job.result(timeout=5) == 3


async def test_producer_may_say_which_try_it_is(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=1)
    await enqueue(producer, "stubborn", _job_try=3)
    await drain(make_worker([stubborn.function]))
    assert stubborn.tries == [3, 4]


async def test_tries_that_the_producer_counts_are_used_up_too(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=ALWAYS)
    job = await enqueue(producer, "stubborn", _job_try=2)
    worker = make_worker([stubborn.function], max_tries=3)
    await drain(worker)
    assert stubborn.tries == [2, 3]
    await is_out_of_tries(worker, job, tries=3)


async def test_job_without_a_try_left_fails_without_running(make_worker: MakeWorker, producer: ArqRedis) -> None:
    stubborn = Stubborn(raises=0)
    job = await enqueue(producer, "stubborn", _job_try=4)
    worker = make_worker([stubborn.function], max_tries=3)
    await drain(worker)
    assert stubborn.tries == []
    await is_out_of_tries(worker, job, tries=3)


@pytest.mark.parametrize("error", [Retry, partial(Retry, 60), RetryJob], ids=["Retry", "deferred Retry", "RetryJob"])
async def test_retry_fails_the_job_where_the_worker_retries_nothing(
    make_worker: MakeWorker, producer: ArqRedis, error: Callable[[], Exception]
) -> None:
    stubborn = Stubborn(raises=ALWAYS, error=error)
    job = await enqueue(producer, "stubborn")
    worker = make_worker([stubborn.function], retry_jobs=False)
    await drain(worker)
    assert stubborn.tries == [1]
    assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)
    assert type(error()).__name__ in repr(await failure_of(job))


async def test_tries_of_a_finished_job_do_not_count_for_the_next_with_its_id(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    first, second = Stubborn(raises=2, keep_result=0), Stubborn(raises=0)
    for stubborn in (first, second):
        await enqueue(producer, "stubborn", _job_id="job")
        await drain(make_worker([stubborn.function]))
    assert (first.tries, second.tries) == ([1, 2, 3], [1])
