"""Which jobs a queue has, page by page, while they come and go."""

import random
from typing import Any

import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.backend import JobSummary
from bridge.catalog import Catalog
from bridge.dead_letters import DeadLetters
from bridge.errors import InvalidRequest
from bridge.inspector import State
from bridge.job_list import JobList
from bridge.new_job import job_body
from bridge.page_cursor import write_cursor
from bridge.scripts import Ending, NewJob, Scripts

QUEUE = keys.queue("load_test")
SECOND_MS = 1000


@pytest.fixture
def job_list(store: AegisRedis, catalog: Catalog, scripts: Scripts) -> JobList:
    return JobList(scripts, DeadLetters(store, catalog, scripts))


@pytest.fixture
def pages(job_list: JobList, catalog: Catalog) -> Any:
    async def read(state: State | None = None, *, limit: int = 50, cursor: str = "") -> tuple[list[JobSummary], str]:
        page = await job_list.page(catalog.queue("load_test"), state=state, cursor=cursor, limit=limit)
        return page.jobs, page.next_cursor or ""

    return read


@pytest.fixture
def listed(pages: Any) -> Any:
    async def read(state: State | None = None, *, limit: int = 50) -> list[JobSummary]:
        jobs: list[JobSummary]
        jobs, cursor = await pages(state, limit=limit)
        while cursor:
            more, cursor = await pages(state, limit=limit, cursor=cursor)
            jobs += more
        return jobs

    return read


async def enqueue(scripts: Scripts, *job_ids: str, task: str = "send", **changes: int) -> None:
    body = job_body(task, [1], {})
    await scripts.enqueue(
        [NewJob(job_id=j, task=task, queue="load_test", queue_key=QUEUE, body=body, **changes) for j in job_ids]
    )


async def claim(scripts: Scripts, wanted: int) -> list[str]:
    claims = await scripts.claim(
        "load_test", QUEUE, worker="w", token="w:1", wanted=wanted, ahead_ms=0, most_tries=b'{"":9}', heeds_aborts=False
    )
    return [job_id.decode() for job_id in claims.jobs[::5]]


async def end(scripts: Scripts, job_id: str, kind: str = "job.succeeded", *, started_ms: int = 1) -> None:
    result = b'{"t":1,"f":"send","a":[],"k":{},"et":1,"s":true,"r":"\\"st\\":9","st":%d,"ft":%d,"q":"%b","id":"%b"}'
    stored = result % (started_ms, started_ms, QUEUE.encode(), job_id.encode())
    letter = stored if kind == "job.failed" else b""
    await scripts.finish(
        "load_test",
        QUEUE,
        worker="w",
        endings=[Ending(job_id, "w:1", kind, "send", 1, b"{}", stored, 60_000, letter, 0, 0)],
    )


def ids(jobs: list[JobSummary]) -> list[str]:
    return [job.task_id for job in jobs]


async def test_each_state_lists_its_jobs(scripts: Scripts, listed: Any) -> None:
    await enqueue(scripts, "runs", "succeeds", "fails")
    await claim(scripts, 3)
    await end(scripts, "succeeds")
    await end(scripts, "fails", "job.failed")
    await enqueue(scripts, "waits")
    await enqueue(scripts, "later", delay_ms=60_000)
    await enqueue(scripts, "aborted")
    await scripts.abort("load_test", QUEUE, "aborted", keep_result_ms=60_000)
    assert {state: ids(await listed(state)) for state in ("in_progress", "queued", "deferred")} == {
        "in_progress": ["runs"],
        "queued": ["waits"],
        "deferred": ["later"],
    }
    assert {state: ids(await listed(state)) for state in ("succeeded", "failed", "aborted")} == {
        "succeeded": ["succeeds"],
        "failed": ["fails"],
        "aborted": ["aborted"],
    }
    assert [(job.task_id, job.status) for job in await listed()] == [
        ("runs", "in_progress"),
        ("waits", "queued"),
        ("later", "deferred"),
    ]
    assert await listed(limit=1) == await listed()


