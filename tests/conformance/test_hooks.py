"""The five hooks: when they run and what they see."""

import asyncio
from collections.abc import Awaitable, Callable

from arq import Retry
from arq.connections import ArqRedis
from arq.jobs import Job

from bridge import keys
from tests.conformance.conftest import Context, MakeWorker, close, drain, enqueue, named

Hook = Callable[[Context], Awaitable[None]]
JOB_HOOKS = ["on_job_start", "on_job_end", "after_job_end"]


async def work(ctx: Context) -> str:
    return "done"


async def refuse(ctx: Context) -> None:
    raise ValueError("not today")


async def retry_once(ctx: Context) -> None:
    if ctx["job_try"] == 1:
        raise Retry


def note(called: list[str], name: str) -> Hook:
    async def hook(ctx: Context) -> None:
        called.append(name)

    return hook


def notes(called: list[str], *names: str) -> dict[str, Hook]:
    return {name: note(called, name) for name in names}


async def test_hooks_run_in_this_order(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def work(ctx: Context) -> None:
        called.append("the job")

    called: list[str] = []
    await enqueue(producer, "work")
    worker = make_worker([named(work)], **notes(called, "on_startup", *JOB_HOOKS, "on_shutdown"))
    await drain(worker)
    await close(worker)
    assert called == ["on_startup", "on_job_start", "the job", "on_job_end", "after_job_end", "on_shutdown"]


async def test_hooks_of_a_job_run_for_each_job(make_worker: MakeWorker, producer: ArqRedis) -> None:
    called: list[str] = []
    for _ in range(3):
        await enqueue(producer, "work")
    await drain(make_worker([work], max_jobs=1, **notes(called, *JOB_HOOKS)))
    assert sorted(called) == sorted(JOB_HOOKS * 3)


async def test_hooks_of_a_job_run_for_a_failed_one_too(make_worker: MakeWorker, producer: ArqRedis) -> None:
    called: list[str] = []
    await enqueue(producer, "refuse")
    await drain(make_worker([refuse], **notes(called, *JOB_HOOKS)))
    assert called == JOB_HOOKS


async def test_hooks_of_a_job_run_for_each_try(make_worker: MakeWorker, producer: ArqRedis) -> None:
    called: list[str] = []
    await enqueue(producer, "retry_once")
    await drain(make_worker([retry_once], **notes(called, *JOB_HOOKS)))
    assert called == JOB_HOOKS * 2


async def test_hooks_of_a_job_do_not_run_for_one_that_cannot_start(make_worker: MakeWorker, producer: ArqRedis) -> None:
    called: list[str] = []
    await enqueue(producer, "unknown")
    await drain(make_worker([work], **notes(called, *JOB_HOOKS)))
    assert called == []


async def test_on_startup_has_a_redis_that_answers(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def ask(ctx: Context) -> None:
        answers.append(await ctx["redis"].ping())

    answers: list[bool] = []
    await drain(make_worker([work], on_startup=ask))
    assert answers == [True]


async def test_on_startup_has_the_workers_own_ctx(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def keep(ctx: Context) -> None:
        seen.append(ctx)

    seen: list[Context] = []
    worker = make_worker([work], on_startup=keep)
    await drain(worker)
    assert seen[0] is worker.ctx


async def test_on_shutdown_has_what_on_startup_has_put_into_ctx(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def connect(ctx: Context) -> None:
        ctx["connection"] = "open"

    async def disconnect(ctx: Context) -> None:
        disconnected.append(ctx["connection"])

    disconnected: list[str] = []
    worker = make_worker([work], on_startup=connect, on_shutdown=disconnect)
    await drain(worker)
    await close(worker)
    assert disconnected == ["open"]


async def test_on_shutdown_still_has_a_redis_that_answers(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def ask(ctx: Context) -> None:
        answers.append(await ctx["redis"].ping())

    answers: list[bool] = []
    worker = make_worker([work], on_shutdown=ask)
    await drain(worker)
    await close(worker)
    assert answers == [True]


async def test_on_shutdown_runs_when_the_worker_is_closed_and_only_once(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    called: list[str] = []
    worker = make_worker([work], **notes(called, "on_shutdown"))
    await drain(worker)
    assert called == []
    for _ in range(2):
        await close(worker)
    assert called == ["on_shutdown"]


async def test_hooks_of_a_job_have_its_ctx(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def keep(ctx: Context) -> None:
        seen.append((ctx["job_id"], ctx["job_try"], ctx["enqueue_time"], ctx["score"], ctx["mine"]))

    seen: list[object] = []
    job = await enqueue(producer, "work")
    info = await job.info()
    assert info is not None
    await drain(make_worker([work], ctx={"mine": 1}, **dict.fromkeys(JOB_HOOKS, keep)))
    assert seen == [(job.job_id, 1, info.enqueue_time, info.score, 1)] * 3


async def test_job_has_what_on_job_start_has_put_into_its_ctx(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def open_span(ctx: Context) -> None:
        ctx["span"] = ctx["job_id"]

    async def work(ctx: Context) -> None:
        spans.append(ctx["span"])

    spans: list[str] = []
    await enqueue(producer, "work", _job_id="job")
    worker = make_worker([named(work)], on_job_start=open_span)
    await drain(worker)
    assert spans == ["job"]
    assert "span" not in worker.ctx


async def test_ends_of_a_job_have_what_it_has_put_into_its_ctx(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def work(ctx: Context) -> None:
        ctx["rows"] = 7

    async def count(ctx: Context) -> None:
        rows.append(ctx["rows"])

    rows: list[int] = []
    await enqueue(producer, "work")
    await drain(make_worker([named(work)], on_job_end=count, after_job_end=count))
    assert rows == [7, 7]


async def test_result_is_stored_between_the_two_ends_of_a_job(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def look(ctx: Context) -> None:
        stored.append(await ctx["redis"].exists(keys.result(ctx["job_id"])))

    stored: list[int] = []
    await enqueue(producer, "work")
    await drain(make_worker([work], on_job_end=look, after_job_end=look))
    assert stored == [0, 1]


async def test_after_job_end_can_read_the_result(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def read(ctx: Context) -> None:
        job = Job(ctx["job_id"], producer, producer.default_queue_name, producer.job_deserializer)
        results.append(await job.result(timeout=0))

    results: list[str] = []
    await enqueue(producer, "work")
    await drain(make_worker([work], after_job_end=read))
    assert results == ["done"]


async def test_after_job_end_finds_the_job_gone_from_the_queue(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def look(ctx: Context) -> None:
        scores.append(await ctx["redis"].zscore(producer.default_queue_name, ctx["job_id"]))

    scores: list[float | None] = []
    await enqueue(producer, "work")
    await drain(make_worker([work], after_job_end=look))
    assert scores == [None]


async def test_burst_waits_for_the_last_hook(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def report(ctx: Context) -> None:
        await asyncio.sleep(0.1)
        reported.append(ctx["job_id"])

    reported: list[str] = []
    await enqueue(producer, "work", _job_id="job")
    await drain(make_worker([work], after_job_end=report))
    assert reported == ["job"]
