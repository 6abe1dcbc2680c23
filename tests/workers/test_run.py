import asyncio
import os
import signal
from typing import Any

import pytest
from arq.worker import func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import read_queue
from bridge.errors import ConfigurationError, InvalidQueueType
from bridge.event_stream import EventStream
from bridge.settings import Settings
from workers.batch_worker import BatchWorker
from workers.pools import get_queue_pool
from workers.run import make_worker, run_workers
from workers.worker_settings import queue

Context = dict[str, Any]


async def quick(ctx: Context) -> str:
    return "done"


async def sleep(ctx: Context) -> None:
    await asyncio.sleep(60)


async def half_a_second(ctx: Context) -> str:
    await asyncio.sleep(0.5)
    return "done"


def worker_of(name: str, settings: Settings, *, burst: bool = False, **attributes: Any) -> BatchWorker:
    body = {"functions": [quick, sleep, half_a_second], "poll_delay": 0.01, **attributes}
    settings_class = queue(name, settings=settings)(type("WorkerSettings", (), body))
    return make_worker(read_queue(settings_class, "tests"), burst=burst)


async def has_event(redis: AegisRedis, kind: str, queue_name: str) -> bool:
    return any(e.kind == kind and e.queue == queue_name for e in await EventStream(redis).history())


async def until_event(redis: AegisRedis, kind: str, queue_name: str) -> None:
    async with asyncio.timeout(10):
        while not await has_event(redis, kind, queue_name):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.01)


async def test_burst_of_two_queues_ends_when_both_are_empty(settings: Settings, redis: AegisRedis) -> None:
    for name in ("one", "two"):
        await redis.enqueue_job("quick", _queue_name=keys.queue(name))
    workers = [worker_of(name, settings, burst=True) for name in ("one", "two")]
    await run_workers(workers)
    assert [worker.jobs_complete for worker in workers] == [1, 1]


async def test_burst_leaves_the_standing_workers_sign_of_life_alone(settings: Settings, redis: AegisRedis) -> None:
    sign = keys.health_check(keys.queue("one"))
    await redis.set(sign, b"j_complete=5", px=60_000)
    await run_workers([worker_of("one", settings, burst=True)])
    assert await redis.get(sign) == b"j_complete=5"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_signal_gives_running_jobs_back(settings: Settings, redis: AegisRedis, signum: signal.Signals) -> None:
    await redis.enqueue_job("sleep", _queue_name=keys.queue("one"), _job_id="job")
    running = asyncio.create_task(run_workers([worker_of("one", settings)]))
    await until_event(redis, "job.started", "one")
    os.kill(os.getpid(), signum)
    async with asyncio.timeout(10):
        await running
    assert await redis.zscore(keys.queue("one"), "job") is not None
    assert not await redis.exists(keys.in_progress("job"))
    assert not await redis.exists(keys.health_check(keys.queue("one"))), "it does not look alive any more"
    assert [e.kind for e in await EventStream(redis).history()][-2:] == ["job.retrying", "worker.stopped"]


async def test_signal_leaves_time_to_a_queue_that_grants_it(settings: Settings, redis: AegisRedis) -> None:
    await redis.enqueue_job("half_a_second", _queue_name=keys.queue("one"), _job_id="job")
    running = asyncio.create_task(run_workers([worker_of("one", settings, job_completion_wait=10)]))
    await until_event(redis, "job.started", "one")
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await running
    assert await has_event(redis, "job.succeeded", "one")


async def test_worker_that_cannot_go_on_ends_the_others_and_says_why(settings: Settings, redis: AegisRedis) -> None:
    async def refuse(ctx: Context) -> None:
        raise LookupError("no licence")

    workers = [worker_of("one", settings), worker_of("two", settings, on_startup=refuse)]
    with pytest.raises(LookupError, match="no licence"):
        async with asyncio.timeout(10):
            await run_workers(workers)


async def test_plain_arq_class_is_adopted(
    settings: Settings, redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain:
        functions = [func(quick, name="quick")]  # noqa: RUF012

    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    await redis.enqueue_job("quick", _queue_name="arq:queue", _job_id="job")
    await run_workers([make_worker(read_queue(Plain, "tests"), burst=True)])
    kinds = [event.kind for event in await EventStream(redis).history() if event.job_id == "job"]
    assert kinds == ["job.enqueued", "job.started", "job.succeeded"]


def test_queue_without_tasks_has_no_worker() -> None:
    class Empty:
        functions: list[Any] = []  # noqa: RUF012

    with pytest.raises(ConfigurationError, match="no tasks defined"):
        make_worker(read_queue(Empty, "tests.Empty"))


async def test_pool_is_shared_within_an_event_loop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    first, key = await get_queue_pool("system")
    second, _ = await get_queue_pool("system")
    assert first is second
    assert (first.default_queue_name, key) == (keys.queue("system"), keys.queue("system"))
    with pytest.raises(InvalidQueueType, match="queues: system, load_test, media"):
        await get_queue_pool("sytem")
    await first.aclose(close_connection_pool=True)
