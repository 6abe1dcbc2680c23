"""What the constructor takes and refuses; options that have no file of their own."""

import inspect
import logging
import signal
from datetime import UTC, timedelta
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings
from arq.cron import cron
from arq.worker import Worker, func, get_kwargs

from bridge.codec import job_deserializer, job_serializer
from tests.conformance.conftest import (
    QUEUE,
    Context,
    MakeWorker,
    close,
    drain,
    enqueue,
    named,
    open_pool,
)

JSON: dict[str, Any] = {"job_serializer": job_serializer, "job_deserializer": job_deserializer}
QUICK: dict[str, Any] = {"poll_delay": 0.01}


async def double(ctx: Context, number: int) -> int:
    return number * 2


async def enqueue_some(producer: ArqRedis, count: int = 5) -> None:
    for number in range(count):
        await enqueue(producer, "double", number)


async def test_every_option_of_stock_arq_is_taken(
    runner: type[Worker], redis_settings: RedisSettings, producer: ArqRedis
) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(Worker).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert len(defaults) > 25
    own = {
        "handle_signals": False,
        "redis_settings": redis_settings,
        "queue_name": QUEUE,
        "burst": True,
        **QUICK,
        **JSON,
    }
    worker = runner([double], **{**defaults, **own})
    await enqueue_some(producer)
    await drain(worker)
    await close(worker)
    assert worker.jobs_complete == 5


async def test_settings_class_of_an_arq_application_is_taken(
    runner: type[Worker], redis_settings: RedisSettings, producer: ArqRedis
) -> None:
    class WorkerSettings:
        functions = (double, func(double, name="twice", timeout=5))
        cron_jobs = (cron(double, name="doubling", hour=3),)
        queue_name = QUEUE
        max_jobs = 3
        max_tries = 2
        keep_result = timedelta(minutes=5)
        timezone = UTC
        allow_abort_jobs = True
        job_serializer = job_serializer
        job_deserializer = job_deserializer

    options: dict[str, Any] = get_kwargs(WorkerSettings)  # type: ignore[arg-type]
    worker = runner(**options, redis_settings=redis_settings, burst=True, handle_signals=False, **QUICK)
    await enqueue_some(producer)
    await enqueue(producer, "twice", 1)
    await drain(worker)
    await close(worker)
    assert worker.jobs_complete == 6


async def test_functions_may_be_in_a_tuple(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue_some(producer)
    assert await make_worker((double,)).run_check() == 5


@pytest.mark.parametrize("poll_delay", [0, 0.02, timedelta(milliseconds=20)])
async def test_poll_delay_may_have_any_unit(
    make_worker: MakeWorker, producer: ArqRedis, poll_delay: float | timedelta
) -> None:
    await enqueue_some(producer)
    assert await make_worker([double], poll_delay=poll_delay).run_check() == 5


@pytest.mark.parametrize("queue_read_limit", [1, 3, 1_000])
async def test_all_jobs_run_whatever_the_read_limit(
    make_worker: MakeWorker, producer: ArqRedis, queue_read_limit: int
) -> None:
    await enqueue_some(producer)
    assert await make_worker([double], queue_read_limit=queue_read_limit).run_check() == 5


async def test_worker_uses_the_connections_of_the_pool_that_it_is_given(
    make_worker: MakeWorker, redis_settings: RedisSettings
) -> None:
    async def look(ctx: Context) -> None:
        seen.append(ctx["redis"].connection_pool)

    seen: list[Any] = []
    async with open_pool(redis_settings, **JSON) as pool:
        await enqueue(pool, "look")
        await drain(make_worker([named(look)], redis_pool=pool))
        assert seen == [pool.connection_pool]


async def test_queue_without_a_name_is_that_of_the_pool(
    make_worker: MakeWorker, redis_settings: RedisSettings, producer: ArqRedis
) -> None:
    async with open_pool(redis_settings, **JSON) as pool:
        await enqueue_some(producer)
        worker = make_worker([double], redis_pool=pool, queue_name=None)
        assert worker.queue_name == QUEUE
        assert await worker.run_check() == 5


async def test_queue_without_a_name_is_arqs_own(
    runner: type[Worker], redis_settings: RedisSettings, producer: ArqRedis
) -> None:
    job = await enqueue(producer, "double", 21, _queue_name="arq:queue")
    worker = runner([double], redis_settings=redis_settings, burst=True, handle_signals=False, **QUICK, **JSON)
    await drain(worker)
    await close(worker)
    assert await job.result(timeout=5) == 42


async def test_queue_may_have_any_name(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "double", 21, _queue_name="no pattern at all")
    await drain(make_worker([double], queue_name="no pattern at all"))
    assert await job.result(timeout=5) == 42


async def test_results_stay_out_of_the_log_where_that_is_wanted(
    make_worker: MakeWorker, producer: ArqRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    job = await enqueue(producer, "double", 21_000_021)
    await drain(make_worker([double], log_results=False))
    assert await job.result(timeout=5) == 42_000_042
    assert "42000042" not in caplog.text


async def test_worker_without_signal_handlers_leaves_those_of_the_process(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    async def look(ctx: Context) -> None:
        seen.append(handlers())

    def handlers() -> list[object]:
        return [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    seen: list[object] = []
    await enqueue(producer, "look")
    await drain(make_worker([named(look)]))
    assert seen == [before]


async def test_worker_needs_something_to_run(make_worker: MakeWorker) -> None:
    with pytest.raises(RuntimeError, match="at least one function or cron_job must be registered"):
        make_worker([])


async def test_worker_needs_cron_jobs_made_by_cron(make_worker: MakeWorker) -> None:
    with pytest.raises(RuntimeError, match="cron_jobs, must be instances of CronJob"):
        make_worker([double], cron_jobs=[double])


async def test_worker_needs_coroutine_functions(make_worker: MakeWorker) -> None:
    with pytest.raises(RuntimeError, match="is not a coroutine function"):
        make_worker([len])


async def test_worker_needs_a_queue(make_worker: MakeWorker) -> None:
    with pytest.raises(ValueError, match="If queue_name is absent, redis_pool must be present"):
        make_worker([double], queue_name=None)


async def test_worker_refuses_options_that_arq_does_not_know(make_worker: MakeWorker) -> None:
    with pytest.raises(TypeError, match="max_job"):
        make_worker([double], max_job=3)
