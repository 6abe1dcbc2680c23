"""Stock arq 0.28 producers, workers and clients share queues with ours, both ways."""

from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job, JobStatus
from arq.worker import Worker

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.codec import job_deserializer, job_serializer
from bridge.errors import TaskFailed
from bridge.event_stream import EventStream
from bridge.settings import Settings
from workers.worker_settings import queue

Context = dict[str, Any]
QUEUE = keys.queue("shared")


class OrderLost(Exception):
    pass


async def add(ctx: Context, left: int, right: int = 1) -> int:
    return left + right


async def lose(ctx: Context) -> None:
    raise OrderLost("order 7")


async def refuse(ctx: Context) -> None:
    raise ValueError("not today")


FUNCTIONS: list[Any] = [add, lose, refuse]


@pytest.fixture
async def stock_pool(valkey_url: str, redis: AegisRedis) -> Any:
    """A pool of stock arq that was given our serializers, and nothing else of ours."""
    pool = await create_pool(
        RedisSettings.from_dsn(valkey_url), job_serializer=job_serializer, job_deserializer=job_deserializer
    )
    yield pool
    await pool.aclose(close_connection_pool=True)


async def run_our_worker(settings: Settings, redis: AegisRedis) -> Worker:
    settings_class = queue("shared", settings=settings)(type("WorkerSettings", (), {"functions": FUNCTIONS}))
    kept = {name: vars(settings_class)[name] for name in ("functions", "on_startup", "after_job_end")}
    serializers = {name: vars(settings_class)[name] for name in ("job_serializer", "job_deserializer")}
    worker = Worker(redis_pool=redis, queue_name=QUEUE, burst=True, handle_signals=False, **kept, **serializers)
    await worker.async_run()
    return worker


async def enqueue_pickled(valkey_url: str) -> None:
    """As a stock producer does that was given no serializer."""
    pickling = await create_pool(RedisSettings.from_dsn(valkey_url))
    try:
        await pickling.enqueue_job("add", 1, _queue_name=QUEUE, _job_id="pickled")
    finally:
        await pickling.aclose(close_connection_pool=True)


async def run_stock_worker(pool: ArqRedis) -> Worker:
    worker = Worker(
        FUNCTIONS,
        redis_pool=pool,
        queue_name=QUEUE,
        burst=True,
        handle_signals=False,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
    )
    await worker.async_run()
    return worker


async def test_stock_producer_to_our_worker_to_stock_client(
    settings: Settings, redis: AegisRedis, stock_pool: ArqRedis
) -> None:
    job = await stock_pool.enqueue_job("add", 2, right=3, _queue_name=QUEUE)
    assert job is not None
    await run_our_worker(settings, redis)
    assert await job.status() == JobStatus.complete
    assert await job.result(timeout=5) == 5
    kinds = [event.kind for event in await EventStream(redis).history() if event.job_id == job.job_id]
    assert kinds == ["job.started", "job.succeeded"], "a stock producer writes no job.enqueued"


async def test_our_producer_to_stock_worker_to_our_reader(redis: AegisRedis, stock_pool: ArqRedis) -> None:
    job = await redis.enqueue_job("add", 2, _queue_name=QUEUE)
    assert job is not None
    assert (await run_stock_worker(stock_pool)).jobs_complete == 1
    assert await job.result(timeout=5) == 3


@pytest.mark.parametrize(("name", "expected"), [("refuse", ValueError), ("lose", TaskFailed)])
async def test_stock_client_raises_the_jobs_exception(
    settings: Settings, redis: AegisRedis, stock_pool: ArqRedis, name: str, expected: type[Exception]
) -> None:
    job = await stock_pool.enqueue_job(name, _queue_name=QUEUE)
    assert job is not None
    await run_our_worker(settings, redis)
    with pytest.raises(expected) as caught:
        await job.result(timeout=5)
    assert str(caught.value).endswith(("not today", "OrderLost: order 7"))
    assert any(name in note for note in caught.value.__notes__), "the worker's traceback comes along"


async def test_stock_client_sees_our_jobs_in_the_queue(redis: AegisRedis, stock_pool: ArqRedis) -> None:
    await redis.enqueue_job("add", 2, _queue_name=QUEUE, _job_id="mine")
    (job,) = await stock_pool.queued_jobs(queue_name=QUEUE)
    assert (job.function, job.job_id) == ("add", "mine")
    assert await Job("mine", stock_pool, QUEUE).status() == JobStatus.queued
    assert await stock_pool.enqueue_job("add", 2, _queue_name=QUEUE, _job_id="mine") is None


async def test_stock_client_sees_that_our_job_is_deferred(redis: AegisRedis, stock_pool: ArqRedis) -> None:
    await redis.enqueue_job("add", 1, _queue_name=QUEUE, _job_id="later", _defer_by=60)
    assert await Job("later", stock_pool, QUEUE).status() == JobStatus.deferred


async def test_pickled_job_is_refused_and_the_worker_goes_on(
    settings: Settings, redis: AegisRedis, valkey_url: str
) -> None:
    await enqueue_pickled(valkey_url)
    good = await redis.enqueue_job("add", 1, _queue_name=QUEUE)
    assert good is not None
    worker = await run_our_worker(settings, redis)
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 1)
    refused = await Job("pickled", redis, QUEUE, job_deserializer).result_info()
    assert refused is not None
    assert not refused.success
    assert "AEGIS_ACCEPT_PICKLE" in str(refused.result), "the message says what to do"


async def test_pickled_job_runs_where_the_settings_accept_it(
    settings: Settings, redis: AegisRedis, valkey_url: str
) -> None:
    await enqueue_pickled(valkey_url)
    accepting = Settings(redis_url=settings.redis_url, accept_pickle=True)
    assert (await run_our_worker(accepting, redis)).jobs_complete == 1
    result = await Job("pickled", redis, QUEUE, job_deserializer).result(timeout=5)
    assert result == 2
