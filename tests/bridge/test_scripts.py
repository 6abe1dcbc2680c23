from typing import Any

import msgspec
import pytest
from redis.exceptions import NoScriptError, ResponseError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.event_stream import EventStream
from bridge.events import ErrorSummary, JobEnqueued, JobFailed
from bridge.new_job import job_body
from bridge.scripts import NewEvent, NewJob, Scripts

QUEUE = keys.queue("mail")


def new_job(job_id: str, **changes: Any) -> NewJob:
    return NewJob(job_id=job_id, task="send", queue="mail", queue_key=QUEUE, body=job_body("send", [1], {}), **changes)


async def wake_ups(store: AegisRedis) -> int:
    waiting: Any = store.llen(keys.wake("mail"))
    return int(await waiting)


async def everything(store: AegisRedis) -> dict[str, bytes | None]:
    return {key.decode(): await store.dump(key) for key in await store.keys()}


async def test_enqueue_writes_body_score_event_and_wake_up(store: AegisRedis, scripts: Scripts) -> None:
    now_ms, (event_id,) = await scripts.enqueue([new_job("a")])

    assert await store.get(keys.job("a")) == b'{"t":null,"f":"send","a":[1],"k":{},"et":%d}' % now_ms
    assert await store.ttl(keys.job("a")) == -1
    assert await store.zscore(QUEUE, "a") == now_ms
    assert await wake_ups(store) == 1
    (event,) = await EventStream(store).history()
    assert event.id == event_id
    assert (event.kind, event.job_id, event.queue, event.task) == ("job.enqueued", "a", "mail", "send")
    assert (event.attempt, event.at_ms) == (0, now_ms)
    assert event.read_data() == JobEnqueued(due_at_ms=now_ms)


async def test_enqueue_defers_a_job_that_is_due_later(store: AegisRedis, scripts: Scripts) -> None:
    now_ms, _ = await scripts.enqueue([new_job("a", delay_ms=5000), new_job("b", due_at_ms=1)])

    assert await store.zscore(QUEUE, "a") == now_ms + 5000
    assert await store.zscore(QUEUE, "b") == now_ms, "an instant in the past means now"
    kinds = [event.kind for event in await EventStream(store).history()]
    assert kinds == ["job.deferred", "job.enqueued"]


async def test_later_of_delay_and_instant_counts(store: AegisRedis, scripts: Scripts) -> None:
    now_ms, _ = await scripts.enqueue([new_job("a")])
    await scripts.enqueue([new_job("b", delay_ms=1000, due_at_ms=now_ms + 90_000)])
    assert await store.zscore(QUEUE, "b") == now_ms + 90_000


async def test_enqueue_gives_the_body_the_callers_expiry(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("a", expires_ms=60_000)])
    assert 50_000 < await store.pttl(keys.job("a")) <= 60_000


@pytest.mark.parametrize("taken", [keys.job("a"), keys.result("a")])
async def test_enqueue_leaves_a_taken_id_alone(store: AegisRedis, scripts: Scripts, taken: str) -> None:
    await store.set(taken, b"there before", px=60_000)
    before = await everything(store)
    _, event_ids = await scripts.enqueue([new_job("a")])
    assert event_ids == [""]
    assert await everything(store) == before


async def test_enqueue_of_a_batch_takes_each_id_once(store: AegisRedis, scripts: Scripts) -> None:
    _, event_ids = await scripts.enqueue([new_job("a"), new_job("b"), new_job("a")])
    assert [bool(event_id) for event_id in event_ids] == [True, True, False]
    assert await store.zcard(QUEUE) == 2
    assert await store.xlen(keys.EVENTS) == 2


async def test_enqueue_leaves_one_wake_up_that_nobody_takes(store: AegisRedis, scripts: Scripts) -> None:
    for number in range(3):
        await scripts.enqueue([new_job(str(number))])
    assert await wake_ups(store) == 1


@pytest.mark.parametrize("key", [keys.EVENTS, QUEUE, keys.wake("mail")])
async def test_enqueue_writes_nothing_when_a_key_has_another_type(
    store: AegisRedis, scripts: Scripts, key: str
) -> None:
    await store.set(key, b"something else", px=60_000)
    before = await everything(store)
    with pytest.raises(ResponseError, match=key):
        await scripts.enqueue([new_job("a")])
    assert await everything(store) == before


async def test_enqueue_refuses_half_a_job(store: AegisRedis, scripts: Scripts) -> None:
    with pytest.raises(ResponseError, match="whole number"):
        await scripts._enqueue(args=[1000, "", 1, "id", "task"])
    assert await store.dbsize() == 0


async def test_enqueue_refuses_a_time_that_is_no_number(store: AegisRedis, scripts: Scripts) -> None:
    with pytest.raises(ResponseError, match="a time of job 1 is not a number"):
        await scripts._enqueue(args=[1000, "", 1, "id", "task", "mail", QUEUE, "{", "}", "soon", 0, 0])
    assert await store.dbsize() == 0


async def test_script_is_loaded_again_when_the_server_forgot_it(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("a")])
    await store.script_flush()
    with pytest.raises(NoScriptError):
        await store.execute_command("EVALSHA", scripts._enqueue.sha, 0)  # type: ignore[no-untyped-call]
    _, (event_id,) = await scripts.enqueue([new_job("b")])
    assert event_id


