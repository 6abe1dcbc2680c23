"""Tasks that report their progress, under both workers. Processes run the functions at the top."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from arq import Retry
from arq.worker import Function, Worker, create_worker, func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.event_stream import EventStream
from bridge.events import Event, JobFailed, JobProgressed
from bridge.scripts import source
from bridge.settings import Settings
from workers import lease
from workers.batch_worker import BatchWorker
from workers.progress import MESSAGE_LIMIT_CHARS, PROGRESS, report_progress
from workers.progress_writer import WRITE_EVERY_S
from workers.task import task
from workers.worker_settings import queue

Context = dict[Any, Any]
QUEUE = keys.queue("lab")


def count(ctx: Context, number: int) -> int:
    for done in range(number):
        report_progress(ctx, done + 1, number)
    return number


async def count_in_the_loop(ctx: Context, number: int) -> int:
    return count(ctx, number)


def report_and_wait(ctx: Context, go_on: str) -> None:
    report_progress(ctx, 1, 2, "waiting")
    while not Path(go_on).exists():
        time.sleep(0.005)


async def report_and_wait_in_the_loop(ctx: Context, go_on: str) -> None:
    report_progress(ctx, 1, 2, "waiting")
    while not Path(go_on).exists():  # noqa: ASYNC110 - it is a file
        await asyncio.sleep(0.005)


def die_when_told(ctx: Context, go_on: str) -> None:
    report_and_wait(ctx, go_on)
    os._exit(3)


def report_for_ever(ctx: Context) -> None:
    done = 0
    while True:
        done += 1
        report_progress(ctx, done)


COUNT = [
    pytest.param(func(count_in_the_loop, name="count"), id="loop"),
    pytest.param(task(count), id="thread"),
    pytest.param(task(count, run_in="process"), id="process"),
]
WAIT = [
    pytest.param(func(report_and_wait_in_the_loop, name="wait"), id="loop"),
    pytest.param(task(report_and_wait, name="wait"), id="thread"),
    pytest.param(task(report_and_wait, name="wait", run_in="process"), id="process"),
]


class MakeWorker(Protocol):
    """Makes a worker of the queue, in burst mode unless the options say otherwise."""

    def __call__(self, *functions: Function, **options: Any) -> Worker: ...


@pytest.fixture(params=["arq", "batch_worker"])
def make(request: pytest.FixtureRequest, settings: Settings, redis: AegisRedis) -> MakeWorker:
    """The stock worker with a class of ours, and our worker."""

    def make_stock(*functions: Function, **options: Any) -> Worker:
        burst = options.pop("burst", True)
        body = {"functions": functions, "poll_delay": 0.01, **options}
        settings_class = queue("lab", settings=settings)(type("WorkerSettings", (), body))
        return create_worker(settings_class, redis_pool=redis, burst=burst, handle_signals=False)

    def make_ours(*functions: Function, **options: Any) -> Worker:
        view = AegisRedis(pool_or_conn=redis.connection_pool)
        options = {"burst": True, "allow_abort_jobs": True, **options}
        return BatchWorker(functions, queue_name=QUEUE, redis_pool=view, handle_signals=False, **options)

    return make_stock if request.param == "arq" else make_ours


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    working = asyncio.create_task(worker.async_run())
    try:
        yield worker
    finally:
        while not working.done():
            working.cancel()  # again: on 3.11 redis-py may swallow it
            await asyncio.wait({working}, timeout=1)
        for job in worker.tasks.values():
            job.cancel()
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
        worker.tasks.clear()
        await worker.close()


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.005)


async def enqueue(redis: AegisRedis, name: str, *args: Any, job_id: str = "job") -> None:
    assert await redis.enqueue_job(name, *args, _queue_name=QUEUE, _job_id=job_id)


async def events(redis: AegisRedis, job_id: str = "job") -> list[Event]:
    return [event for event in await EventStream(redis).history() if event.job_id == job_id]


async def kinds(redis: AegisRedis, job_id: str = "job") -> list[str]:
    return [event.kind.removeprefix("job.") for event in await events(redis, job_id)]


async def progress(redis: AegisRedis, job_id: str = "job") -> list[Event]:
    return [event for event in await events(redis, job_id) if event.kind == "job.progressed"]


def data(event: Event) -> Any:
    return msgspec.json.decode(event.data)


# --- what is written ---------------------------------------------------------------------------------


@pytest.mark.parametrize("function", COUNT)
async def test_of_many_reports_few_are_written_and_the_last(
    make: MakeWorker, redis: AegisRedis, function: Function
) -> None:
    await enqueue(redis, "count", 10_000)
    await make(function).async_run()
    found = await kinds(redis)
    assert found == ["enqueued", "started", *["progressed"] * (len(found) - 3), "succeeded"]
    written = await progress(redis)
    assert written
    assert data(written[-1]) == {"current": 10_000, "total": 10_000}
    assert (written[-1].task, written[-1].attempt, written[-1].queue) == ("count", 1, "lab")
    assert written[-1].worker == (await events(redis))[1].worker != ""
    gaps = [later.at_ms - earlier.at_ms for earlier, later in pairwise(written[:-1])]
    assert all(gap >= WRITE_EVERY_S * 1000 - 10 for gap in gaps), gaps
    assert await redis.pttl(keys.progress("job")) != -1, "it does not stay"


@pytest.mark.parametrize("function", WAIT)
async def test_report_is_written_though_none_follows(
    make: MakeWorker, redis: AegisRedis, tmp_path: Path, function: Function
) -> None:
    go_on = tmp_path / "go on"
    await enqueue(redis, "wait", str(go_on))
    async with running(make(function, burst=False)):
        await until(lambda: redis.exists(keys.progress("job")))
        (event,) = await progress(redis)
        assert data(event) == {"current": 1, "total": 2, "message": "waiting"}
        go_on.touch()
        await until(lambda: redis.exists(keys.result("job")))
    assert (await kinds(redis)).count("progressed") == 1


async def test_one_call_carries_all_jobs(make: MakeWorker, redis: AegisRedis) -> None:
    reached = asyncio.Barrier(6)

    async def together(ctx: Context) -> None:
        await reached.wait()
        report_progress(ctx, 1)
        await asyncio.Event().wait()

    for number in range(5):
        await enqueue(redis, "together", job_id=str(number))
    async with running(make(func(together, name="together"), burst=False)):
        await reached.wait()
        await until(lambda: all_progress_is_there(redis))
        written = [(await progress(redis, str(number)))[0] for number in range(5)]
    assert len({event.at_ms for event in written}) == 1, "by one script"


async def all_progress_is_there(redis: AegisRedis) -> bool:
    return bool(await redis.exists(*[keys.progress(str(number)) for number in range(5)]) == 5)


async def test_worker_whose_tasks_report_nothing_sends_nothing(make: MakeWorker, redis: AegisRedis) -> None:
    async def report(ctx: Context) -> None:
        report_progress(ctx, 1)

    async def report_nothing(ctx: Context) -> None: ...

    script = redis.register_script(source("progress"))
    await redis.script_flush()
    for name, is_sent in [("report_nothing", False), ("report", True)]:
        await enqueue(redis, name, job_id=name)
        await make(func(report, name="report"), func(report_nothing, name="report_nothing")).async_run()
        assert await redis.script_exists(script.sha) == [is_sent]


async def test_task_may_hand_on_a_copy_of_its_ctx(make: MakeWorker, redis: AegisRedis) -> None:
    async def wrap(ctx: Context) -> None:
        report_progress({**ctx, "database": object()}, 1)

    await enqueue(redis, "wrap")
    await make(func(wrap, name="wrap")).async_run()
    assert await kinds(redis) == ["enqueued", "started", "progressed", "succeeded"]


# --- order, attempts and tokens ----------------------------------------------------------------------


async def test_last_report_of_each_attempt_comes_before_its_end(make: MakeWorker, redis: AegisRedis) -> None:
    async def try_often(ctx: Context) -> None:
        report_progress(ctx, 10 * ctx["job_try"])
        report_progress(ctx, 10 * ctx["job_try"] + 1)
        if ctx["job_try"] < 3:
            raise Retry(defer=0)
        raise ValueError("on purpose")

    await enqueue(redis, "try_often")
    await make(func(try_often, name="try_often")).async_run()
    once = ["started", "progressed"]
    assert await kinds(redis) == ["enqueued", *once, "retrying", *once, "retrying", *once, "failed"]
    assert [(event.attempt, data(event)["current"]) for event in await progress(redis)] == [(1, 11), (2, 21), (3, 31)]
    assert await redis.pttl(keys.progress("job")) != -1, "it does not stay"


async def test_aborted_job_tells_its_last_report_before_its_end(make: MakeWorker, redis: AegisRedis) -> None:
    started = asyncio.Event()

    async def hang(ctx: Context) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            report_progress(ctx, 7, message="tidied up")

    job = await redis.enqueue_job("hang", _queue_name=QUEUE, _job_id="job")
    assert job is not None
    async with running(make(func(hang, name="hang"), burst=False)):
        await started.wait()
        assert await job.abort(timeout=10, poll_delay=0.01)
        await until(lambda: has_ended(redis))
    assert await kinds(redis) == ["enqueued", "started", "progressed", "aborted"]


async def has_ended(redis: AegisRedis) -> bool:
    return (await kinds(redis))[-1] in {"succeeded", "failed", "aborted"}


async def test_abandoned_thread_reports_for_no_later_job_of_its_id(make: MakeWorker, redis: AegisRedis) -> None:
    may_report, has_reported, go_on = threading.Event(), threading.Event(), asyncio.Event()

    def abandoned(ctx: Context) -> None:
        report_progress(ctx, 1)
        may_report.wait(20)
        report_progress(ctx, 13)
        has_reported.set()

    async def second(ctx: Context) -> None:
        may_report.set()
        await go_on.wait()

    async def other(ctx: Context) -> None:
        await asyncio.to_thread(has_reported.wait, 20)
        report_progress(ctx, 2)
        await go_on.wait()

    first = task(abandoned, name="abandoned", timeout=0.05, keep_result=0)
    await enqueue(redis, "abandoned")
    async with running(make(first, func(second, name="second"), func(other, name="other"), burst=False)):
        await until(lambda: has_ended(redis))
        await enqueue(redis, "second")
        await enqueue(redis, "other", job_id="other")
        await until(lambda: redis.exists(keys.progress("other")))  # one call carries all that is new
        go_on.set()
        await until(lambda: redis.exists(keys.result("job")))
    assert [data(event)["current"] for event in await progress(redis)] == [1]


async def test_run_that_lost_its_lease_writes_nothing(redis: AegisRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.1)
    started, stolen, cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def report(ctx: Context) -> None:
        started.set()
        await stolen.wait()
        try:
            while True:
                report_progress(ctx, 1)
                await asyncio.sleep(0)
        finally:
            report_progress(ctx, 2)
            cancelled.set()

    await enqueue(redis, "report")
    view = AegisRedis(pool_or_conn=redis.connection_pool)
    worker = BatchWorker([func(report, name="report")], queue_name=QUEUE, redis_pool=view, handle_signals=False)
    async with running(worker):
        await started.wait()
        await redis.set(keys.in_progress("job"), b"stolen", px=60_000)
        stolen.set()
        async with asyncio.timeout(20):
            await cancelled.wait()
        await until(lambda: nothing_is_unwritten(worker))
    assert await kinds(redis) == ["enqueued", "started"]
    assert not await redis.exists(keys.progress("job"))


async def nothing_is_unwritten(worker: BatchWorker) -> bool:
    return not worker._progress.has_unwritten


# --- processes ---------------------------------------------------------------------------------------


async def test_chatty_process_leaves_few_events(make: MakeWorker, redis: AegisRedis) -> None:
    await enqueue(redis, "count", 100_000)
    await make(task(count, run_in="process")).async_run()
    *_, before_last, last = await events(redis)
    assert (before_last.kind, data(before_last)["current"], last.kind) == ("job.progressed", 100_000, "job.succeeded")
    first, *_ = await progress(redis)
    ran_s = (last.at_ms - first.at_ms) / 1000
    assert len(await progress(redis)) <= 2 + ran_s / WRITE_EVERY_S


async def test_killed_process_ends_its_job_after_its_progress(
    make: MakeWorker, redis: AegisRedis, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    await enqueue(redis, "die_when_told", str(go_on))
    async with running(make(task(die_when_told, run_in="process"), burst=False)):
        await until(lambda: redis.exists(keys.progress("job")))
        go_on.touch()
        await until(lambda: redis.exists(keys.result("job")))
        await until(lambda: has_ended(redis))
    assert await kinds(redis) == ["enqueued", "started", "progressed", "failed"]
    end = (await events(redis))[-1].read_data()
    assert isinstance(end, JobFailed)
    assert end.error.type == "ChildProcessDied"


async def test_process_that_reports_without_end_is_killed_at_its_timeout(make: MakeWorker, redis: AegisRedis) -> None:
    functions = task(report_for_ever, run_in="process", timeout=1), task(count, run_in="process")
    await enqueue(redis, "report_for_ever")
    await make(*functions).async_run()
    assert (await kinds(redis))[-1] == "failed"
    await enqueue(redis, "count", 3, job_id="next")
    await make(*functions).async_run()
    assert data((await progress(redis, "next"))[-1]) == {"current": 3, "total": 3}, "not of the killed one"
    assert (await kinds(redis))[-1] == "failed"


# --- report_progress itself --------------------------------------------------------------------------


class Listener:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.heard: list[JobProgressed] = []

    def report(self, ctx: Any, progress: JobProgressed) -> None:
        self.heard.append(progress)


def heard(*args: Any, **kwargs: Any) -> Any:
    listener = Listener()
    report_progress({PROGRESS: listener}, *args, **kwargs)
    (told,) = listener.heard
    return msgspec.json.decode(msgspec.json.encode(told))


def test_ctx_that_no_worker_made_is_fine() -> None:
    report_progress({}, 1, 2, "three")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((0,), {"current": 0}),
        ((0.5, 1), {"current": 0.5, "total": 1}),
        ((3, 2), {"current": 3, "total": 2}),
        ((0, 0, ""), {"current": 0, "total": 0, "message": ""}),
        ((2**53, None, "x"), {"current": 2**53, "message": "x"}),
        ((Fraction(1, 2),), {"current": 0.5}),
        ((1, None, "caf\udce9"), {"current": 1, "message": "caf?"}),
        ((1, None, "x" * 1000), {"current": 1, "message": "x" * MESSAGE_LIMIT_CHARS}),
    ],
)
def test_values_become_what_json_can_hold(args: tuple[Any, ...], told: dict[str, Any]) -> None:
    assert heard(*args) == told


@pytest.mark.parametrize("ctx", [{}, {PROGRESS: Listener()}])
@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((-1,), ValueError, "current must be a number from 0 to 2 \\*\\* 53, not -1"),
        ((float("nan"),), ValueError, "current must be .* not nan"),
        ((float("inf"),), ValueError, "current must be .* not inf"),
        ((Fraction(10**400),), ValueError, "current must be a number"),
        ((1, 2**53 + 1), ValueError, "total must be"),
        (("1",), TypeError, "current must be a number, not str"),
        ((None,), TypeError, "current must be a number, not NoneType"),
        ((True,), TypeError, "current must be a number, not bool"),
        ((1j,), TypeError, "current must be a number, not complex"),
        ((1, "2"), TypeError, "total must be a number, not str"),
        ((1, 2, b"x"), TypeError, "message must be a str, not bytes"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(
    ctx: Context, args: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"report_progress: {message}"):
        report_progress(ctx, *args)