async def test_what_is_told_of_a_job(store: AegisRedis, scripts: Scripts, listed: Any) -> None:
    now_ms, _ = await scripts.enqueue(
        [
            NewJob(
                job_id="a", task='s"nd', queue="load_test", queue_key=QUEUE, body=job_body('s"nd', ["x" * 9999], {})
            ),
        ]
    )
    await store.set(keys.retry("a"), 2)
    (job,) = await listed("queued")
    assert (job.task_name, job.attempt) == ('s"nd', 2)
    assert job.enqueue_time is not None
    assert job.enqueue_time.timestamp() == pytest.approx(now_ms / 1000)
    assert job.due_at == job.enqueue_time
    assert job.finished_at is None
    await claim(scripts, 1)
    (job,) = await listed("in_progress")
    assert (job.task_name, job.attempt, job.due_at) == ('s"nd', 3, None)
    await end(scripts, "a")
    (job,) = await listed("succeeded")
    assert (job.task_name, job.attempt, job.enqueue_time, job.due_at) == ("send", 1, None, None)
    assert job.finished_at is not None
    assert job.finished_at.timestamp() == pytest.approx(now_ms / 1000, abs=60)


@pytest.mark.parametrize("body", [None, b"\x80pickle", b"{}", b'{"t":1,"f":"\xff","et":1}', b"[" * 9999])
async def test_job_whose_body_tells_nothing_is_listed(store: AegisRedis, listed: Any, body: bytes | None) -> None:
    await store.zadd(QUEUE, {b"\xff\x00": float("-inf"), "b": 1, "c": 1.5, "d": 1e300})  # type: ignore[type-var]
    if body is not None:
        await store.set(keys.job("b"), body)
    jobs = await listed(limit=1)
    assert [(job.task_id, job.status) for job in jobs] == [
        ("\ufffd\x00", "queued"),
        ("b", "queued"),
        ("c", "queued"),
        ("d", "deferred"),
    ]
    assert {job.task_name for job in jobs} == {None}


async def test_job_that_a_stock_worker_runs_is_in_progress(store: AegisRedis, scripts: Scripts, listed: Any) -> None:
    await enqueue(scripts, *(f"{number:04}" for number in range(1500)))
    for number in range(0, 1200, 2):
        await store.set(keys.in_progress(f"{number:04}"), b"1", px=60_000)
    running = [f"{number:04}" for number in range(0, 1200, 2)]
    assert ids(await listed("in_progress", limit=100)) == running
    assert ids(await listed("queued", limit=1000)) == sorted({f"{n:04}" for n in range(1500)} - set(running))


