from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.event_stream import EventStream
from bridge.events import ErrorSummary, JobEnqueued, JobFailed
from bridge.new_job import job_body
from bridge.scripts import Heartbeat, NewEvent, NewJob, Scripts

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
    _, (depth,) = await scripts.depths([("mail", QUEUE)])
    assert (depth.queued, depth.in_progress, depth.deferred) == (1, 1, 1)
    assert 0 <= depth.oldest_age_ms < 10_000


@pytest.mark.parametrize("soon", [0, 500, 3000])
async def test_depth_is_exact_whatever_the_size_of_the_queue(store: AegisRedis, scripts: Scripts, soon: int) -> None:
    """Also where leases, two to a ms, are hidden among jobs that are due soon."""
    await store.zadd(QUEUE, {f"due-{n}": n + 1 for n in range(1500)})
    await store.mset({keys.in_progress(f"due-{n}"): b"1" for n in range(1200)})
    seconds, _ = await store.time()
    leases = {f"leased-{n}": (seconds + 8) * 1000 + n // 2 + 0.5 for n in range(2000)}
    await store.zadd(QUEUE, leases | {f"soon-{n}": (seconds + 8) * 1000 + n for n in range(soon)})

    _, (depth,) = await scripts.depths([("mail", QUEUE)])

    assert (depth.queued, depth.in_progress, depth.deferred) == (300, 3200, soon)
    assert depth.oldest_age_ms // 1000 == pytest.approx(seconds, abs=5)


async def test_depths_of_all_queues_are_of_one_instant(store: AegisRedis, scripts: Scripts) -> None:
    event_id, _ = await scripts.depths([("mail", QUEUE)])
    assert event_id == "0-0"
    await scripts.enqueue([new_job("a")])
    await store.zadd(keys.dead("mail"), {"b": 1, "c": 2})
    await scripts.pause("other", is_paused=True)
    for worker, queue in (("vm:1:a", "mail"), ("vm:2:b", "mail"), ("vm:3:c", "other")):
        await scripts.heartbeat(worker, Heartbeat("vm", 1, queue, 10, "BatchWorker", 0, 0, 0, 0))
    await store.zadd(keys.WORKERS, {"vm:2:b": 1})  # silent since 1970
    await store.set(keys.health_check(QUEUE), "alive", px=5000)

    event_id, (mail, other) = await scripts.depths([("mail", QUEUE), ("other", keys.queue("other"))])

    assert event_id == await EventStream(store).last_id()
    assert (mail.queued, mail.dead, mail.workers, mail.is_paused, mail.health) == (1, 2, 1, False, "alive")
    assert (other.queued, other.dead, other.workers, other.is_paused, other.health) == (0, 0, 1, True, None)


async def test_depth_of_an_empty_queue_is_nothing(scripts: Scripts) -> None:
    _, (depth,) = await scripts.depths([("mail", QUEUE)])
    assert (depth.queued, depth.in_progress, depth.deferred, depth.oldest_age_ms) == (0, 0, 0, 0)
