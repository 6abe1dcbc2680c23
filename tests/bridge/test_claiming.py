"""The three scripts of a job's run: claim, finish, renew."""

from typing import Any

import msgspec
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.codec import decode_job
from bridge.event_stream import EventStream
from bridge.events import JobStarted
from bridge.new_job import job_body
from bridge.scripts import Claims, Ending, NewJob, NewProgress, Scripts
from bridge.verifier import Verifier

QUEUE = keys.queue("mail")
TRIES = msgspec.json.encode({"": 3, "once": 1})


async def enqueue(scripts: Scripts, *job_ids: str, task: str = "send", **changes: Any) -> None:
    body = job_body(task, [1], {})
    await scripts.enqueue(
        [NewJob(job_id=j, task=task, queue="mail", queue_key=QUEUE, body=body, **changes) for j in job_ids]
    )


async def claim(
    scripts: Scripts, *, wanted: int = 10, token: str = "w:1", ahead_ms: int = 2000, valid_until_ms: int = 0
) -> Claims:
    return await scripts.claim(
        "mail",
        QUEUE,
        worker="w",
        token=token,
        wanted=wanted,
        ahead_ms=ahead_ms,
        most_tries=TRIES,
        heeds_aborts=True,
        valid_until_ms=valid_until_ms,
    )


def ending(job_id: str, **changes: Any) -> Ending:
    succeeded = Ending(
        job_id=job_id,
        token="w:1",
        kind="job.succeeded",
        task="send",
        attempt=1,
        data=b'{"ran_ms":1,"queued_ms":0,"result":null}',
        result=b"stored",
        number=60_000,
        extra=b"",
        wait_bucket=0,
        run_bucket=1,
    )
    return succeeded._replace(**changes)


async def finish(scripts: Scripts, *endings: Ending) -> list[int]:
    return await scripts.finish("mail", QUEUE, worker="w", endings=endings)


def ids(claims: Claims) -> list[str]:
    return [job_id.decode() for job_id in claims.jobs[::5]]


def verdicts(claims: Claims) -> list[str]:
    return [verdict.decode() for verdict in claims.jobs[4::5]]


async def lose_lease(store: AegisRedis, job_id: str) -> None:
    """What time does to a job whose worker is gone: the mark expires and the lease is over."""
    await store.delete(keys.in_progress(job_id))
    score = await store.zscore(QUEUE, job_id)
    assert score is not None
    await store.zadd(QUEUE, {job_id: score - keys.LEASE_MS - 1})


async def kinds(store: AegisRedis, job_id: str) -> list[str]:
    events = await EventStream(store).history()
    return [event.kind.removeprefix("job.") for event in events if event.job_id == job_id]