async def test_event_stream_exceeds_its_cap_by_no_more_than_a_batch(store: AegisRedis) -> None:
    scripts = Scripts(store, events_max_len=100)
    for batch in range(5):
        await scripts.enqueue([new_job(f"{batch}-{number}") for number in range(300)])
    assert 300 < await store.xlen(keys.EVENTS) < 300 + 100 + 100


async def test_report_writes_the_events_and_nothing_else(store: AegisRedis, scripts: Scripts) -> None:
    failed = JobFailed(reason="error", error=ErrorSummary(type="ValueError", message="no"), ran_ms=5)
    given = NewEvent(data=failed, job_id="a", queue="mail", task="send", attempt=2, worker="w", trace="00-1")
    (event_id,) = await scripts.report([given])

    (event,) = await EventStream(store).history()
    assert event.id == event_id
    assert (event.kind, event.job_id, event.queue, event.task) == ("job.failed", "a", "mail", "send")
    assert (event.attempt, event.worker, event.trace) == (2, "w", "00-1")
    assert event.read_data() == failed
    assert await store.keys() == [keys.EVENTS.encode()]


async def test_optional_fields_are_left_out_of_the_entry(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("a")])
    ((_, fields),) = await store.xrange(keys.EVENTS)
    assert set(fields) == {b"kind", b"job_id", b"queue", b"task", b"attempt", b"at_ms", b"data"}


async def test_depth_counts_jobs_by_state(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("queued"), new_job("running"), new_job("later", delay_ms=60_000)])
    await store.set(keys.in_progress("running"), b"1", px=60_000)
    depth = await scripts.depth(QUEUE)
    assert (depth.queued, depth.in_progress, depth.deferred) == (1, 1, 1)
    assert 0 <= depth.oldest_age_ms < 10_000


async def test_depth_of_an_empty_queue_is_nothing(scripts: Scripts) -> None:
    depth = await scripts.depth(QUEUE)
    assert (depth.queued, depth.in_progress, depth.deferred, depth.oldest_age_ms) == (0, 0, 0, 0)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def keyed(job_id: str, fingerprint: str = "a" * 32, *, key: str = "k", caller: str = "ann") -> NewJob:
    return new_job(job_id, record_key=keys.idempotency(caller, key), fingerprint=fingerprint)


async def test_enqueue_writes_the_trace_that_the_body_ends_with_into_the_event(
    store: AegisRedis, scripts: Scripts
) -> None:
    asked = {"timeout_s": 2.5, "max_tries": 7, "trace": TRACE}
    body = job_body("send", [{"trace": "no"}], {}, asked=asked)
    now_ms, _ = await scripts.enqueue([new_job("a"), msgspec.structs.replace(new_job("b"), body=body)])

    raw = await store.get(keys.job("b"))
    assert raw is not None
    assert raw.endswith(b'"et":%d,"timeout_s":2.5,"max_tries":7,"trace":"%b"}' % (now_ms, TRACE.encode()))
    assert [event.trace for event in await EventStream(store).history()] == ["", TRACE]


async def test_second_request_with_a_key_stores_nothing_and_learns_of_the_first(
    store: AegisRedis, scripts: Scripts
) -> None:
    now_ms, (event_id,) = await scripts.enqueue([keyed("a")])
    record_key = keys.idempotency("ann", "k")
    assert 0 < await store.pttl(record_key) <= keys.IDEMPOTENCY_TTL_MS
    before = await everything(store)
    _, told = await scripts.enqueue([keyed("b"), keyed("c", "b" * 32)])
    assert told == [f"again {now_ms} {event_id} a", "reused"]
    assert await everything(store) == before


async def test_key_counts_within_a_call_too(store: AegisRedis, scripts: Scripts) -> None:
    now_ms, (event_id, *told) = await scripts.enqueue([keyed("a"), keyed("b"), keyed("c", "b" * 32), new_job("d")])
    assert told[:2] == [f"again {now_ms} {event_id} a", "reused"]
    assert await store.zrange(QUEUE, 0, -1) == [b"a", b"d"]


async def test_request_that_stored_nothing_leaves_no_record(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("a")])
    assert (await scripts.enqueue([keyed("a")]))[1] == [""]
    assert not await store.exists(keys.idempotency("ann", "k"))


async def test_keys_of_other_callers_are_other_keys(store: AegisRedis, scripts: Scripts) -> None:
    pairs = [("ann", "k"), ("bob", "k"), ("ann:k", "x"), ("ann", "k:x"), ("ann%3Ak", "x"), ("", "ann:k:x")]
    jobs = [keyed(f"job-{number}", key=key, caller=caller) for number, (caller, key) in enumerate(pairs)]
    _, told = await scripts.enqueue(jobs)
    assert all(event_id[0].isdigit() for event_id in told), told


async def test_record_of_another_type_is_as_good_as_none(store: AegisRedis, scripts: Scripts) -> None:
    await store.rpush(keys.idempotency("ann", "k"), "odd")  # type: ignore[misc]
    now_ms, (event_id,) = await scripts.enqueue([keyed("a")])
    assert (await scripts.enqueue([keyed("b")]))[1] == [f"again {now_ms} {event_id} a"]


async def test_enqueue_refuses_a_key_of_no_job(store: AegisRedis, scripts: Scripts) -> None:
    with pytest.raises(ResponseError, match="key of no job"):
        await scripts._enqueue(
            args=[1000, "", 1, "id", "task", "mail", QUEUE, "{", "}", 0, 0, 0, 2, keys.idempotency("a", "b"), "f"]
        )
    assert await store.dbsize() == 0
