import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from arq import Retry, cron, func
from arq.jobs import Job
from arq.worker import Worker, create_worker

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.codec import job_deserializer
from bridge.event_stream import EventStream
from bridge.events import Event, JobAborted, JobFailed, JobRetrying, JobStarted, JobSucceeded, WorkerStarted
from bridge.replay import is_stock
from bridge.settings import Settings
from bridge.worker_registry import read_workers
from workers.heartbeat import Heart
from workers.worker_settings import queue

Context = dict[str, Any]
QUEUE = keys.queue("lab")


async def double(ctx: Context, number: int) -> int:
    return number * 2


async def read_clock(ctx: Context, at: datetime) -> int:
    return at.year


async def fail(ctx: Context) -> None:
    raise ValueError("on purpose")


async def hang(ctx: Context) -> None:
    await asyncio.sleep(60)


async def retry_once(ctx: Context) -> str:
    if ctx["job_try"] == 1:
        raise Retry(defer=0)
    return "second time"


async def return_handle(ctx: Context) -> object:
    return object()


async def return_much(ctx: Context) -> str:
    return "x" * 70_000


async def raise_timeout(ctx: Context) -> None:
    raise TimeoutError("of the task itself")


def make_class(settings: Settings, **attributes: Any) -> type:
    functions = [
        double,
        read_clock,
        fail,
        hang,
        retry_once,
        return_handle,
        return_much,
        raise_timeout,
        func(double, name="double_unkept", keep_result=0),
        func(fail, name="fail_unkept", keep_result=0),
        func(hang, name="hang_briefly", timeout=0.05),
        func(hang, name="hang_briefly_unkept", timeout=0.05, keep_result=0),
    ]
    body = {"functions": functions, "poll_delay": 0.01, **attributes}
    return queue("lab", settings=settings)(type("WorkerSettings", (), body))


def make(settings: Settings, redis: AegisRedis, *, burst: bool = True, **attributes: Any) -> Worker:
    settings_class = make_class(settings, **attributes)
    return create_worker(settings_class, redis_pool=redis, burst=burst, handle_signals=False)


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    running_worker = asyncio.create_task(worker.async_run())
    try:
        yield
    finally:
        while not running_worker.done():
            running_worker.cancel()  # again: on 3.11 redis-py may swallow it
            await asyncio.wait({running_worker}, timeout=1)
        for task in worker.tasks.values():
            task.cancel()
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
        worker.tasks.clear()
        await worker.close()


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.01)


async def run_job(settings: Settings, redis: AegisRedis, name: str, *args: Any, **attributes: Any) -> list[Event]:
    await redis.enqueue_job(name, *args, _queue_name=QUEUE, _job_id="job")
    await make(settings, redis, **attributes).async_run()
    return await job_events(redis)


async def job_events(redis: AegisRedis) -> list[Event]:
    return [event for event in await EventStream(redis).history() if event.job_id]


def kinds(events: list[Event]) -> list[str]:
    return [event.kind.removeprefix("job.") for event in events]


async def test_success_is_started_then_succeeded(settings: Settings, redis: AegisRedis) -> None:
    enqueued, start, end = await run_job(settings, redis, "double", 21)
    assert kinds([enqueued, start, end]) == ["enqueued", "started", "succeeded"]
    assert {(e.job_id, e.queue, e.task) for e in (enqueued, start, end)} == {("job", "lab", "double")}
    assert (enqueued.attempt, start.attempt, end.attempt) == (0, 1, 1)
    assert start.worker == end.worker
    assert is_stock(start.worker)
    data = start.read_data()
    assert isinstance(data, JobStarted)
    assert data.enqueued_at_ms == enqueued.at_ms
    data = end.read_data()
    assert isinstance(data, JobSucceeded)
    assert data.result == 42


async def test_argument_arrives_as_its_annotated_type(settings: Settings, redis: AegisRedis) -> None:
    *_, end = await run_job(settings, redis, "read_clock", "2026-01-31T12:00:00Z")
    data = end.read_data()
    assert isinstance(data, JobSucceeded)
    assert data.result == 2026


