"""Dead letters: the two scripts, and the class on top of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from redis.exceptions import ResponseError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog, read_queue
from bridge.codec import decode_job
from bridge.dead_letters import DeadFilter, DeadLetter, DeadLetters, Handled, Step
from bridge.errors import InvalidQueueType, InvalidRequest, JobNotFound, RetryRefused
from bridge.event_stream import EventStream
from bridge.events import JobEnqueued
from bridge.new_job import job_body
from bridge.page_cursor import write_cursor
from bridge.scripts import DeadJob, NewJob, Scripts

QUEUE = keys.queue("load_test")
DEAD = keys.dead("load_test")
ENDING = b',"st":5,"ft":9,"q":"arq:queue:load_test","id":"a"}'
ALL = DeadFilter()
HUGE = write_cursor((10**400, "load_test", "a"))


def letter_of(
    job_id: str,
    *,
    task: str = "send",
    error: str = "ValueError",
    body: bytes = b'"a":[1],"k":{"x":2.50},"et":3',
    reason: str = "error",
) -> bytes:
    failure = msgspec.json.encode({"type": error, "message": "no", "traceback": "Traceback …", "reason": reason})
    return b'{"t":2,"f":"%b",%b,"s":false,"r":%b,"st":5,"ft":9,"q":"arq:queue:load_test","id":"%b"}' % (
        task.encode(), body, failure, job_id.encode()
    )  # fmt: skip


async def bury(store: AegisRedis, *job_ids: str, age_s: float = 0, queue: str = "load_test", **changes: Any) -> int:
    """Dead letters as ``finish.lua`` writes them; when the jobs failed, ms."""
    seconds, microseconds = await store.time()
    failed_at_ms: int = seconds * 1000 + microseconds // 1000 - round(age_s * 1000)
    for job_id in job_ids:
        await store.zadd(keys.dead(queue), {job_id: failed_at_ms})
        raw = changes.get("raw") or letter_of(job_id, **changes)
        await store.set(keys.dead_letter(queue, job_id), raw, px=keys.DEAD_TTL_MS)
    return failed_at_ms


def dead_job(job_id: str, failed_at_ms: int | str, ending: bytes = ENDING) -> DeadJob:
    return DeadJob(job_id, "send", *job_body("send", [1], {}), failed_at_ms, ending)


async def requeue(scripts: Scripts, *jobs: DeadJob) -> list[str]:
    return await scripts.requeue("load_test", QUEUE, jobs)


async def everything(store: AegisRedis) -> dict[bytes, bytes | None]:
    return {key: await store.dump(key) for key in await store.keys()}


@pytest.fixture
def dead_letters(store: AegisRedis, catalog: Catalog, scripts: Scripts) -> DeadLetters:
    return DeadLetters(store, catalog, scripts)


async def handled(steps: AsyncIterator[Step]) -> list[Handled]:
    return [one async for step in steps for one in step.handled]


async def verdicts(steps: AsyncIterator[Step]) -> dict[str, str]:
    return {one.task_id: one.verdict for one in await handled(steps)}


async def listed(dead_letters: DeadLetters, wanted: DeadFilter = ALL) -> list[DeadLetter]:
    return [letter async for letter in dead_letters.letters(wanted)]


async def listed_ids(dead_letters: DeadLetters, wanted: DeadFilter = ALL) -> list[str]:
    return [letter.task_id for letter in await listed(dead_letters, wanted)]


# --- the scripts ---------------------------------------------------------------------------------


async def test_requeued_job_is_as_newly_enqueued(store: AegisRedis, scripts: Scripts) -> None:
    failed_at_ms = await bury(store, "a")
    await store.set(keys.result("a"), b"{" + ENDING)
    await store.set(keys.retry("a"), 3)
    await store.zadd(keys.ABORT, {"a": 9e12})

    assert await requeue(scripts, dead_job("a", failed_at_ms)) == ["requeued"]

    (event,) = await EventStream(store).history()
    assert (event.kind, event.job_id, event.queue, event.task) == ("job.enqueued", "a", "load_test", "send")
    assert (event.attempt, event.read_data()) == (0, JobEnqueued(due_at_ms=event.at_ms, reason="requeued"))
    assert await store.get(keys.job("a")) == b'{"t":null,"f":"send","a":[1],"k":{},"et":%d}' % event.at_ms
    assert await store.zscore(QUEUE, "a") == event.at_ms
    left = {QUEUE, keys.job("a"), keys.EVENTS, keys.wake("load_test")}
    assert {key.decode() for key in await store.keys()} == left


@pytest.mark.parametrize("later_ms", [-1, 1])
async def test_letter_that_the_caller_has_not_read_is_gone(store: AegisRedis, scripts: Scripts, later_ms: int) -> None:
    failed_at_ms = await bury(store, "a")
    before = await everything(store)
    jobs = [dead_job("a", failed_at_ms + later_ms), dead_job("nobody", failed_at_ms)]
    assert await requeue(scripts, *jobs) == ["gone", "gone"]
    assert await everything(store) == before


@pytest.mark.parametrize("mark", ["body", "running", "queued"])
async def test_job_whose_id_lives_again_is_left(store: AegisRedis, scripts: Scripts, mark: str) -> None:
    failed_at_ms = await bury(store, "a")
    if mark == "queued":  # its body has expired, which its next claim will tell
        await store.zadd(QUEUE, {"a": 1})
    else:
        await store.set({"body": keys.job, "running": keys.in_progress}[mark]("a"), b"there", px=60_000)
    before = await everything(store)
    assert await requeue(scripts, dead_job("a", failed_at_ms)) == ["alive"]
    assert await everything(store) == before


async def test_result_of_a_later_job_is_left(store: AegisRedis, scripts: Scripts) -> None:
    failed_at_ms = await bury(store, "a")
    await store.set(keys.result("a"), letter_of("a").replace(b'"ft":9', b'"ft":10'), px=60_000)
    before = await everything(store)
    assert await requeue(scripts, dead_job("a", failed_at_ms)) == ["superseded"]
    assert await everything(store) == before


async def test_result_that_is_no_string_is_left(store: AegisRedis, scripts: Scripts) -> None:
    failed_at_ms = await bury(store, "a")
    await store.zadd(keys.result("a"), {"x": 1})
    assert await requeue(scripts, dead_job("a", failed_at_ms)) == ["superseded"]
    await store.delete(keys.result("a"))


@pytest.mark.parametrize("result", [None, letter_of("a").replace(b'"ft":9', b'"ft":10')])
async def test_job_without_letter_needs_the_result_that_was_read(
    store: AegisRedis, scripts: Scripts, result: bytes | None
) -> None:
    if result:
        await store.set(keys.result("a"), result, px=60_000)
    before = await everything(store)
    assert await requeue(scripts, dead_job("a", "")) == ["gone"]
    assert await everything(store) == before
    await store.set(keys.result("a"), letter_of("a"), px=60_000)
    assert await requeue(scripts, dead_job("a", ""), dead_job("a", "")) == ["requeued", "gone"]


async def test_batch_is_requeued_job_by_job_and_wakes_one_worker(store: AegisRedis, scripts: Scripts) -> None:
    at_ms = await bury(store, "a", "b")
    jobs = [dead_job("a", at_ms), dead_job("c", at_ms), dead_job("b", at_ms), dead_job("a", at_ms)]
    assert await requeue(scripts, *jobs) == ["requeued", "gone", "requeued", "gone"]
    assert await store.xlen(keys.EVENTS) == 2
    waiting: Any = store.llen(keys.wake("load_test"))
    assert await waiting == 1


async def test_purge_takes_the_letter_that_was_read_and_no_other(store: AegisRedis, scripts: Scripts) -> None:
    at_ms = await bury(store, "a", "b", "c")
    await store.delete(keys.dead_letter("load_test", "c"))
    assert await scripts.purge("load_test", [("a", at_ms), ("b", at_ms - 1), ("c", at_ms), ("x", at_ms)]) == [
        1,
        0,
        0,
        0,
    ]
    assert await store.zrange(DEAD, 0, -1) == [b"b"]
    assert await store.exists(keys.dead_letter("load_test", "a"), keys.dead_letter("load_test", "b")) == 1


@pytest.mark.parametrize("key", [QUEUE, keys.EVENTS, keys.ABORT, keys.wake("load_test"), DEAD])
async def test_key_of_another_type_stops_the_scripts_before_they_write(
    store: AegisRedis, scripts: Scripts, key: str
) -> None:
    at_ms = await bury(store, "a")
    await store.delete(key)
    await store.set(key, b"text", px=60_000)
    before = await everything(store)
    with pytest.raises(ResponseError, match=f"WRONGTYPE {key}"):
        await requeue(scripts, dead_job("a", at_ms))
    if key == DEAD:
        with pytest.raises(ResponseError, match=f"WRONGTYPE {key}"):
            await scripts.purge("load_test", [("a", at_ms)])
    assert await everything(store) == before


@pytest.mark.parametrize(
    ("garbage", "told"), [(("b", "send"), "whole number of jobs"), (("b", "send", "{", "}", "soon", ""), "a time")]
)
async def test_requeue_refuses_garbage(
    store: AegisRedis, scripts: Scripts, garbage: tuple[str, ...], told: str
) -> None:
    job = dead_job("a", await bury(store, "a"))
    before = await everything(store)
    with pytest.raises(ResponseError, match=told):
        await scripts._requeue(keys=(QUEUE,), args=(1000, "load_test", *job, *garbage))
    assert await everything(store) == before


@pytest.mark.parametrize(("garbage", "told"), [(("b",), "whole number of letters"), (("b", "soon"), "a time")])
async def test_purge_refuses_garbage(store: AegisRedis, scripts: Scripts, garbage: tuple[str, ...], told: str) -> None:
    at_ms = await bury(store, "a")
    before = await everything(store)
    with pytest.raises(ResponseError, match=told):
        await scripts._purge(args=("load_test", "a", at_ms, *garbage))
    assert await everything(store) == before


# --- listing -------------------------------------------------------------------------------------


async def test_letter_tells_what_failed_how_and_when(store: AegisRedis, dead_letters: DeadLetters) -> None:
    failed_at_ms = await bury(store, "a", reason="timeout")
    (letter,) = await listed(dead_letters)
    assert msgspec.json.decode(msgspec.json.encode(letter)) == {
        "task_id": "a",
        "queue_type": "load_test",
        "task_name": "send",
        "args": [1],
        "kwargs": {"x": 2.5},
        "attempts": 2,
        "failed_at": msgspec.to_builtins(letter.failed_at),
        "reason": "timeout",
        "error": {"type": "ValueError", "message": "no"},
        "obstacle": None,
    }
    assert round(letter.failed_at.timestamp() * 1000) == failed_at_ms


async def test_traceback_is_told_where_it_is_asked_for(store: AegisRedis, dead_letters: DeadLetters) -> None:
    await bury(store, "a")
    (letter,) = [letter async for letter in dead_letters.letters(ALL, with_traceback=True)]
    assert letter.traceback == "Traceback …"


async def test_letters_of_all_queues_come_newest_first(store: AegisRedis, dead_letters: DeadLetters) -> None:
    for number in range(250):
        queue = ("load_test", "system")[number % 2]
        await bury(store, f"{number:03}", age_s=number, queue=queue)
    assert await listed_ids(dead_letters) == [f"{number:03}" for number in range(250)]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (DeadFilter(queue="load_test"), ["new", "odd", "old"]),
        (DeadFilter(queue="system"), ["other"]),
        (DeadFilter(task="send"), ["new", "other", "old"]),
        (DeadFilter(error_type="KeyError"), ["odd"]),
        (DeadFilter(older_than_s=3600), ["old"]),
        (DeadFilter(newer_than_s=3600), ["new", "odd", "other"]),
        (DeadFilter(older_than_s=50, newer_than_s=3600), ["odd", "other"]),
        (DeadFilter(ids=["old", "nobody", "other", "old"]), ["other", "old"]),
        (DeadFilter(ids=["old", "other"], queue="load_test", older_than_s=60), ["old"]),
        (DeadFilter(task="send", error_type="KeyError"), []),
        (DeadFilter(ids=[]), []),
        (DeadFilter(task=""), []),
    ],
)
async def test_filter_chooses(
    store: AegisRedis, dead_letters: DeadLetters, wanted: DeadFilter, found: list[str]
) -> None:
    await bury(store, "new")
    await bury(store, "odd", task="receive", error="KeyError", age_s=100)
    await bury(store, "other", queue="system", age_s=200)
    await bury(store, "old", age_s=7200)
    assert await listed_ids(dead_letters, wanted) == found


async def test_unknown_queue_is_refused(dead_letters: DeadLetters) -> None:
    with pytest.raises(InvalidQueueType):
        await listed(dead_letters, DeadFilter(queue="nothing"))


async def test_letter_that_has_expired_is_not_there(store: AegisRedis, dead_letters: DeadLetters) -> None:
    await bury(store, "a")
    await store.delete(keys.dead_letter("load_test", "a"))
    assert await listed(dead_letters) == []
    assert await handled(dead_letters.retry(ALL)) == []
    assert await handled(dead_letters.purge(ALL)) == []
    assert await store.keys() == [DEAD.encode()]


async def paged(dead_letters: DeadLetters, wanted: DeadFilter, *, limit: int) -> AsyncIterator[list[str]]:
    cursor: str | None = ""
    while cursor is not None:
        letters, cursor = await dead_letters.page(wanted, cursor=cursor, limit=limit)
        yield [letter.task_id for letter in letters]


async def test_pages_go_through_all_queues_newest_first(store: AegisRedis, dead_letters: DeadLetters) -> None:
    await bury(store, "a", "b", "c", queue="system", age_s=10)
    await bury(store, "d", "e", age_s=20)
    await bury(store, "f", age_s=0)
    assert [page async for page in paged(dead_letters, ALL, limit=4)] == [["f", "c", "b", "a"], ["e", "d"]]
    assert [page async for page in paged(dead_letters, DeadFilter(queue="system"), limit=3)] == [["c", "b", "a"]]
    ids = ["d", "a", "f", "nope"]
    assert [page async for page in paged(dead_letters, DeadFilter(ids=ids), limit=2)] == [["f", "a"], ["d"]]


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
async def test_letter_that_stays_is_in_one_page_whatever_comes_and_goes(
    store: AegisRedis, dead_letters: DeadLetters, limit: int
) -> None:
    """Also among many that failed in the same ms."""
    staying = {f"{number:03}" for number in range(0, 250, 2)}
    seconds, _ = await store.time()
    await store.zadd(DEAD, {f"{number:03}": seconds * 1000 - 5000 for number in range(250)})
    await store.mset({keys.dead_letter("load_test", f"{n:03}"): letter_of(f"{n:03}") for n in range(250)})
    found: list[str] = []
    going = sorted({f"{number:03}" for number in range(250)} - staying)
    async for page in paged(dead_letters, ALL, limit=limit):
        found += page
        await bury(store, f"new-{len(found)}")
        for job_id in going[:3]:
            await store.zrem(DEAD, job_id)
        del going[:3]
    assert len(found) == len(set(found))
    assert set(found) >= staying


async def test_page_after_many_letters_that_are_not_meant_is_empty_and_goes_on(
    store: AegisRedis, dead_letters: DeadLetters
) -> None:
    await bury(store, "wanted", task="receive", age_s=60)
    await store.zadd(DEAD, {f"{number:04}": 10**12 + number for number in range(1500)})
    await store.mset({keys.dead_letter("load_test", f"{n:04}"): letter_of(f"{n:04}") for n in range(1500)})
    wanted = DeadFilter(task="send", error_type="KeyError")
    assert [page async for page in paged(dead_letters, wanted, limit=10)] == [[], []]
    assert [p async for p in paged(dead_letters, DeadFilter(task="receive"), limit=10)] == [["wanted"], []]


@pytest.mark.parametrize("cursor", ["x", "!", "é", "bnVsbA", "W10", "WzEsMiwzXQ", HUGE, "a" * 5000])
async def test_cursor_of_nobody_is_refused(dead_letters: DeadLetters, cursor: str) -> None:
    for ask in (dead_letters.page(ALL, cursor=cursor, limit=1), dead_letters.retry_some(ALL, cursor=cursor)):
        with pytest.raises(InvalidRequest) as refused:
            await ask
        assert refused.value.path == "cursor"


# --- retry and purge ------------------------------------------------------------------------------


async def test_retried_job_has_the_arguments_and_further_keys_it_had(
    store: AegisRedis, dead_letters: DeadLetters
) -> None:
    given = b'"a":[12345678901234567890123,"\\u00e9"],"k":{"x":2.50},"by":{"id":7},"et":3'
    await bury(store, "a", body=given)
    assert await verdicts(dead_letters.retry(ALL)) == {"a": "requeued"}
    raw = await store.get(keys.job("a"))
    assert raw is not None
    before, et, after = raw.partition(b'"et":')
    assert before + et == b'{"t":null,"f":"send",' + given[:-1]
    assert decode_job(raw).et == await store.zscore(QUEUE, "a")
    assert after.endswith(b"}")


async def test_retry_by_filter_goes_through_all_and_tells_how_far_it_is(
    store: AegisRedis, dead_letters: DeadLetters
) -> None:
    await bury(store, *(f"{number:03}" for number in range(230)))
    await bury(store, "other", task="receive")
    steps = [step async for step in dead_letters.retry(DeadFilter(task="send"))]
    assert [(step.done, step.total) for step in steps] == [(100, 231), (200, 231), (231, 231)]
    assert await store.zcard(QUEUE) == 230
    assert await listed_ids(dead_letters) == ["other"]


async def test_two_retries_at_once_requeue_each_job_once(store: AegisRedis, dead_letters: DeadLetters) -> None:
    ids = {f"{number:03}" for number in range(200)}
    await bury(store, *ids)
    both = await asyncio.gather(handled(dead_letters.retry(ALL)), handled(dead_letters.retry(ALL)))
    requeued = [one.task_id for answers in both for one in answers if one.verdict == "requeued"]
    assert sorted(requeued) == sorted(ids)
    assert {one.verdict for answers in both for one in answers} <= {"requeued", "gone"}
    events = await EventStream(store).history()
    assert sorted(event.job_id for event in events) == sorted(ids)


@pytest.mark.parametrize(("how", "verdict"), [(DeadLetters.retry_some, "requeued"), (DeadLetters.purge_some, "purged")])
async def test_step_by_step_only_letters_of_the_beginning_are_handled(
    store: AegisRedis, dead_letters: DeadLetters, how: Any, verdict: str
) -> None:
    """Some cannot be handled and stay, and one that was handled comes back."""
    ids = {f"{number:04}" for number in range(2200)}
    seconds, _ = await store.time()
    await store.zadd(DEAD, {job_id: (seconds - 60) * 1000 + int(job_id) for job_id in ids})
    await store.mset({keys.dead_letter("load_test", job_id): letter_of(job_id) for job_id in ids})
    steps: list[Step] = []
    cursor: str | None = ""
    while cursor is not None:
        step, cursor = await how(dead_letters, ALL, cursor=cursor)
        steps.append(step)
        await store.delete(keys.job("0000"))
        await store.zrem(QUEUE, "0000")
        await bury(store, "0000")
    assert [(step.done, step.total) for step in steps] == [(1000, 2200), (2000, 2200), (2200, 2200)]
    assert sorted(one.task_id for step in steps for one in step.handled) == sorted(ids)
    assert {one.verdict for step in steps for one in step.handled} == {verdict}
    assert await listed_ids(dead_letters) == ["0000"]


@pytest.mark.parametrize("how", [DeadLetters.retry, DeadLetters.purge])
async def test_letters_that_change_meanwhile_are_left(
    store: AegisRedis, dead_letters: DeadLetters, how: Callable[[DeadLetters, DeadFilter], AsyncIterator[Step]]
) -> None:
    await bury(store, *(f"{number:03}" for number in range(150)), age_s=10)
    steps = how(dead_letters, ALL)
    assert len((await anext(steps)).handled) == 100
    expired, failed_again, *_ = left = await listed_ids(dead_letters)
    await store.delete(keys.dead_letter("load_test", expired))
    await bury(store, failed_again)
    answers = await verdicts(steps)
    assert answers.keys() == set(left) - {expired, failed_again}
    assert "gone" not in answers.values()
    assert await listed_ids(dead_letters) == [failed_again]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "<unknown>", "reason": "undecodable"}, "its payload could not be read"),
        ({"raw": b"\x80pickle"}, "its payload could not be read"),
        ({"body": b'"a":[],"k":{},"et":3,"lossy":true'}, "its arguments were not JSON"),
    ],
)
async def test_letter_that_says_too_little_cannot_be_run_again(
    store: AegisRedis, dead_letters: DeadLetters, changes: dict[str, Any], told: str
) -> None:
    await bury(store, "a", **changes)
    (letter,) = await listed(dead_letters)
    assert letter.obstacle is not None
    assert told in letter.obstacle
    (answer,) = await handled(dead_letters.retry(ALL))
    assert (answer.verdict, answer.message) == ("unreadable", letter.obstacle)
    with pytest.raises(RetryRefused, match=told):
        await dead_letters.retry_one("a")
    assert await verdicts(dead_letters.purge(ALL)) == {"a": "purged"}
    assert await store.keys() == []


async def test_letter_of_a_queue_with_a_serializer_of_its_own_cannot_be_run_again(
    store: AegisRedis, scripts: Scripts
) -> None:
    settings = type("WorkerSettings", (), {"queue_name": QUEUE, "functions": [], "job_serializer": repr})
    await bury(store, "a")
    (answer,) = await handled(DeadLetters(store, Catalog([read_queue(settings, "own")]), scripts).retry(ALL))
    assert "serializer of their own" in answer.message


async def test_purge_removes_letters_and_leaves_results(store: AegisRedis, dead_letters: DeadLetters) -> None:
    await bury(store, "a", "b")
    await bury(store, "c", queue="system")
    await store.set(keys.result("a"), letter_of("a"), px=60_000)
    assert await verdicts(dead_letters.purge(DeadFilter(ids=["a", "c", "nobody"]))) == {"a": "purged", "c": "purged"}
    assert await listed_ids(dead_letters) == ["b"]
    assert await store.exists(keys.result("a"))
    assert not await store.exists(keys.EVENTS)


# --- one job --------------------------------------------------------------------------------------


async def test_one_job_is_retried_from_its_letter(store: AegisRedis, dead_letters: DeadLetters) -> None:
    await bury(store, "a")
    assert await dead_letters.retry_one("a") == "load_test"
    with pytest.raises(RetryRefused, match="'a' is queued already"):
        await dead_letters.retry_one("a")
    assert await store.xlen(keys.EVENTS) == 1


@pytest.mark.parametrize("has_old_letter", [False, True])
async def test_one_job_is_retried_from_its_result_where_its_failure_left_no_letter(
    store: AegisRedis, dead_letters: DeadLetters, has_old_letter: bool
) -> None:
    if has_old_letter:
        await bury(store, "a", age_s=100)
    result = letter_of("a", body=b'"a":[2],"k":{},"et":3').replace(b'"ft":9', b'"ft":10')
    await store.set(keys.result("a"), result, px=60_000)
    assert await dead_letters.retry_one("a") == "load_test"
    raw = await store.get(keys.job("a"))
    assert raw is not None
    assert decode_job(raw).a == [2]
    assert not await store.exists(keys.result("a"), DEAD, keys.dead_letter("load_test", "a"))


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"s": True, "r": 1}, "has succeeded"),
        ({"r": {"type": "CancelledError", "message": ""}}, "was aborted"),
        ({"q": "arq:queue:elsewhere"}, "its queue is not among AEGIS_QUEUES"),
        ({"f": "<unknown>"}, "cannot be run again: its payload could not be read"),
    ],
)
async def test_one_job_that_cannot_be_retried_is_told_by_its_state(
    store: AegisRedis, dead_letters: DeadLetters, result: dict[str, Any], told: str
) -> None:
    await store.set(keys.result("a"), msgspec.json.encode(msgspec.json.decode(letter_of("a")) | result), px=60_000)
    before = await everything(store)
    with pytest.raises(RetryRefused, match=told):
        await dead_letters.retry_one("a")
    assert await everything(store) == before


@pytest.mark.parametrize(("state", "told"), [("deferred", "is deferred"), ("in_progress", "is running")])
async def test_one_job_that_lives_is_told_by_its_state(
    store: AegisRedis, dead_letters: DeadLetters, scripts: Scripts, state: str, told: str
) -> None:
    body = job_body("send", [], {})
    await bury(store, "a")
    await scripts.enqueue(
        [NewJob(job_id="a", task="send", queue="load_test", queue_key=QUEUE, body=body, delay_ms=60_000)]
    )
    if state == "in_progress":
        await store.set(keys.in_progress("a"), b"w:1", px=60_000)
    with pytest.raises(RetryRefused, match=told):
        await dead_letters.retry_one("a")


async def test_one_job_of_which_nothing_is_known(dead_letters: DeadLetters) -> None:
    with pytest.raises(JobNotFound):
        await dead_letters.retry_one("a")
