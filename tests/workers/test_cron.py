"""Cron jobs of many workers: each unique run happens once, however late a worker comes to it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from arq.cron import CronJob, cron

from bridge import keys
from bridge.aegis_redis import AegisRedis
from tests.workers.test_batch_worker import QUEUE, make, running, until
from workers.batch_worker import BatchWorker


class Ticks:
    """A cron job that keeps the ids it ran under."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def job(self, due_at: datetime, **options: Any) -> CronJob:
        """The job, due at this time and then not for long."""

        async def tick(ctx: dict[str, Any]) -> None:
            self.seen.append(ctx["job_id"])

        job = cron(tick, name="tick", month=(due_at.month + 5) % 12 + 1, **options)
        job.next_run = due_at
        return job


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def fleet(workers: list[BatchWorker]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(running(worker))
        yield


async def test_run_happens_once_however_many_workers_there_are(redis: AegisRedis) -> None:
    ticks, due_at = Ticks(), now() + timedelta(seconds=0.3)
    async with fleet([make(redis, cron_jobs=[ticks.job(due_at)]) for _ in range(5)]):
        await until(lambda: runs_are_over(redis, ticks, 1))
    assert len(ticks.seen) == 1


async def runs_are_over(redis: AegisRedis, ticks: Ticks, number: int) -> bool:
    return len(ticks.seen) >= number and not await redis.zcard(QUEUE)


async def test_worker_that_comes_late_does_not_repeat_a_run_that_has_ended(redis: AegisRedis) -> None:
    ticks, due_at = Ticks(), now()
    async with running(make(redis, cron_jobs=[ticks.job(due_at)])):
        await until(lambda: runs_are_over(redis, ticks, 1))
    assert not await redis.exists(keys.result(ticks.seen[0])), "nothing else tells that it has been"
    late = make(redis, cron_jobs=[ticks.job(due_at)], burst=True)
    await late.async_run()
    assert len(ticks.seen) == 1


async def test_run_with_an_id_of_its_own_happens_each_time_it_is_due(redis: AegisRedis) -> None:
    ticks = Ticks()
    for due_at in (now() - timedelta(seconds=2), now() - timedelta(seconds=1)):
        await make(redis, cron_jobs=[ticks.job(due_at, job_id="the-same")], burst=True).async_run()
    assert ticks.seen == ["the-same", "the-same"]


async def test_run_that_is_not_unique_happens_in_every_worker(redis: AegisRedis) -> None:
    ticks, due_at = Ticks(), now()
    for _ in range(3):
        await make(redis, cron_jobs=[ticks.job(due_at, unique=False)], burst=True).async_run()
    assert len(set(ticks.seen)) == 3


async def test_run_is_enqueued_after_redis_was_away(redis: AegisRedis) -> None:
    async def is_late() -> bool:
        return now() > due_at + timedelta(seconds=0.5)

    ticks, due_at = Ticks(), now() + timedelta(seconds=1)
    async with running(make(redis, cron_jobs=[ticks.job(due_at)])):
        await redis.config_set("maxmemory", 1)
        await until(is_late)
        await redis.config_set("maxmemory", 0)
        await until(lambda: runs_are_over(redis, ticks, 1))
    assert len(ticks.seen) == 1


async def test_what_is_remembered_of_runs_expires(redis: AegisRedis) -> None:
    ticks = Ticks()
    runs_key = keys.cron(keys.queue_name(QUEUE))
    await redis.zadd(runs_key, {"tick:1": 1})
    await make(redis, cron_jobs=[ticks.job(now())], burst=True).async_run()
    assert await redis.zcard(runs_key) == 1
    assert 0 < await redis.pttl(runs_key) <= keys.CRON_TTL_MS