@pytest.mark.parametrize(
    ("name", "args", "reason", "error_type"),
    [
        ("fail", (), "error", "ValueError"),
        ("fail_unkept", (), "error", "ValueError"),
        ("hang_briefly", (), "timeout", "TimeoutError"),
        ("hang_briefly_unkept", (), "timeout", "TimeoutError"),
        ("raise_timeout", (), "error", "TimeoutError"),
        ("double", ("x",), "invalid_arguments", "InvalidArguments"),
        ("return_handle", (), "error", "ResultNotEncodable"),
    ],
)
async def test_failure_tells_its_reason(
    settings: Settings, redis: AegisRedis, name: str, args: tuple[Any, ...], reason: str, error_type: str
) -> None:
    *_, start, end = await run_job(settings, redis, name, *args)
    assert kinds([start, end]) == ["started", "failed"]
    data = end.read_data()
    assert isinstance(data, JobFailed)
    assert (data.reason, data.error.type) == (reason, error_type)


async def test_unencodable_result_fails_the_job_and_not_the_worker(settings: Settings, redis: AegisRedis) -> None:
    await run_job(settings, redis, "return_handle")
    result = await Job("job", redis, QUEUE, job_deserializer).result_info()
    assert result is not None
    assert not result.success
    assert "object that JSON cannot hold" in str(result.result)


async def test_success_without_a_kept_result_is_reported_as_success(settings: Settings, redis: AegisRedis) -> None:
    events = await run_job(settings, redis, "double_unkept", 1)
    assert kinds(events) == ["enqueued", "started", "succeeded"]
    assert not await redis.exists(keys.result("job"))


async def test_retry_is_not_reported_as_success(settings: Settings, redis: AegisRedis) -> None:
    events = await run_job(settings, redis, "retry_once")
    assert kinds(events) == ["enqueued", "started", "retrying", "started", "succeeded"]
    assert [event.attempt for event in events] == [0, 1, 1, 2, 2]
    data = events[2].read_data()
    assert isinstance(data, JobRetrying)
    assert data.reason == "retry"


async def test_large_result_is_replaced_by_its_address(settings: Settings, redis: AegisRedis) -> None:
    *_, end = await run_job(settings, redis, "return_much")
    data = end.read_data()
    assert isinstance(data, JobSucceeded)
    assert data.result_url == "/api/v1/tasks/result/job"
    assert len(end.data) < 300


async def test_abort_is_reported_as_aborted(settings: Settings, redis: AegisRedis) -> None:
    job = await redis.enqueue_job("hang", _queue_name=QUEUE, _job_id="job")
    assert job is not None
    async with running(make(settings, redis, burst=False)):
        await until(lambda: is_told(redis, "job.started"))
        assert await job.abort(timeout=10, poll_delay=0.01)
    *_, end = await job_events(redis)
    assert end.read_data() == JobAborted(was="in_progress")


async def test_job_of_a_stopped_worker_is_reported_as_interrupted(settings: Settings, redis: AegisRedis) -> None:
    await redis.enqueue_job("hang", _queue_name=QUEUE, _job_id="job")
    worker = make(settings, redis, burst=False)
    async with running(worker):
        await until(lambda: is_told(redis, "job.started"))
        for task in worker.tasks.values():
            task.cancel()
        await until(lambda: is_told(redis, "job.retrying"))
    data = (await job_events(redis))[-1].read_data()
    assert isinstance(data, JobRetrying)
    assert data.reason == "interrupted"


async def is_told(redis: AegisRedis, kind: str) -> bool:
    return kind in {event.kind for event in await EventStream(redis).history()}


async def test_worker_tells_that_it_came_and_went(settings: Settings, redis: AegisRedis) -> None:
    worker = make(settings, redis, max_jobs=7)
    async with running(worker):
        await until(lambda: is_told(redis, "worker.started"))
    first, last = await EventStream(redis).history()
    assert (first.kind, last.kind) == ("worker.started", "worker.stopped")
    data = first.read_data()
    assert isinstance(data, WorkerStarted)
    assert (data.queue, data.max_jobs) == ("lab", 7)
    assert first.worker == last.worker