async def test_claim_takes_due_jobs_in_order_with_token_lease_and_event(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a", "b", "c")
    claims = await claim(scripts, wanted=2)

    assert ids(claims) == ["a", "b"]
    assert verdicts(claims) == ["run", "run"]
    assert decode_job(claims.jobs[1]).f == "send"
    assert claims.jobs[2] == 1, "the first attempt"
    assert await store.get(keys.in_progress("a")) == b"w:1"
    assert 0 < await store.pttl(keys.in_progress("a")) <= keys.LEASE_MS
    assert await store.zscore(QUEUE, "a") == claims.now_ms + keys.LEASE_MS + 0.5
    event = (await EventStream(store).history())[-2]
    assert (event.kind, event.job_id, event.task, event.attempt, event.worker) == ("job.started", "a", "send", 1, "w")


async def test_claim_passes_over_jobs_of_stock_workers_however_many(store: AegisRedis, scripts: Scripts) -> None:
    taken = [f"{number:04}" for number in range(1500)]
    await enqueue(scripts, *taken)
    for job_id in taken:
        await store.set(keys.in_progress(job_id), b"1", px=60_000)
    await enqueue(scripts, "zz")
    assert ids(await claim(scripts)) == ["zz"]
    assert await store.get(keys.in_progress("0000")) == b"1"


async def test_claim_that_comes_too_late_takes_nothing(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    now_ms = (await claim(scripts, wanted=0)).now_ms
    assert ids(await claim(scripts, valid_until_ms=now_ms - 1)) == []
    assert ids(await claim(scripts, valid_until_ms=now_ms + 60_000)) == ["a"]


@pytest.mark.parametrize("score", ["-inf", "-1e300", "-5", "0", "0.5", "1e-7", "123.25"])
async def test_job_with_a_score_of_another_program_runs_like_any_other(
    store: AegisRedis, scripts: Scripts, score: str
) -> None:
    await enqueue(scripts, "a", "b")
    await store.execute_command("ZADD", QUEUE, score, "a")  # type: ignore[no-untyped-call]
    claims = await claim(scripts)
    assert ids(claims) == ["a", "b"]
    assert claims.jobs[3].isdigit()
    (started,) = [e for e in await EventStream(store).history() if (e.kind, e.job_id) == ("job.started", "a")]
    started.read_data()


async def test_second_claim_gets_none_of_the_first(scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await claim(scripts)
    assert ids(await claim(scripts, token="w:2")) == []


async def test_claim_tells_when_the_next_job_is_due(scripts: Scripts) -> None:
    await enqueue(scripts, "soon", delay_ms=1500)
    await enqueue(scripts, "late", delay_ms=60_000)
    claims = await claim(scripts)
    assert ids(claims) == []
    assert 1000 < claims.next_due_ms - claims.now_ms <= 1500
    assert (await claim(scripts, ahead_ms=100)).next_due_ms == 0


@pytest.mark.parametrize("rest", [{}, {"delay_ms": 1000}])
async def test_claim_that_leaves_work_wakes_another_worker(
    store: AegisRedis, scripts: Scripts, rest: dict[str, Any]
) -> None:
    await enqueue(scripts, "a")
    await enqueue(scripts, "b", **rest)
    await store.delete(keys.wake("mail"))
    await claim(scripts, wanted=1)
    assert await store.exists(keys.wake("mail"))
    await store.delete(keys.wake("mail"))
    await claim(scripts, wanted=5, token="w:2")
    assert not await store.exists(keys.wake("mail")), "this caller looks again by itself"


async def test_paused_queue_gives_nothing(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await store.set(keys.PAUSED_PREFIX + "mail", b"1")
    assert ids(await claim(scripts)) == []


async def test_lost_job_is_retried_as_stalled_and_spends_an_attempt(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await claim(scripts)
    await lose_lease(store, "a")
    claims = await claim(scripts, token="w:2")
    assert (claims.jobs[2], verdicts(claims)) == (2, ["run"])
    assert await kinds(store, "a") == ["enqueued", "started", "retrying", "started"]


@pytest.mark.parametrize(("task", "tries"), [("send", 3), ("once", 1)])
async def test_job_that_loses_every_worker_is_exhausted(
    store: AegisRedis, scripts: Scripts, task: str, tries: int
) -> None:
    await enqueue(scripts, "a", task=task)
    for number in range(tries):
        assert verdicts(await claim(scripts, token=f"w:{number}")) == ["run"]
        await lose_lease(store, "a")
    assert verdicts(await claim(scripts)) == ["exhausted"]
    assert (await kinds(store, "a"))[-1] == "started", "nothing says that another attempt follows"


async def test_job_without_body_is_expired(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await store.delete(keys.job("a"))
    assert verdicts(await claim(scripts)) == ["expired"]
    assert await kinds(store, "a") == ["enqueued"]


async def test_id_of_a_running_job_is_taken_even_if_its_body_has_expired(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await claim(scripts)
    await store.delete(keys.job("a"))
    await enqueue(scripts, "a", "b")
    assert await finish(scripts, ending("a")) == [1]
    assert await kinds(store, "a") == ["enqueued", "started", "succeeded"]
    assert await kinds(store, "b") == ["enqueued"]


async def test_enqueue_ends_a_waiting_job_of_its_id_whose_body_has_expired(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a", "b")
    await store.delete(keys.job("a"))
    await enqueue(scripts, "a", "c")
    assert await kinds(store, "a") == ["enqueued", "failed", "enqueued"]
    assert (await kinds(store, "b"), await kinds(store, "c")) == (["enqueued"], ["enqueued"])
    claims = await claim(scripts)
    assert sorted(ids(claims)) == ["a", "b", "c"]
    assert set(claims.jobs[2::5]) == {1}
    assert (await Verifier(store, Catalog([])).verify()).findings == []


async def test_mark_that_a_stock_worker_left_does_not_take_the_id(store: AegisRedis, scripts: Scripts) -> None:
    await store.set(keys.in_progress("a"), "1")
    await store.zadd(keys.in_progress("b"), {"of another type": 1})
    await enqueue(scripts, "a", "b")
    assert await store.exists(keys.job("a"), keys.job("b")) == 2


async def test_abort_of_arqs_client_ends_the_job_before_it_starts(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await store.zadd(keys.ABORT, {"a": 9e12})
    assert verdicts(await claim(scripts)) == ["aborted"]
    assert not await store.exists(keys.ABORT)


async def test_abort_of_an_earlier_job_of_the_same_id_is_stale(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await store.zadd(keys.ABORT, {"a": 1000})
    assert verdicts(await claim(scripts)) == ["run"]


async def test_enqueue_forgets_an_abort_that_came_too_late(store: AegisRedis, scripts: Scripts) -> None:
    await store.zadd(keys.ABORT, {"a": 9e12})
    await enqueue(scripts, "a")
    assert verdicts(await claim(scripts)) == ["run"]


@pytest.mark.parametrize("count", [b"many", b"[]"])
async def test_attempt_count_that_is_no_number_starts_anew(store: AegisRedis, scripts: Scripts, count: bytes) -> None:
    await enqueue(scripts, "a")
    await store.set(keys.retry("a"), count)
    assert (await claim(scripts)).jobs[2] == 1


async def test_body_of_another_type_is_left_to_the_worker_to_refuse(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await store.delete(keys.job("a"))
    await store.hset(keys.job("a"), "f", "send")  # type: ignore[misc]
    claims = await claim(scripts)
    assert (claims.jobs[1], verdicts(claims)) == (b"", ["run"])


async def test_producers_own_try_counts(store: AegisRedis, scripts: Scripts) -> None:
    body = job_body("send", [], {}, job_try=3)
    await scripts.enqueue([NewJob(job_id="a", task="send", queue="mail", queue_key=QUEUE, body=body)])
    assert (await claim(scripts)).jobs[2] == 3
    assert await store.get(keys.retry("a")) == b"3"


async def test_finish_stores_the_result_and_leaves_nothing_else(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await claim(scripts)
    assert await finish(scripts, ending("a")) == [1]
    assert await store.get(keys.result("a")) == b"stored"
    assert 0 < await store.pttl(keys.result("a")) <= 60_000
    assert not await store.exists(keys.job("a"), keys.in_progress("a"), keys.retry("a"), QUEUE)
    assert await kinds(store, "a") == ["enqueued", "started", "succeeded"]


async def test_finish_keeps_a_result_for_ever_or_not_at_all(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a", "b")
    await claim(scripts)
    await finish(scripts, ending("a", number=0), ending("b", result=b""))
    assert await store.ttl(keys.result("a")) == -1
    assert not await store.exists(keys.result("b"))
    await store.delete(keys.result("a"))


async def test_finish_with_a_stale_token_writes_nothing(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a", "b")
    await claim(scripts)
    await lose_lease(store, "a")
    await claim(scripts, token="other:1")
    assert await finish(scripts, ending("a"), ending("b")) == [0, 1]
    assert await store.get(keys.in_progress("a")) == b"other:1"
    assert not await store.exists(keys.result("a"))
    assert (await kinds(store, "a"))[-1] == "started"


async def test_finished_job_cannot_be_finished_again(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await claim(scripts)
    assert await finish(scripts, ending("a"), ending("a")) == [1, 0]
    assert (await kinds(store, "a")).count("succeeded") == 1


async def test_retry_puts_the_job_back_and_wakes_a_worker(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    now_ms = (await claim(scripts)).now_ms
    await store.delete(keys.wake("mail"))
    await finish(scripts, ending("a", kind="job.retrying", data=b'{"reason":"retry"', number=5000))
    score = await store.zscore(QUEUE, "a")
    assert score is not None
    assert score >= now_ms + 5000
    assert score == int(score), "it is no lease"
    assert await store.exists(keys.wake("mail"))
    event = (await EventStream(store).history())[-1]
    assert (event.kind, msgspec.json.decode(event.data)) == ("job.retrying", {"reason": "retry", "due_at_ms": score})
    await store.zadd(QUEUE, {"a": 1})
    assert (await claim(scripts, token="w:2")).jobs[2] == 2
    assert await kinds(store, "a") == ["enqueued", "started", "retrying", "started"], "not stalled"


async def test_interrupted_job_keeps_its_place_and_its_attempt(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    due_ms = int((await claim(scripts)).jobs[3])
    back = ending("a", kind="job.retrying", data=b'{"reason":"interrupted"', number=due_ms, extra=b"interrupted")
    await finish(scripts, back)
    assert await store.zscore(QUEUE, "a") == due_ms
    claims = await claim(scripts, token="w:2")
    assert claims.jobs[2] == 1


async def test_failed_job_becomes_a_dead_letter(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a")
    await claim(scripts)
    await finish(scripts, ending("a", kind="job.failed", extra=b'{"why":1}'))
    assert await store.zrange(keys.DEAD_PREFIX + "mail", 0, -1) == [b"a"]
    letter = f"{keys.DEAD_PREFIX}mail:a"
    assert await store.get(letter) == b'{"why":1}'
    assert 0 < await store.pttl(letter) <= keys.DEAD_TTL_MS


async def test_dead_letters_are_bounded_by_age_and_number(store: AegisRedis, scripts: Scripts) -> None:
    dead = keys.DEAD_PREFIX + "mail"
    now_ms = (await claim(scripts)).now_ms
    await store.zadd(dead, {f"{n:05}": now_ms - 10 for n in range(keys.DEAD_MAX)})
    await store.zadd(dead, {"ancient": now_ms - keys.DEAD_TTL_MS - 1})
    await enqueue(scripts, "a")
    await claim(scripts)
    await finish(scripts, ending("a", kind="job.failed", extra=b"{}"))
    assert await store.zscore(dead, "ancient") is None
    assert await store.zscore(dead, "00000") is None
    assert await store.zscore(dead, "a") is not None
    assert await store.zcard(dead) == keys.DEAD_MAX


async def test_finish_counts_ends_and_times_of_the_minute(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a", "b", "c")
    await claim(scripts)
    never_ran = {"wait_bucket": "", "run_bucket": "", "kind": "job.aborted"}
    await finish(scripts, ending("a"), ending("b", run_bucket=7), ending("c", **never_ran))
    (key,) = [key async for key in store.scan_iter(match=keys.STATS_PREFIX + "mail:*")]
    counts: Any = store.hgetall(key)
    assert await counts == {
        b"job.succeeded": b"2", b"job.aborted": b"1", b"wait:0": b"2", b"run:1": b"1", b"run:7": b"1"
    }  # fmt: skip
    assert await store.pttl(key) > 0


async def test_renew_extends_what_is_ours_and_tells_what_is_not(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, "a", "b")
    await claim(scripts)
    await store.pexpire(keys.in_progress("a"), 500)
    await store.set(keys.in_progress("b"), b"other:1", px=500)
    score_of_b = await store.zscore(QUEUE, "b")
    assert await scripts.renew(QUEUE, [("a", "w:1"), ("b", "w:1"), ("gone", "w:1")]) == [1, 2]
    assert await store.pttl(keys.in_progress("a")) > 500
    assert await store.zscore(QUEUE, "b") == score_of_b
    assert await store.zscore(QUEUE, "gone") is None


@pytest.mark.parametrize("key", [QUEUE, keys.EVENTS, keys.ABORT, keys.wake("mail")])
async def test_key_of_another_type_stops_a_script_before_it_writes(
    store: AegisRedis, scripts: Scripts, key: str
) -> None:
    await enqueue(scripts, "a")
    await store.delete(key)
    await store.set(key, b"text", px=60_000)
    before = {name: await store.dump(name) for name in await store.keys()}
    with pytest.raises(Exception, match="WRONGTYPE"):
        await claim(scripts)
    with pytest.raises(Exception, match="WRONGTYPE"):
        await finish(scripts, ending("a"))
    assert {name: await store.dump(name) for name in await store.keys()} == before
    await store.delete(key)


async def test_claimed_jobs_count_as_in_progress(scripts: Scripts) -> None:
    await enqueue(scripts, "a", "b", "c")
    await enqueue(scripts, "later", delay_ms=5000)
    await claim(scripts, wanted=2)
    depth = await scripts.depth(QUEUE)
    assert (depth.queued, depth.in_progress, depth.deferred) == (1, 2, 1)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPOOF = '"et":1700000000000,"max_tries":99,"trace":"00-11111111111111111111111111111111-1111111111111111-01"}'


async def enqueue_asking(scripts: Scripts, job_id: str, kwargs: dict[str, Any] | None = None, **asked: Any) -> None:
    body = job_body("send", [1], kwargs or {}, asked=asked)
    await scripts.enqueue([NewJob(job_id=job_id, task="send", queue="mail", queue_key=QUEUE, body=body)])


async def traces(store: AegisRedis, job_id: str) -> set[str]:
    return {event.trace for event in await EventStream(store).history() if event.job_id == job_id}


@pytest.mark.parametrize("max_tries", [1, 2, 5])
async def test_number_of_tries_of_a_job_wins_over_its_tasks(
    store: AegisRedis, scripts: Scripts, max_tries: int
) -> None:
    await enqueue_asking(scripts, "a", max_tries=max_tries, timeout_s=0.25)
    for _ in range(max_tries):
        assert verdicts(await claim(scripts)) == ["run"]
        await lose_lease(store, "a")
    assert verdicts(await claim(scripts)) == ["exhausted"]


async def test_every_event_of_a_job_has_its_trace(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue_asking(scripts, "a", trace=TRACE)
    claims = await claim(scripts)
    await lose_lease(store, "a")
    await claim(scripts, token="w:2")
    report = NewProgress("a", "w:2", "send", 2, b'{"current":1}', TRACE)
    await scripts.progress("mail", worker="w", reports=[report])
    await scripts.finish(
        "mail", QUEUE, worker="w", endings=[ending("a", token="w:2")], traces={"a": TRACE, "b": "of another"}
    )
    assert await kinds(store, "a") == ["enqueued", "started", "retrying", "started", "progressed", "succeeded"]
    assert await traces(store, "a") == {TRACE}
    started = (await EventStream(store).history())[1].read_data()
    assert isinstance(started, JobStarted)
    assert started.enqueued_at_ms <= claims.now_ms


async def test_event_of_an_abort_has_the_jobs_trace(store: AegisRedis, scripts: Scripts) -> None:
    await enqueue_asking(scripts, "a", trace=TRACE)
    assert await scripts.abort("mail", QUEUE, "a", keep_result_ms=60_000) == "aborted"
    assert await kinds(store, "a") == ["enqueued", "aborted"]
    assert await traces(store, "a") == {TRACE}


@pytest.mark.parametrize(
    "kwargs", [{"text": SPOOF}, {"et": 1700000000000, "max_tries": 99, "trace": TRACE}, {SPOOF: 1}]
)
@pytest.mark.parametrize("asked", [{}, {"max_tries": 1}])
async def test_arguments_cannot_pass_for_what_was_asked(
    store: AegisRedis, scripts: Scripts, kwargs: dict[str, Any], asked: dict[str, Any]
) -> None:
    await enqueue_asking(scripts, "a", kwargs, **asked)
    for _ in range(asked.get("max_tries", 3)):
        assert verdicts(await claim(scripts)) == ["run"]
        await lose_lease(store, "a")
    assert verdicts(await claim(scripts)) == ["exhausted"]
    assert await traces(store, "a") == {""}
    started = (await EventStream(store).history())[1].read_data()
    assert isinstance(started, JobStarted)
    assert started.enqueued_at_ms > 1700000000000
