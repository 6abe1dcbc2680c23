"""Jobs for later, and jobs that are no longer wanted."""

import asyncio
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from arq import Retry
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus
from arq.utils import to_unix_ms
from arq.worker import JobExecutionFailed

from bridge import keys
from tests.conformance.conftest import (
    QUEUE,
    Context,
    MakeWorker,
    drain,
    enqueue,
    failure_of,
    named,
    running,
    until,
)


class Notes:
    """A function that keeps its argument and the time of its run."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.at_s: list[float] = []

        async def note(ctx: Context, text: str = "") -> None:
            self.texts.append(text)
            self.at_s.append(time.time())

        self.function = named(note)


async def test_job_does_not_run_before_its_delay_is_over(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes, enqueued_at_s = Notes(), time.time()
    await enqueue(producer, "note", _defer_by=0.2)
    await drain(make_worker([notes.function]))
    assert notes.at_s[0] - enqueued_at_s >= 0.198, "clocks of a millisecond"


async def test_job_does_not_run_before_its_moment(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes, due_at = Notes(), datetime.now(UTC) + timedelta(milliseconds=200)
    await enqueue(producer, "note", _defer_until=due_at)
    await drain(make_worker([notes.function]))
    assert notes.at_s[0] - due_at.timestamp() >= -0.002, "clocks of a millisecond"


async def test_moment_may_have_any_timezone(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def look(ctx: Context) -> None:
        scores.append(ctx["score"])

    scores: list[int] = []
    due_at = datetime.now(UTC) - timedelta(minutes=1)
    for hours in (-7, 9):
        await enqueue(producer, "look", _defer_until=due_at.astimezone(timezone(timedelta(hours=hours))))
    await drain(make_worker([named(look)]))
    assert scores == [to_unix_ms(due_at)] * 2


async def test_job_whose_moment_has_passed_runs_at_once(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes = Notes()
    await enqueue(producer, "note", _defer_until=datetime.now(UTC) - timedelta(hours=1))
    await drain(make_worker([notes.function]))
    assert len(notes.texts) == 1


async def test_jobs_run_in_the_order_in_which_they_are_due(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes, now = Notes(), datetime.now(UTC)
    for text, minutes_ago in (("second", 2), ("third", 1), ("first", 3)):
        await enqueue(producer, "note", text, _defer_until=now - timedelta(minutes=minutes_ago))
    await drain(make_worker([notes.function], max_jobs=1))
    assert notes.texts == ["first", "second", "third"]


async def test_deferred_job_keeps_no_other_from_running(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes = Notes()
    await enqueue(producer, "note", "later", _defer_by=0.2)
    await enqueue(producer, "note", "now")
    await drain(make_worker([notes.function], max_jobs=1))
    assert notes.texts == ["now", "later"]


async def test_deferred_job_stays_deferred_while_a_worker_runs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes = Notes()
    deferred = await enqueue(producer, "note", "later", _defer_by=60)
    async with running(make_worker([notes.function], burst=False)):
        await enqueue(producer, "note", "now")
        await until(lambda: notes.texts)
        assert await deferred.status() == JobStatus.deferred
    assert notes.texts == ["now"]


async def enqueue_expired(producer: ArqRedis) -> Job:
    job = await enqueue(producer, "note", _expires=0.01)

    async def is_expired() -> bool:
        return not await producer.exists(keys.job(job.job_id))

    await until(is_expired)
    return job


async def test_job_that_could_not_start_in_time_fails(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes = Notes()
    job = await enqueue_expired(producer)
    worker = make_worker([notes.function])
    await drain(worker)
    assert await failure_of(job) == JobExecutionFailed("job expired")
    assert (notes.texts, worker.jobs_failed) == ([], 1)


async def test_expired_job_keeps_no_other_from_running(make_worker: MakeWorker, producer: ArqRedis) -> None:
    notes = Notes()
    await enqueue_expired(producer)
    await enqueue(producer, "note", "wanted")
    await drain(make_worker([notes.function], max_jobs=1))
    assert notes.texts == ["wanted"]
    assert await producer.zcard(QUEUE) == 0


@pytest.mark.parametrize("expires", [60, timedelta(minutes=1)])
async def test_job_that_starts_in_time_runs(
    make_worker: MakeWorker, producer: ArqRedis, expires: float | timedelta
) -> None:
    notes = Notes()
    await enqueue(producer, "note", _expires=expires)
    await drain(make_worker([notes.function]))
    assert len(notes.texts) == 1


class Outliving:
    """A function whose first run outlives the job's expiry."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        self.tries: list[int] = []
        self.is_expired = asyncio.Event()

        async def outlive(ctx: Context) -> str:
            self.tries.append(ctx["job_try"])
            await self.is_expired.wait()
            if error:
                raise error
            return "done"

        self.function = named(outlive)

    async def run(self, producer: ArqRedis, job: Job) -> None:
        """The job has started, and then expired."""
        await until(lambda: self.tries)

        async def is_expired() -> bool:
            return not await producer.exists(keys.job(job.job_id))

        await until(is_expired)
        self.is_expired.set()


async def test_job_that_has_started_in_time_may_end_late(make_worker: MakeWorker, producer: ArqRedis) -> None:
    outliving = Outliving()
    async with running(make_worker([outliving.function], burst=False)):
        job = await enqueue(producer, "outlive", _expires=0.5)
        await outliving.run(producer, job)
        assert await job.result(timeout=5, poll_delay=0.01) == "done"


async def test_job_is_not_retried_once_it_has_expired(make_worker: MakeWorker, producer: ArqRedis) -> None:
    outliving = Outliving(error=Retry)
    async with running(make_worker([outliving.function], burst=False)):
        job = await enqueue(producer, "outlive", _expires=0.5)
        await outliving.run(producer, job)
        with pytest.raises(JobExecutionFailed, match="job expired"):
            await job.result(timeout=5, poll_delay=0.01)
    assert outliving.tries == [1]
