"""A timeout, a number of tries and a trace of one job, under `BatchWorker` and under the stock ``arq`` worker."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from arq import Retry
from arq.worker import Worker, create_worker

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog, read_queue
from bridge.dead_letters import DeadFilter, DeadLetters
from bridge.enqueue import Enqueuer, TaskRequest
from bridge.event_stream import EventStream
from bridge.events import Event, JobFailed
from bridge.new_job import job_body
from bridge.scripts import NewJob
from bridge.settings import Settings
from workers import lease
from workers.asked import read_asked
from workers.progress import report_progress
from workers.run import make_worker
from workers.task import task
from workers.worker_settings import queue

Context = dict[Any, Any]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SOON_S = 0.05
NEVER_S = 3600.0
runs: list[int] = []


async def hang(ctx: Context) -> None:
    runs.append(ctx["job_try"])
    await asyncio.sleep(NEVER_S)


async def hang_once(ctx: Context) -> str:
    runs.append(ctx["job_try"])
    if ctx["job_try"] == 1:
        await asyncio.sleep(NEVER_S)
    return "second time"


async def nap(ctx: Context) -> str:
    await asyncio.sleep(0.3)
    return "rested"


async def always_retry(ctx: Context) -> None:
    runs.append(ctx["job_try"])
    raise Retry(defer=0)


async def refuse(ctx: Context) -> None:
    runs.append(ctx["job_try"])
    raise ConnectionError("refused")


async def report_and_fail_first(ctx: Context) -> str:
    report_progress(ctx, ctx["job_try"])
    if ctx["job_try"] == 1:
        raise Retry(defer=0)
    return "done"


FUNCTIONS = [
    hang,
    always_retry,
    report_and_fail_first,
    task(nap, timeout=0.1),
    task(hang_once, timeout=NEVER_S, retry_on=(TimeoutError,), backoff_s=0.01),
    task(hang_once, name="hang_once_unlimited", retry_on=(TimeoutError,), backoff_s=0.01),
    task(refuse, retry_on=(ConnectionError,), backoff_s=0.001, max_tries=3),
]
MakeWorker = Callable[[], Worker]


@pytest.fixture(autouse=True)
def no_runs() -> None:
    runs.clear()


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    body = {"functions": FUNCTIONS, "poll_delay": 0.01, "max_tries": 4}
    settings_class = queue("lab", settings=settings)(type("WorkerSettings", (), body))
    return Catalog([read_queue(settings_class, "lab")])


@pytest.fixture
def enqueuer(catalog: Catalog, redis: AegisRedis) -> Enqueuer:
    return Enqueuer(catalog, redis.scripts)


def batch_worker(catalog: Catalog, redis: AegisRedis) -> Worker:
    return make_worker(catalog.queue("lab"), burst=True, redis=AegisRedis(pool_or_conn=redis.connection_pool))


def stock_worker(catalog: Catalog, redis: AegisRedis) -> Worker:
    return create_worker(catalog.queue("lab").settings_class, burst=True, handle_signals=False)


async def work(worker: Worker) -> None:
    async with asyncio.timeout(20):
        await worker.async_run()
    await worker.close()


async def events(redis: AegisRedis) -> list[Event]:
    return [event for event in await EventStream(redis).history() if event.job_id]


async def end(redis: AegisRedis) -> tuple[str, str]:
    """The kind of the last event, and why, if it failed."""
    last = (await events(redis))[-1]
    data = last.read_data()
    return last.kind.removeprefix("job."), data.reason if isinstance(data, JobFailed) else ""


both = pytest.mark.parametrize("make", [batch_worker, stock_worker])


@both
async def test_timeout_of_a_job_ends_it_as_its_tasks_would(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, make: Callable[..., Worker]
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name="hang", timeout_seconds=SOON_S))
    await work(make(catalog, redis))
    assert await end(redis) == ("failed", "timeout")


@both
@pytest.mark.parametrize("task_name", ["hang_once", "hang_once_unlimited"])
async def test_timeout_of_a_job_is_retried_where_its_tasks_would_be(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, make: Callable[..., Worker], task_name: str
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name=task_name, timeout_seconds=SOON_S))
    await work(make(catalog, redis))
    assert await end(redis) == ("succeeded", "")
    assert runs == [1, 2]


async def test_timeout_of_a_job_may_be_longer_than_its_tasks(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name="nap", timeout_seconds=60))
    await work(batch_worker(catalog, redis))
    assert await end(redis) == ("succeeded", "")


async def test_stock_worker_keeps_to_the_shorter_timeout_of_the_task(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name="nap", timeout_seconds=60))
    await work(stock_worker(catalog, redis))
    assert await end(redis) == ("failed", "timeout")


@both
@pytest.mark.parametrize("max_tries", [1, 2])
async def test_job_has_fewer_tries_than_its_task(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, make: Callable[..., Worker], max_tries: int
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name="always_retry", max_tries=max_tries))
    await work(make(catalog, redis))
    assert runs == list(range(1, max_tries + 1))
    assert await end(redis) == ("failed", "tries_exhausted")


@both
async def test_last_error_is_the_result_when_the_tries_of_a_job_are_made(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, make: Callable[..., Worker]
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name="refuse", max_tries=2))
    await work(make(catalog, redis))
    assert runs == [1, 2]
    assert await end(redis) == ("failed", "error")


@pytest.mark.parametrize("task_name", ["always_retry", "refuse"])
async def test_job_has_more_tries_than_its_task(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, task_name: str
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name=task_name, max_tries=6))
    await work(batch_worker(catalog, redis))
    assert runs == [1, 2, 3, 4, 5, 6]


@both
async def test_attempts_of_lost_workers_count_among_the_tries_of_a_job(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, make: Callable[..., Worker]
) -> None:
    enqueued = await enqueuer.enqueue(TaskRequest(task_name="hang", timeout_seconds=SOON_S, max_tries=2))
    await redis.set(keys.retry(enqueued.task_id), 2)
    await work(make(catalog, redis))
    assert runs == []
    assert await end(redis) == ("failed", "tries_exhausted")


async def test_what_was_asked_counts_after_another_workers_death(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LEASE_MS", 100)
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.02)
    enqueued = await enqueuer.enqueue(TaskRequest(task_name="hang", timeout_seconds=SOON_S), trace=TRACE)
    claims = await redis.scripts.claim(
        "lab",
        keys.queue("lab"),
        worker="dead",
        token="dead:1",
        wanted=1,
        ahead_ms=0,
        most_tries=b'{"":4}',
        heeds_aborts=True,
    )
    assert claims.jobs[0].decode() == enqueued.task_id
    await work(batch_worker(catalog, redis))
    assert [event.kind.removeprefix("job.") for event in await events(redis)] == [
        "enqueued", "started", "retrying", "started", "failed",
    ]  # fmt: skip
    assert await end(redis) == ("failed", "timeout")
    assert {event.trace for event in await events(redis)} == {TRACE}


async def test_what_was_asked_counts_after_a_dead_letter_is_retried(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis
) -> None:
    request = TaskRequest(task_name="always_retry", timeout_seconds=30.0, max_tries=2)
    enqueued = await enqueuer.enqueue(request, trace=TRACE)
    first_body = await redis.get(keys.job(enqueued.task_id))
    await work(batch_worker(catalog, redis))
    letters = DeadLetters(redis, catalog, redis.scripts)
    assert [one.verdict async for step in letters.retry(DeadFilter()) for one in step.handled] == ["requeued"]
    body = await redis.get(keys.job(enqueued.task_id))
    assert first_body
    assert body
    assert body.partition(b'"timeout_s"')[1:] == first_body.partition(b'"timeout_s"')[1:]

    await work(batch_worker(catalog, redis))
    assert runs == [1, 2, 1, 2]
    assert {event.trace for event in await events(redis)} == {TRACE}


@both
async def test_every_event_of_a_run_has_the_jobs_trace(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, make: Callable[..., Worker]
) -> None:
    await enqueuer.enqueue(TaskRequest(task_name="report_and_fail_first"), trace=TRACE)
    await work(make(catalog, redis))
    found = await events(redis)
    assert {event.kind for event in found} >= {"job.enqueued", "job.started", "job.retrying", "job.progressed"}
    assert found[-1].kind == "job.succeeded"
    assert {event.trace for event in found} == {TRACE}


@both
async def test_jobs_of_a_worker_do_not_share_what_was_asked(
    catalog: Catalog, enqueuer: Enqueuer, redis: AegisRedis, make: Callable[..., Worker]
) -> None:
    asking = await enqueuer.enqueue(TaskRequest(task_name="always_retry", max_tries=1), trace=TRACE)
    other = await enqueuer.enqueue(TaskRequest(task_name="report_and_fail_first"))
    await work(make(catalog, redis))
    found = await events(redis)
    assert {event.trace for event in found if event.job_id == asking.task_id} == {TRACE}
    assert {event.trace for event in found if event.job_id == other.task_id} == {""}
    assert [event.kind for event in found if event.job_id == other.task_id][-1] == "job.succeeded"


@both
async def test_keys_of_other_producers_that_hold_something_else_are_ignored(
    catalog: Catalog, redis: AegisRedis, make: Callable[..., Worker]
) -> None:
    head, _ = job_body("report_and_fail_first", [], {})
    tail = b',"timeout_s":"soon","max_tries":null,"trace":{"id":1}}'
    job = NewJob(job_id="a", task="report_and_fail_first", queue="lab", queue_key=keys.queue("lab"), body=(head, tail))
    await redis.scripts.enqueue([job])
    await work(make(catalog, redis))
    assert await end(redis) == ("succeeded", "")


@pytest.mark.parametrize(
    ("timeout_s", "max_tries", "trace"),
    [(0, 0, 1), (-1, True, None), (True, 1.5, {}), ("1", "1", [])],
)
def test_what_is_no_timeout_number_or_trace_is_nothing(timeout_s: object, max_tries: object, trace: object) -> None:
    assert read_asked(timeout_s, max_tries, trace) == (None, None, "")