async def test_worker_is_registered_with_its_counts_while_it_runs(
    settings: Settings, redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heart, "every_s", 0.02)
    for name in ("hang", "fail", "retry_once", "double"):
        await redis.enqueue_job(name, *([1] if name == "double" else []), _queue_name=QUEUE)
    worker = make(settings, redis, burst=False, max_jobs=7)

    async def is_counted() -> bool:
        registered = await read_workers(redis)
        return [(w.queue, w.runner, w.max_jobs, w.running, w.done, w.failed, w.retried) for w in registered] == [
            ("lab", "arq", 7, 1, 2, 1, 1)
        ]

    async with running(worker):
        await until(is_counted)
    assert await read_workers(redis) == []


async def test_worker_whose_loop_has_ended_does_not_look_alive(
    settings: Settings, redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Heart, "every_s", 0.02)
    worker = make(settings, redis)
    await worker.async_run()  # and is not closed, as after a crash
    await worker.ctx["aegis_reporter"]._beating
    assert len(await read_workers(redis)) == 1
    await worker.close()
    assert await read_workers(redis) == []


async def test_hook_that_cannot_write_does_not_stop_the_worker(
    settings: Settings, redis: AegisRedis, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.enqueue_job("double", 1, _queue_name=QUEUE, _job_id="job")
    await redis.delete(keys.EVENTS)
    await redis.set(keys.EVENTS, b"not a stream", px=60_000)
    worker = make(settings, redis)
    await worker.async_run()
    assert worker.jobs_complete == 1
    assert sum("an event could not be written" in record.message for record in caplog.records) == 3


async def test_users_own_hooks_still_run(settings: Settings, redis: AegisRedis) -> None:
    called: list[str] = []

    def hook(name: str) -> Callable[[Context], Awaitable[None]]:
        async def call(ctx: Context) -> None:
            called.append(name)

        return call

    names = ["on_startup", "on_job_start", "on_job_end", "after_job_end"]
    await run_job(settings, redis, "double", 1, **{name: hook(name) for name in names})
    assert called == names


async def test_cron_job_is_reported_too(settings: Settings, redis: AegisRedis) -> None:
    async def tick(ctx: Context) -> str:
        return "tock"

    worker = make(settings, redis, burst=False, cron_jobs=[cron(tick, name="tick", run_at_startup=True)])
    async with running(worker):
        await until(lambda: is_told(redis, "job.succeeded"))
    events = await job_events(redis)
    assert {event.task for event in events if event.kind != "job.enqueued"} == {"tick"}


async def test_jobs_that_a_task_enqueues_have_their_event(settings: Settings, redis: AegisRedis) -> None:
    async def parent(ctx: Context) -> None:
        await ctx["redis"].enqueue_job("double", 1, _job_id="child")

    await redis.enqueue_job("parent", _queue_name=QUEUE, _job_id="job")
    redis.default_queue_name = QUEUE
    await make(settings, redis, functions=[func(parent, name="parent"), double]).async_run()
    child = [event.kind for event in await job_events(redis) if event.job_id == "child"]
    assert child == ["job.enqueued", "job.started", "job.succeeded"]


async def test_log_lines_carry_no_arguments_and_no_results(
    settings: Settings, redis: AegisRedis, caplog: pytest.LogCaptureFixture
) -> None:
    async def greet(ctx: Context, name: str) -> str:
        return f"hello {name}"

    caplog.set_level("INFO")
    await redis.enqueue_job("greet", "Confidential", _queue_name=QUEUE)
    await make(settings, redis, functions=[func(greet, name="greet")]).async_run()
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "greet(…)" in text
    assert "Confidential" not in text


async def test_finished_jobs_leave_only_the_stream_the_bell_and_the_totals_behind(
    settings: Settings, redis: AegisRedis
) -> None:
    for number, name in enumerate(["double", "fail", "retry_once", "return_handle", "double_unkept", "hang_briefly"]):
        await redis.enqueue_job(name, *([1] if "double" in name else []), _queue_name=QUEUE, _job_id=str(number))
    worker = make(settings, redis)
    await worker.async_run()
    await worker.close()
    lasting = [key async for key in redis.scan_iter() if await redis.pttl(key) < 0]
    name = keys.queue_name(QUEUE)
    assert {key.decode() for key in lasting} == {keys.EVENTS, keys.wake(name), keys.totals(name)}
