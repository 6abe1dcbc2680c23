"""Stock `Job.abort()` of queued, deferred, running and finished jobs."""

import asyncio

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus

from bridge import keys
from tests.conformance.conftest import (
    QUEUE,
    Context,
    Holding,
    MakeWorker,
    drain,
    enqueue,
    failure_of,
    named,
    running,
    until,
)


async def abort(job: Job) -> bool:
    return await job.abort(timeout=10, poll_delay=0.01)


async def test_running_job_is_cancelled(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold", _job_id="job")
    async with running(make_worker([holding.function], allow_abort_jobs=True, burst=False)):
        await until(lambda: holding.started)
        assert await abort(job)
    assert holding.cancelled == ["job"]


async def test_aborted_job_ends_with_a_cancellation_as_its_result(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold")
    async with running(make_worker([holding.function], allow_abort_jobs=True, burst=False)):
        await until(lambda: holding.started)
        await abort(job)
    assert await job.status() == JobStatus.complete
    with pytest.raises(asyncio.CancelledError):
        await job.result(timeout=5)


async def test_aborted_job_counts_as_failed_and_is_not_retried(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold", _job_id="job")
    worker = make_worker([holding.function], allow_abort_jobs=True, burst=False)
    async with running(worker):
        await until(lambda: holding.started)
        await abort(job)
        assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)
    assert holding.started == ["job"]


async def test_other_jobs_go_on_when_one_is_aborted(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    unwanted, wanted = await enqueue(producer, "hold"), await enqueue(producer, "hold")
    async with running(make_worker([holding.function], allow_abort_jobs=True, burst=False)):
        await until(lambda: len(holding.started) == 2)
        await abort(unwanted)
        holding.gate.set()
        assert await wanted.result(timeout=5, poll_delay=0.01) == "held"
    assert holding.cancelled == [unwanted.job_id]


async def test_queued_job_never_starts(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold")
    aborting = asyncio.create_task(abort(job))
    await until(lambda: producer.zscore(keys.ABORT, job.job_id))
    worker = make_worker([holding.function], allow_abort_jobs=True)
    await drain(worker)
    assert await aborting
    assert (holding.started, worker.jobs_failed) == ([], 1)


async def test_job_that_waits_for_a_free_place_never_starts(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    first = await enqueue(producer, "hold", _job_id="first")
    async with running(make_worker([holding.function], allow_abort_jobs=True, max_jobs=1, burst=False)):
        await until(lambda: holding.started)
        waiting = await enqueue(producer, "hold", _job_id="waiting")
        aborting = asyncio.create_task(abort(waiting))
        await until(lambda: producer.zscore(keys.ABORT, "waiting"))
        holding.gate.set()
        assert await aborting
        assert await first.result(timeout=5, poll_delay=0.01) == "held"
    assert holding.started == ["first"]


async def test_deferred_job_never_starts(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold", _defer_by=60)
    async with running(make_worker([holding.function], allow_abort_jobs=True, burst=False)):
        assert await abort(job)
    assert holding.started == []
    assert isinstance(await failure_of(job), asyncio.CancelledError)


async def test_finished_job_keeps_its_result(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    holding.gate.set()
    job = await enqueue(producer, "hold")
    async with running(make_worker([holding.function], allow_abort_jobs=True, burst=False)):
        assert await job.result(timeout=5, poll_delay=0.01) == "held"
        assert not await abort(job)
    assert await job.result(timeout=5) == "held"


async def test_job_that_fails_by_itself_was_not_aborted(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def refuse(ctx: Context) -> None:
        raise ValueError("not today")

    job = await enqueue(producer, "refuse")
    await drain(make_worker([named(refuse)], allow_abort_jobs=True))
    with pytest.raises(ValueError, match="not today"):
        await abort(job)


async def test_job_may_refuse_its_abort(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def stay(ctx: Context) -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "stayed"
        return "left"

    started = asyncio.Event()
    job = await enqueue(producer, "stay")
    async with running(make_worker([named(stay)], allow_abort_jobs=True, burst=False)):
        await started.wait()
        assert not await abort(job)
        assert await job.result(timeout=5) == "stayed"


async def test_jobs_are_not_aborted_by_default(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold", _job_id="job")
    async with running(make_worker([holding.function], burst=False, health_check_interval=0.01)):
        await until(lambda: holding.started)
        aborting = asyncio.create_task(abort(job))
        await until(lambda: producer.zscore(keys.ABORT, "job"))
        for _ in range(2):  # it has looked around twice since
            await producer.delete(keys.health_check(QUEUE))
            await until(lambda: producer.exists(keys.health_check(QUEUE)))
        holding.gate.set()
        assert not await aborting
    assert await job.result(timeout=5) == "held"
    assert holding.cancelled == []


async def test_request_to_abort_is_gone_when_the_job_has_ended(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold")
    async with running(make_worker([holding.function], allow_abort_jobs=True, burst=False)):
        await until(lambda: holding.started)
        await abort(job)
    assert await producer.zscore(keys.ABORT, job.job_id) is None


async def test_request_to_abort_is_gone_though_nobody_has_heeded_it(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    async def work(ctx: Context) -> str:
        await producer.zadd(keys.ABORT, {ctx["job_id"]: ctx["score"]})
        return "done"

    job = await enqueue(producer, "work")
    await drain(make_worker([named(work)]))
    assert await job.result(timeout=5) == "done"
    assert await producer.zscore(keys.ABORT, job.job_id) is None
