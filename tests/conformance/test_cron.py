"""Cron jobs.

They are due once each half a year, or each second, and some of them are made to be due in a moment.
"""

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

from arq.connections import ArqRedis
from arq.cron import CronJob, cron
from arq.jobs import Job
from arq.utils import timestamp_ms

from bridge import keys
from bridge.codec import job_deserializer
from tests.conformance.conftest import (
    QUEUE,
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

EACH_SECOND: dict[str, Any] = {"second": None, "microsecond": 0}
IN_HALF_A_YEAR: dict[str, Any] = {"month": (datetime.now().month + 5) % 12 + 1}
AT_STARTUP: dict[str, Any] = {**IN_HALF_A_YEAR, "run_at_startup": True}


class Ticks:
    """A function that keeps the contexts it is called with."""

    def __init__(self) -> None:
        self.seen: list[Context] = []
        self.at_ms: list[int] = []

        async def tick(ctx: Context) -> str:
            self.seen.append(ctx)
            self.at_ms.append(timestamp_ms())
            return "tock"

        self.tick = tick

    def cron(self, name: str = "tick", **options: Any) -> CronJob:
        return cron(self.tick, name=name, **options)

    @property
    def job_ids(self) -> list[str]:
        return [ctx["job_id"] for ctx in self.seen]

    @property
    def due_at_ms(self) -> list[int]:
        """As the ids of unique cron jobs tell it."""
        return [int(job_id.rpartition(":")[2]) for job_id in self.job_ids]


def soon() -> datetime:
    return datetime.now().astimezone() + timedelta(milliseconds=300)


def in_a_moment(job: CronJob, due_at: datetime | None = None) -> CronJob:
    """The job, due at this time, and after that as its schedule says."""
    job.next_run = due_at or soon()
    return job


async def is_empty(producer: ArqRedis) -> bool:
    return not await producer.zcard(QUEUE)


def stored(producer: ArqRedis, job_id: str) -> Job:
    return Job(job_id, producer, QUEUE, job_deserializer)


async def test_cron_job_runs_when_it_is_due(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    async with running(make_worker(cron_jobs=[ticks.cron(**EACH_SECOND)], burst=False)):
        await until(lambda: ticks.seen)
    assert ticks.due_at_ms[0] % 1000 == 0, "at a full second, as its schedule says"


async def test_cron_job_does_not_run_before_it_is_due(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    async with running(make_worker(cron_jobs=[in_a_moment(ticks.cron(**IN_HALF_A_YEAR))], burst=False)):
        await until(lambda: ticks.seen)
    assert ticks.at_ms[0] - ticks.due_at_ms[0] >= -2, "clocks of a millisecond"


async def test_cron_job_runs_again_and_again(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    async with running(make_worker(cron_jobs=[ticks.cron(**EACH_SECOND)], burst=False)):
        await until(lambda: len(ticks.seen) == 2)
    first, second = ticks.due_at_ms
    assert second - first == 1000


async def test_unique_cron_job_is_run_by_one_of_two_workers(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks, due_at = Ticks(), soon()
    cron_jobs = [in_a_moment(ticks.cron(**IN_HALF_A_YEAR), due_at) for _ in range(2)]
    async with running(*(make_worker(cron_jobs=[job], burst=False) for job in cron_jobs)):
        await until(lambda: ticks.seen and all(job.next_run != due_at for job in cron_jobs))
        await until(lambda: is_empty(producer))
    assert len(ticks.seen) == 1


async def test_cron_job_that_is_not_unique_is_run_for_each_worker(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks, due_at = Ticks(), soon()
    cron_jobs = [in_a_moment(ticks.cron(**IN_HALF_A_YEAR, unique=False), due_at) for _ in range(2)]
    async with running(*(make_worker(cron_jobs=[job], burst=False) for job in cron_jobs)):
        await until(lambda: len(ticks.seen) == 2)
    assert len(set(ticks.job_ids)) == 2


async def test_cron_job_that_was_due_while_its_worker_was_busy_runs_at_once(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    ticks = Ticks()
    overdue = in_a_moment(ticks.cron(**IN_HALF_A_YEAR), datetime.now().astimezone() - timedelta(seconds=30))
    await drain(make_worker(cron_jobs=[overdue]))
    assert len(ticks.seen) == 1


async def test_unique_cron_job_is_known_by_its_name_and_time(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    await drain(make_worker(cron_jobs=[ticks.cron(**AT_STARTUP)]))
    assert ticks.job_ids == [f"tick:{ticks.due_at_ms[0]}"]
    assert abs(ticks.due_at_ms[0] - ticks.at_ms[0]) < 10_000


async def test_cron_job_runs_at_startup_where_that_is_wanted(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    async with running(make_worker(cron_jobs=[ticks.cron(**AT_STARTUP)], burst=False)):
        await until(lambda: ticks.seen)


async def test_burst_worker_runs_cron_jobs_of_the_startup(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    worker = make_worker(cron_jobs=[ticks.cron(**AT_STARTUP)])
    await drain(worker)
    assert (len(ticks.seen), worker.jobs_complete) == (1, 1)


async def test_burst_worker_does_not_wait_for_cron_jobs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    await drain(make_worker(cron_jobs=[ticks.cron(**IN_HALF_A_YEAR)]))
    assert ticks.seen == []


async def test_timezone_of_the_worker_decides_the_time(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    here, there = datetime.now().astimezone(), timezone(timedelta(hours=(utc_offset_h() + 5 + 12) % 24 - 12))
    assert here.hour != here.astimezone(there).hour

    def due_now(name: str, tz: Any) -> CronJob:
        moments = [datetime.now(tz) + timedelta(seconds=seconds) for seconds in (0, 30)]
        hours, minutes = {moment.hour for moment in moments}, {moment.minute for moment in moments}
        return ticks.cron(name, hour=hours, minute=minutes, **EACH_SECOND)

    cron_jobs = [due_now("due_here", here.tzinfo), due_now("due_there", there)]
    async with running(make_worker(cron_jobs=cron_jobs, timezone=there, burst=False, max_jobs=1)):
        await until(lambda: ticks.seen)
    assert ticks.job_ids[0].startswith("due_there"), "the other would have been first"


def utc_offset_h() -> int:
    offset = datetime.now().astimezone().utcoffset()
    assert offset is not None
    return offset // timedelta(hours=1)


async def test_cron_job_goes_by_the_name_of_its_function(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await drain(make_worker(cron_jobs=[cron(tidy_up, **AT_STARTUP, job_id="job", keep_result=60)]))
    assert (await result_of(stored(producer, "job"))).function == "cron:tidy_up"


async def tidy_up(ctx: Context) -> None:
    pass


async def test_cron_job_may_have_a_name_of_its_own(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    await drain(make_worker(cron_jobs=[ticks.cron("nightly", **AT_STARTUP, job_id="job", keep_result=60)]))
    assert (await result_of(stored(producer, "job"))).function == "nightly"


async def test_cron_jobs_with_one_id_run_once(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    both = [ticks.cron(name, **AT_STARTUP, job_id="job") for name in ("one", "other")]
    await drain(make_worker(cron_jobs=both))
    assert ticks.job_ids == ["job"]


async def test_result_of_a_cron_job_is_not_kept_by_default(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    await drain(make_worker(cron_jobs=[ticks.cron(**AT_STARTUP)], keep_result_forever=True))
    assert len(ticks.seen) == 1
    assert not await producer.exists(keys.result(ticks.job_ids[0]))


async def test_result_of_a_cron_job_is_kept_where_that_is_wanted(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    await drain(make_worker(cron_jobs=[ticks.cron(**AT_STARTUP, job_id="job", keep_result=60)]))
    assert await stored(producer, "job").result(timeout=5) == "tock"
    assert 0 < await producer.pttl(keys.result("job")) <= 60_000


async def test_cron_job_has_a_timeout_of_its_own(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def hang(ctx: Context) -> None:
        await asyncio.Event().wait()

    await drain(
        make_worker(cron_jobs=[cron(hang, name="hang", **AT_STARTUP, job_id="job", timeout=0.02, keep_result=60)])
    )
    assert isinstance(await failure_of(stored(producer, "job")), TimeoutError)


async def test_failed_cron_job_is_counted_and_does_not_stop_the_worker(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    async def refuse(ctx: Context) -> None:
        raise ValueError("not today")

    ticks = Ticks()
    worker = make_worker(cron_jobs=[cron(refuse, name="refuse", **AT_STARTUP), ticks.cron(**AT_STARTUP)])
    await drain(worker)
    assert (worker.jobs_failed, worker.jobs_complete) == (1, 1)


async def test_worker_may_have_functions_and_cron_jobs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def double(ctx: Context, number: int) -> int:
        return number * 2

    ticks = Ticks()
    job = await enqueue(producer, "double", 21)
    await drain(make_worker([named(double)], cron_jobs=[ticks.cron(**AT_STARTUP)]))
    assert await job.result(timeout=5) == 42
    assert len(ticks.seen) == 1


async def test_cron_job_can_be_enqueued_by_its_name(make_worker: MakeWorker, producer: ArqRedis) -> None:
    ticks = Ticks()
    await enqueue(producer, "tick", _job_id="by hand")
    await drain(make_worker(cron_jobs=[ticks.cron(**IN_HALF_A_YEAR)]))
    assert ticks.job_ids == ["by hand"]


async def test_hooks_of_a_job_run_for_cron_jobs_too(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def note(ctx: Context) -> None:
        noted.append(ctx["job_id"])

    noted: list[str] = []
    ticks = Ticks()
    hooks = dict.fromkeys(["on_job_start", "on_job_end", "after_job_end"], note)
    await drain(make_worker(cron_jobs=[ticks.cron(**AT_STARTUP, job_id="job")], **hooks))
    assert noted == ["job"] * 3
