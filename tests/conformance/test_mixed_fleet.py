"""A stock worker and one of ours on one queue, with producers of both kinds."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq import Retry
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job
from arq.worker import JobExecutionFailed, Worker

from bridge.aegis_redis import AegisRedis
from tests.conformance.conftest import (
    QUEUE,
    Context,
    Holding,
    close,
    drain,
    enqueue,
    failure_of,
    named,
    new_worker,
    running,
    until,
)
from workers.batch_worker import BatchWorker


class Fleet:
    """Makes workers of both kinds."""

    def __init__(self, redis_settings: RedisSettings) -> None:
        self.redis_settings = redis_settings
        self.made: list[Worker] = []

    def stock(self, functions: Any, **options: Any) -> Worker:
        return self.make(Worker, functions, ctx={"kind": "stock"}, **options)

    def ours(self, functions: Any, **options: Any) -> Worker:
        return self.make(BatchWorker, functions, ctx={"kind": "ours"}, **options)

    def make(self, runner: type[Worker], functions: Any, **options: Any) -> Worker:
        self.made.append(new_worker(runner, functions, self.redis_settings, **options))
        return self.made[-1]

    def both(self, stock_first: bool, functions: Any, **options: Any) -> tuple[Worker, Worker]:
        stock, ours = self.stock(functions, **options), self.ours(functions, **options)
        return (stock, ours) if stock_first else (ours, stock)


@pytest.fixture
async def fleet(redis_settings: RedisSettings, redis: AegisRedis) -> AsyncIterator[Fleet]:
    made = Fleet(redis_settings)
    yield made
    for worker in made.made:
        await close(worker)


@pytest.fixture(params=["stock producer", "our producer"])
def any_producer(request: pytest.FixtureRequest, redis: AegisRedis) -> ArqRedis:
    """A pool that enqueues to `QUEUE`."""
    if request.param == "our producer":
        redis.default_queue_name = QUEUE
        return redis
    stock: ArqRedis = request.getfixturevalue("producer")
    return stock


EITHER_FIRST = pytest.mark.parametrize("stock_first", [True, False], ids=["stock first", "ours first"])


async def test_each_of_many_jobs_runs_once(fleet: Fleet, any_producer: ArqRedis) -> None:
    async def note(ctx: Context, number: int) -> int:
        runs[number] += 1
        kinds.add(ctx["kind"])
        if len(kinds) == 2:
            both_work.set()
        await both_work.wait()
        return number

    runs: Counter[int] = Counter()
    kinds: set[str] = set()
    both_work = asyncio.Event()
    jobs = [await enqueue(any_producer, "note", number) for number in range(500)]
    workers = fleet.both(True, [named(note)])
    await asyncio.gather(*(drain(worker) for worker in workers))
    assert kinds == {"stock", "ours"}
    assert len(runs) == 500
    assert set(runs.values()) == {1}
    assert [await job.result(timeout=5) for job in jobs] == list(range(500))
    assert sum(worker.jobs_complete for worker in workers) == 500
    assert await any_producer.zcard(QUEUE) == 0


async def test_each_of_many_jobs_that_arrive_while_they_work_runs_once(fleet: Fleet, any_producer: ArqRedis) -> None:
    async def note(ctx: Context, number: int) -> int:
        runs[number] += 1
        return number

    runs: Counter[int] = Counter()
    async with running(*fleet.both(True, [named(note)], burst=False)):
        jobs = [await enqueue(any_producer, "note", number) for number in range(200)]
        assert [await job.result(timeout=10, poll_delay=0.01) for job in jobs] == list(range(200))
    assert len(runs) == 200
    assert set(runs.values()) == {1}


@EITHER_FIRST
async def test_job_that_one_kind_runs_is_left_alone_by_the_other(
    fleet: Fleet, any_producer: ArqRedis, stock_first: bool
) -> None:
    holding = Holding()
    busy, idle = fleet.both(stock_first, [holding.function, named(quick)], max_jobs=1, burst=False)
    held = await enqueue(any_producer, "hold", _job_id="a")
    others = [await enqueue(any_producer, "quick", _job_id=job_id) for job_id in "bcd"]
    async with running(busy):
        await until(lambda: holding.started)
        async with running(idle):
            for job in others:
                assert await job.result(timeout=10, poll_delay=0.01) == ("ours" if stock_first else "stock")
            holding.gate.set()
            assert await held.result(timeout=10, poll_delay=0.01) == "held"
    assert holding.started == ["a"]


async def quick(ctx: Context) -> str:
    return str(ctx["kind"])


@EITHER_FIRST
async def test_tries_are_counted_across_kinds(fleet: Fleet, any_producer: ArqRedis, stock_first: bool) -> None:
    async def retry(ctx: Context) -> None:
        tries.append((ctx["kind"], ctx["job_try"]))
        raise Retry

    tries: list[tuple[str, int]] = []
    job = await enqueue(any_producer, "retry")
    first, second = fleet.both(stock_first, [named(retry)], max_tries=3)
    first.max_burst_jobs = 1
    await drain(first)
    await drain(second)
    kinds = ["stock", "ours"] if stock_first else ["ours", "stock"]
    assert tries == [(kinds[0], 1), (kinds[1], 2), (kinds[1], 3)]
    assert await failure_of(job) == JobExecutionFailed("max 3 retries exceeded")


@EITHER_FIRST
async def test_job_that_one_kind_gave_back_is_run_by_the_other(
    fleet: Fleet, any_producer: ArqRedis, stock_first: bool
) -> None:
    holding = Holding()
    first, second = fleet.both(stock_first, [holding.function])
    first.burst = False
    job = await enqueue(any_producer, "hold", _job_id="job")
    async with running(first):
        await until(lambda: holding.started)
    holding.gate.set()
    await drain(second)
    assert await job.result(timeout=5) == "held"
    assert holding.started == ["job", "job"]


@EITHER_FIRST
async def test_aborted_job_is_not_started_by_the_other_kind(
    fleet: Fleet, any_producer: ArqRedis, stock_first: bool
) -> None:
    """Stock `Job.abort()` takes the lease of a job of ours for a deferral, and makes the job due at once."""
    holding = Holding()
    busy, idle = fleet.both(stock_first, [holding.function], burst=False, allow_abort_jobs=True)
    async with running(busy):
        job = await enqueue(any_producer, "hold", _job_id="job")
        await until(lambda: holding.started)
        async with running(idle):
            assert await job.abort(timeout=10, poll_delay=0.01)
    assert (holding.started, holding.cancelled) == (["job"], ["job"])
    assert await any_producer.zcard(QUEUE) == 0


@EITHER_FIRST
async def test_result_of_either_kind_is_read_by_either_client(
    fleet: Fleet, producer: ArqRedis, redis: AegisRedis, stock_first: bool
) -> None:
    job = await enqueue(producer, "quick")
    worker, _ = fleet.both(stock_first, [quick])
    await drain(worker)
    kind = "stock" if stock_first else "ours"
    for client in (producer, redis):
        assert await Job(job.job_id, client, QUEUE, client.job_deserializer).result(timeout=5) == kind


@EITHER_FIRST
async def test_id_of_a_kept_result_is_taken_for_producers_of_both_kinds(
    fleet: Fleet, producer: ArqRedis, redis: AegisRedis, stock_first: bool
) -> None:
    await enqueue(producer, "quick", _job_id="job")
    await drain(fleet.both(stock_first, [quick])[0])
    for client in (producer, redis):
        assert await client.enqueue_job("quick", _job_id="job", _queue_name=QUEUE) is None
