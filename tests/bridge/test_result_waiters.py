"""Waiting for the end of a job."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge import keys, result_waiters
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.codec import job_serializer
from bridge.enqueue import Enqueuer, TaskRequest
from bridge.errors import JobNotFound
from bridge.event_feed import EventFeed
from bridge.events import ErrorSummary, EventData, JobAborted, JobFailed, JobSucceeded
from bridge.inspector import Inspector, JobResult
from bridge.scripts import NewEvent, Scripts

SUCCEEDED = JobSucceeded(ran_ms=1, queued_ms=1, result={"n": 7})
FAILED = JobFailed(reason="error", error=ErrorSummary(type="ValueError", message="no"), ran_ms=1)
LONG_S = 60.0


@pytest.fixture
async def feed(store: AegisRedis, scripts: Scripts, catalog: Catalog) -> AsyncIterator[EventFeed]:
    made = EventFeed(store, Inspector(store, catalog, scripts))
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here of events must not be seen by the look that is for ends without one."""
    monkeypatch.setattr(result_waiters, "LOOK_EVERY_S", LONG_S)


async def enqueue(catalog: Catalog, scripts: Scripts, job_id: str) -> None:
    await Enqueuer(catalog, scripts).enqueue(TaskRequest(task_name="noop_task", task_id=job_id))


async def end(redis: AegisRedis, job_id: str, result: object = None, *, is_kept: bool = True) -> None:
    """The job has ended as a worker leaves it, but for the event."""
    stored: dict[str, Any] = {"t": 1, "f": "noop_task", "a": [], "k": {}, "et": 1, "s": True, "r": result}
    async with redis.pipeline(transaction=True) as pipe:
        pipe.delete(keys.job(job_id))
        pipe.zrem(keys.queue("load_test"), job_id)
        if is_kept:
            pipe.set(keys.result(job_id), job_serializer({**stored, "st": 1, "ft": 2, "q": "", "id": job_id}), ex=60)
        await pipe.execute()


async def tell(scripts: Scripts, job_id: str, data: EventData = SUCCEEDED) -> None:
    await scripts.report([NewEvent(data=data, job_id=job_id, queue="load_test", task="noop_task")])


async def waiting(feed: EventFeed, *job_ids: str, wait_s: float = LONG_S) -> "list[asyncio.Task[JobResult]]":
    """Waiters that wait by now."""
    tasks = [asyncio.create_task(feed.wait_for_result(job_id, wait_s=wait_s)) for job_id in job_ids]
    async with asyncio.timeout(20):
        while sum(map(len, feed.waiters._waiting.values())) < len(tasks):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    return tasks


async def answer(task: "asyncio.Task[JobResult]") -> JobResult:
    async with asyncio.timeout(20):
        return await task


async def test_everybody_who_waits_has_the_result_when_the_event_comes(
    feed: EventFeed, store: AegisRedis, catalog: Catalog, scripts: Scripts
) -> None:
    for job_id in ("a", "b"):
        await enqueue(catalog, scripts, job_id)
    first, second, other = await waiting(feed, "a", "a", "b")
    await end(store, "a", 7)
    await tell(scripts, "a")
    assert await answer(first) == await answer(second) == JobResult(task_id="a", status="succeeded", result=7)
    assert not other.done()
    await end(store, "b", 8)
    await tell(scripts, "b")
    assert (await answer(other)).result == 8
    assert not feed.waiters._waiting


async def test_job_that_has_ended_is_answered_at_once(feed: EventFeed, store: AegisRedis) -> None:
    await end(store, "a", 7)
    assert (await feed.wait_for_result("a", wait_s=LONG_S)).result == 7


async def test_unknown_job_is_told_at_once(feed: EventFeed) -> None:
    with pytest.raises(JobNotFound):
        await feed.wait_for_result("a", wait_s=LONG_S)


async def test_state_is_told_when_the_time_is_up(feed: EventFeed, catalog: Catalog, scripts: Scripts) -> None:
    await enqueue(catalog, scripts, "a")
    for wait_s in (0, 0.05):
        assert (await feed.wait_for_result("a", wait_s=wait_s)).status == "queued"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (SUCCEEDED, JobResult(task_id="a", status="succeeded", result={"n": 7})),
        (FAILED, JobResult(task_id="a", status="failed", error=FAILED.error)),
        (JobAborted(was="in_progress"), JobResult(task_id="a", status="aborted")),
    ],
)
async def test_result_that_is_not_kept_is_read_from_the_event(
    feed: EventFeed, store: AegisRedis, catalog: Catalog, scripts: Scripts, data: EventData, expected: JobResult
) -> None:
    await enqueue(catalog, scripts, "a")
    (task,) = await waiting(feed, "a")
    await end(store, "a", is_kept=False)
    await tell(scripts, "a", data)
    assert await answer(task) == expected


async def test_end_of_an_earlier_job_with_the_id_is_not_taken_for_this_ones(
    feed: EventFeed, store: AegisRedis, catalog: Catalog, scripts: Scripts
) -> None:
    """The reader may be some moments behind: the event comes after the job was enqueued again."""
    await enqueue(catalog, scripts, "a")
    (task,) = await waiting(feed, "a")
    await tell(scripts, "a", FAILED)
    await asyncio.sleep(0.05)
    assert not task.done()
    await end(store, "a", 7)
    await tell(scripts, "a")
    assert (await answer(task)).result == 7


async def test_end_without_an_event_is_seen_by_the_look(
    feed: EventFeed, store: AegisRedis, catalog: Catalog, scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some endings under the stock arq command are."""
    monkeypatch.setattr(result_waiters, "LOOK_EVERY_S", 0.02)
    for job_id in ("a", "b", "c"):
        await enqueue(catalog, scripts, job_id)
    kept, forgotten, other = await waiting(feed, "a", "b", "c")
    await end(store, "a", 7)
    await end(store, "b", is_kept=False)
    assert (await answer(kept)).result == 7
    with pytest.raises(JobNotFound):
        await answer(forgotten)
    assert not other.done()
    other.cancel()


async def test_waiters_get_the_state_when_the_feed_closes(feed: EventFeed, catalog: Catalog, scripts: Scripts) -> None:
    await enqueue(catalog, scripts, "a")
    (task,) = await waiting(feed, "a")
    feed.close()
    assert (await answer(task)).status == "queued"


async def test_waiting_costs_no_command_for_each_waiter(
    redis: AegisRedis, catalog: Catalog, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_waiters, "LOOK_EVERY_S", 0.1)
    scripts = Scripts(redis, events_max_len=1000)
    feed = EventFeed(redis, Inspector(redis, catalog, scripts))
    names = [f"job-{number}" for number in range(300)]
    for name in names:
        await enqueue(catalog, scripts, name)
    tasks = await waiting(feed, *names)
    sent = 0
    async with redis.monitor() as monitor:
        async with asyncio.timeout(20):
            looks = 0
            while looks < 5:
                command = (await monitor.next_command())["command"]
                looks += command.startswith("EXISTS arq:result:")
                sent += 1
    assert sent < 20
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not feed.waiters._waiting
    await feed.aclose()


async def test_waiter_who_leaves_is_forgotten(feed: EventFeed, catalog: Catalog, scripts: Scripts) -> None:
    await enqueue(catalog, scripts, "a")
    (task,) = await waiting(feed, "a")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not feed.waiters._waiting
    assert not feed.broadcast._groups