@pytest.mark.parametrize("state", ["queued", "deferred"])
@pytest.mark.parametrize("limit", [1, 17, 1000])
async def test_job_that_stays_is_listed_once_whatever_comes_and_goes(
    store: AegisRedis, pages: Any, state: State, limit: int
) -> None:
    """Also among many that are due in the same ms, and when the last one of a page is gone."""
    chance = random.Random(limit)
    seconds, _ = await store.time()
    due_ms = seconds * SECOND_MS + (3_600_000 if state == "deferred" else -3_600_000)
    jobs = {f"{chance.getrandbits(64):016x}": due_ms + number // 80 for number in range(240)}
    await store.zadd(QUEUE, jobs)
    staying = set(chance.sample(sorted(jobs), 60))
    found: list[str] = []
    cursor = None
    while cursor != "":
        page, cursor = await pages(state, limit=limit, cursor=cursor or "")
        found += ids(page)
        await store.zrem(QUEUE, *[job_id for job_id in found[-3:] if job_id not in staying], "nobody")
        await store.zadd(QUEUE, {f"{chance.getrandbits(64):016x}": due_ms + chance.randint(0, 3)})
    assert len(found) == len(set(found))
    assert set(found) >= staying


async def test_running_job_is_listed_once_although_its_lease_is_renewed(scripts: Scripts, pages: Any) -> None:
    await enqueue(scripts, *(f"{number:03}" for number in range(40)))
    running = await claim(scripts, 40)
    found: list[str] = []
    cursor = None
    while cursor != "":
        page, cursor = await pages("in_progress", limit=7, cursor=cursor or "")
        found += ids(page)
        await scripts.renew(QUEUE, [(job_id, "w:1") for job_id in running[:25]])
    assert found == sorted(running)


async def test_page_behind_jobs_of_another_state_is_empty_and_goes_on(store: AegisRedis, pages: Any) -> None:
    seconds, _ = await store.time()
    leased = {f"leased-{number}": seconds * SECOND_MS + 8000.5 for number in range(5600)}
    await store.zadd(QUEUE, leased | {"later": (seconds + 60) * SECOND_MS})
    first, cursor = await pages("deferred")
    assert first == []
    assert cursor
    second, cursor = await pages("deferred", cursor=cursor)
    assert (ids(second), cursor) == (["later"], "")


async def test_ended_jobs_are_listed_newest_first(scripts: Scripts, pages: Any, listed: Any) -> None:
    await enqueue(scripts, *(f"{number:03}" for number in range(30)))
    for job_id in await claim(scripts, 30):
        await end(scripts, job_id)
    everything = [f"{number:03}" for number in reversed(range(30))]
    assert ids(await listed("succeeded", limit=7)) == everything
    page, cursor = await pages("succeeded", limit=10)
    await enqueue(scripts, "new")
    await claim(scripts, 1)
    await end(scripts, "new")
    rest, cursor = await pages("succeeded", limit=50, cursor=cursor)
    assert (ids(page) + ids(rest), cursor) == (everything, "")


async def test_ended_job_is_listed_as_long_as_its_result_is_kept(
    store: AegisRedis, scripts: Scripts, listed: Any
) -> None:
    await enqueue(scripts, "a")
    await claim(scripts, 1)
    await end(scripts, "a")
    await store.delete(keys.result("a"))
    assert await listed("succeeded") == []


async def test_id_that_has_ended_twice_is_listed_by_its_latest_end(
    store: AegisRedis, scripts: Scripts, listed: Any
) -> None:
    """The result of the first run has expired; that which is kept is of the second."""
    seconds, _ = await store.time()
    earlier: Any = {"kind": "job.succeeded", "job_id": "a", "queue": "load_test", "task": "send", "at_ms": "1"}
    await store.xadd(keys.EVENTS, earlier, id="1-1")
    await enqueue(scripts, "a")
    await claim(scripts, 1)
    await end(scripts, "a", started_ms=seconds * SECOND_MS)
    (job,) = await listed("succeeded")
    assert job.finished_at.timestamp() == pytest.approx(seconds, abs=60)


async def test_events_of_other_queues_are_passed_over_in_bounded_time(
    store: AegisRedis, scripts: Scripts, pages: Any
) -> None:
    await enqueue(scripts, "a")
    await claim(scripts, 1)
    await end(scripts, "a")
    async with store.pipeline(transaction=False) as pipe:
        for number in range(5_500):
            pipe.xadd(keys.EVENTS, {"kind": "job.succeeded", "job_id": f"{number}", "queue": "other"})
        await pipe.execute()
    first, cursor = await pages("succeeded")
    assert first == []
    second, cursor = await pages("succeeded", cursor=cursor)
    assert (ids(second), cursor) == (["a"], "")


@pytest.mark.parametrize("state", [None, "queued", "in_progress", "succeeded", "failed", "aborted"])
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "😀",
        "null",
        write_cursor(("deferred", "nan", b"a")),
        write_cursor(("queued", "1 2", b"a")),
        write_cursor(("queued", "+inf) or", b"a")),
        write_cursor(("aborted", "1-x")),
        write_cursor(("succeeded", "99999999999999999999-1")),
        write_cursor(("nope", "1", b"a")),
        write_cursor(["failed"]),
    ],
)
async def test_cursor_of_nobody_is_refused(pages: Any, state: State | None, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await pages(state, cursor=cursor)
    assert refused.value.path == "cursor"
