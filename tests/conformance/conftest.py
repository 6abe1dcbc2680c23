"""One suite for both runners: what stock arq's worker does, ours does too.

Each test runs unchanged against `arq.worker.Worker` and `workers.batch_worker.BatchWorker`. Passing on stock arq is
what makes a behaviour part of the suite; where ours deliberately does better, the suite is silent.

Producers are stock arq's. Serializers are always given, since the two runners have different defaults.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job, JobResult
from arq.worker import Function, Worker, func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.codec import job_deserializer, job_serializer
from workers.batch_worker import BatchWorker

__all__ = [
    "QUEUE",
    "Context",
    "Holding",
    "MakeWorker",
    "close",
    "drain",
    "enqueue",
    "failure_of",
    "named",
    "result_of",
    "running",
    "until",
]

Context = dict[str, Any]

QUEUE = keys.queue("conformance")
IN_TIME_S = 10
"""For what should happen at once. Only a test that fails waits as long."""


class MakeWorker(Protocol):
    """Makes a worker on `QUEUE`, in burst mode unless the options say otherwise; the test need not close it."""

    def __call__(self, functions: Any = (), **options: Any) -> Worker: ...


@pytest.fixture(params=["arq", "batch_worker"])
def runner(request: pytest.FixtureRequest) -> type[Worker]:
    """The class under test."""
    return Worker if request.param == "arq" else BatchWorker


@pytest.fixture
def redis_settings(valkey_url: str) -> RedisSettings:
    """The real Valkey, as arq wants to hear of it."""
    return RedisSettings.from_dsn(valkey_url)


@pytest.fixture
async def producer(redis_settings: RedisSettings, redis: AegisRedis) -> AsyncIterator[ArqRedis]:
    """A pool of stock arq that was given our serializers, on an empty database."""
    async with open_pool(
        redis_settings,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
    ) as pool:
        yield pool


@asynccontextmanager
async def open_pool(redis_settings: RedisSettings, **options: Any) -> AsyncIterator[ArqRedis]:
    pool = await create_pool(redis_settings, default_queue_name=QUEUE, **options)
    try:
        yield pool
    finally:
        await pool.aclose(close_connection_pool=True)


@pytest.fixture
async def make_worker(
    runner: type[Worker], redis_settings: RedisSettings, redis: AegisRedis
) -> AsyncIterator[MakeWorker]:
    """Makes workers of the class under test."""
    made: list[Worker] = []

    def make(functions: Any = (), **options: Any) -> Worker:
        made.append(new_worker(runner, functions, redis_settings, **options))
        return made[-1]

    yield make
    for worker in made:
        await close(worker)


def new_worker(runner: type[Worker], functions: Any, redis_settings: RedisSettings, **options: Any) -> Worker:
    quick: dict[str, Any] = {
        "queue_name": QUEUE,
        "burst": True,
        "handle_signals": False,
        "poll_delay": 0.01,
        "job_serializer": job_serializer,
        "job_deserializer": job_deserializer,
    }
    if "redis_pool" not in options:
        quick["redis_settings"] = redis_settings
    return runner(functions, **{**quick, **options})


def named(task: Any, **options: Any) -> Function:
    """A function of a test, under its plain name: arq would call it ``test_it.<locals>.task``."""
    return func(task, name=task.__name__, **options)


class Holding:
    """A function, ``hold``, whose runs last until the gate is opened or they are cancelled."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.gate = asyncio.Event()

        async def hold(ctx: Context) -> str:
            self.started.append(ctx["job_id"])
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(ctx["job_id"])
                raise
            return "held"

        self.function = named(hold)


async def enqueue(producer: ArqRedis, name: str, *args: Any, **options: Any) -> Job:
    """The job, which is new. Of jobs of the same millisecond, the one with the lower id is first."""
    job = await producer.enqueue_job(name, *args, **options)
    assert job is not None, "its id is taken"
    return job


async def drain(worker: Worker) -> None:
    """A burst worker has done what there was to do."""
    async with asyncio.timeout(IN_TIME_S):
        await worker.async_run()


@asynccontextmanager
async def running(*workers: Worker) -> AsyncIterator[None]:
    """Inside, the workers run; afterwards they are closed. The error of one that broke down is raised."""
    runs = [asyncio.create_task(worker.async_run()) for worker in workers]
    try:
        yield
    finally:
        for worker, run in zip(workers, runs, strict=True):
            # As often as it takes: on Python 3.11 a cancellation that arrives just before a task enters
            # asyncio.timeout(0), as redis-py does with each command, is swallowed there.
            while not run.done():
                run.cancel()
                await asyncio.wait({run}, timeout=0.5)
            await close(worker)
        for run in runs:
            if not run.cancelled():
                run.result()


async def close(worker: Worker) -> None:
    """The worker is closed; closing it again changes nothing."""
    async with asyncio.timeout(IN_TIME_S):
        try:
            await worker.close()
        except asyncio.CancelledError:
            # Stock arq raises the cancellation of a job that had hardly begun.
            worker.tasks.clear()
            await worker.close()


async def until(condition: Callable[[], object]) -> None:
    """The condition, which may be a coroutine function, is true."""
    async with asyncio.timeout(IN_TIME_S):
        while True:
            answer = condition()
            if await answer if inspect.isawaitable(answer) else answer:
                return
            await asyncio.sleep(0.005)


async def result_of(job: Job) -> JobResult:
    """The stored result."""
    result = await job.result_info()
    assert result is not None, "no result is stored"
    return result


async def failure_of(job: Job) -> BaseException:
    """The exception of a job that has failed."""
    result = await result_of(job)
    assert not result.success
    assert isinstance(result.result, BaseException)
    return result.result
