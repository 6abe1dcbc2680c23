"""The stream against the store: every kind of disagreement is found, and nothing is while both are right."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from arq import Retry, func
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import Worker

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import load_catalog
from bridge.codec import job_deserializer, job_serializer
from bridge.event_stream import EventStream
from bridge.events import STOCK_WORKER_MARK, EventData, JobStarted, JobSucceeded
from bridge.new_job import job_body
from bridge.replay import Oddity
from bridge.scripts import NewEvent, NewJob, Scripts
from bridge.settings import Settings
from bridge.verifier import Report, Verifier
from tests.bridge.test_claiming import QUEUE, claim, ending, enqueue, finish, lose_lease
from tests.workers.test_lifecycle_hooks import make
from workers.batch_worker import BatchWorker

Context = dict[str, Any]
QUEUES = load_catalog(Settings().queues)
HOUR_MS = 3_600_000
STOCK = f"vm:1:{STOCK_WORKER_MARK}f00"
RESULT = b'{"t":1,"f":"send","a":[1],"k":{},"et":1,"s":true,"r":null,"st":1,"ft":2,"q":"q","id":"job"}'


@pytest.fixture
def scripts(redis: AegisRedis) -> Scripts:
    return Scripts(redis, events_max_len=100_000)


@pytest.fixture
def stock_pool(redis: AegisRedis) -> ArqRedis:
    """A producer of stock arq with our serializers: it writes no event."""
    return ArqRedis(
        pool_or_conn=redis.connection_pool, job_serializer=job_serializer, job_deserializer=job_deserializer
    )


async def verify(redis: AegisRedis, *, after: str = "0-0") -> Report:
    return await Verifier(redis, QUEUES, pause_s=0.01).verify(after)


async def only_finding(redis: AegisRedis) -> tuple[str, str | None, str]:
    """Derived state, stored state, and what is wrong."""
    report = await verify(redis)
    assert not report.agrees
    (finding,) = report.findings
    assert (finding.job_id, finding.queue, finding.task) == ("job", "mail", "send")
    assert finding.event_id == report.last_event_id
    return finding.derived, finding.stored, finding.what


async def report(scripts: Scripts, data: EventData, **fields: Any) -> None:
    """An event and nothing else."""
    event = {"job_id": "job", "queue": "mail", "task": "send", "attempt": 1, "worker": "w", **fields}
    await scripts.report([NewEvent(data=data, **event)])


async def waits(scripts: Scripts) -> None:
    await enqueue(scripts, "job")


async def is_deferred(scripts: Scripts) -> None:
    await enqueue(scripts, "job", delay_ms=HOUR_MS)


async def runs(scripts: Scripts) -> None:
    await enqueue(scripts, "job")
    await claim(scripts)


async def is_tried_again(scripts: Scripts) -> None:
    await runs(scripts)
    await finish(scripts, ending("job", kind="job.retrying", data=b'{"reason":"retry"', number=HOUR_MS))


async def was_interrupted(scripts: Scripts) -> None:
    await runs(scripts)
    data = b'{"reason":"interrupted"'
    await finish(scripts, ending("job", kind="job.retrying", data=data, number=1, extra=b"interrupted"))


async def has_succeeded(scripts: Scripts) -> None:
    await runs(scripts)
    await finish(scripts, ending("job", result=RESULT))


Arrange = Callable[[Scripts], Awaitable[None]]
STATES: list[Arrange] = [waits, is_deferred, runs, is_tried_again, was_interrupted, has_succeeded]


@pytest.mark.parametrize("arrange", STATES)
async def test_nothing_is_found_where_nothing_is_wrong(redis: AegisRedis, scripts: Scripts, arrange: Arrange) -> None:
    await arrange(scripts)
    found = await verify(redis)
    assert (found.agrees, found.findings, found.oddities, found.unseen, found.trimmed_from) == (True, [], {}, 0, None)
    assert sum(found.jobs.values()) == 1


@pytest.mark.parametrize(("queue", "key"), [("default", "arq:queue"), ("default", "arq:queue:default"), ("q", "q")])
async def test_queue_that_the_catalog_lacks_is_found_by_its_name(
    redis: AegisRedis, scripts: Scripts, queue: str, key: str
) -> None:
    job = NewJob(job_id="job", task="send", queue=queue, queue_key=key, body=job_body("send", [], {}))
    await scripts.enqueue([job])
    assert (await verify(redis)).findings == []
    await redis.zrem(key, "job")
    assert [finding.what for finding in (await verify(redis)).findings] == ["it is in no queue"]


async def test_job_that_another_worker_took_over_agrees(redis: AegisRedis, scripts: Scripts) -> None:
    await runs(scripts)
    await lose_lease(redis, "job")
    await claim(scripts, token="w:2")
    assert (await verify(redis)).findings == []
    await finish(scripts, ending("job", token="w:2", attempt=2, result=RESULT.replace(b'"t":1', b'"t":2')))
    assert (await verify(redis)).findings == []


async def test_empty_store_agrees(redis: AegisRedis) -> None:
    found = await verify(redis)
    assert (found.agrees, found.events, found.jobs) == (True, 0, {})


Break = Callable[[AegisRedis], Awaitable[Any]]


def forget_the_job(redis: AegisRedis) -> Awaitable[Any]:
    return redis.zrem(QUEUE, "job")


def put_into(queue: str, score: float = 1) -> Break:
    return lambda redis: redis.zadd(keys.queue(queue), {"job": score})


def write(key: str, value: bytes) -> Break:
    return lambda redis: redis.set(key, value)


async def move_to_another_queue(redis: AegisRedis) -> None:
    await redis.zrem(QUEUE, "job")
    await redis.zadd(keys.queue("system"), {"job": 1})


async def lose_the_claim(redis: AegisRedis) -> None:
    await redis.delete(keys.in_progress("job"))
    await redis.zadd(QUEUE, {"job": 1})


def mark(value: bytes) -> Break:
    return write(keys.in_progress("job"), value)


def keep(result: bytes) -> Break:
    return write(keys.result("job"), result)


FAILED = RESULT.replace(b'"s":true,"r":null', b'"s":false,"r":{"type":"ValueError","message":""}')
OF_ATTEMPT_2 = RESULT.replace(b'"t":1', b'"t":2')
BODY = b'{"t":null,"f":"send","a":[1],"k":{},"et":1}'


@pytest.mark.parametrize(
    ("arrange", "breaks", "expected"),
    [
        (waits, forget_the_job, ("queued", "not queued", "it is in no queue")),
        (is_deferred, forget_the_job, ("deferred", "not queued", "it is in no queue")),
        (waits, put_into("system"), ("queued", "queued", "it is in several queues")),
        (waits, move_to_another_queue, ("queued", "queued", "it is in the queue system")),
        (waits, keep(RESULT), ("queued", "succeeded", "it has a result, though it is in its queue")),
        (waits, mark(b"w:1"), ("queued", "in_progress", "a claim holds it: w:1")),
        (waits, put_into("mail", 1.5), ("queued", "in_progress", "it is leased")),
        (is_deferred, put_into("mail"), ("deferred", "queued", "it is due at 1,")),
        (waits, put_into("mail", 9e15), ("queued", "deferred", "it is due at 9000000000000000,")),
        (runs, forget_the_job, ("in_progress", "not queued", "it is in no queue")),
        (runs, lose_the_claim, ("in_progress", "queued", "no worker has it")),
        (runs, mark(b"other:1"), ("in_progress", "in_progress", "another claim holds it: other:1")),
        (runs, mark(b"1"), ("in_progress", "in_progress", "another claim holds it: 1")),
        (is_tried_again, write(keys.retry("job"), b"0"), ("deferred", "deferred", "0 attempts are counted")),
        (has_succeeded, put_into("mail"), ("succeeded", "succeeded", "it is still in the queue mail")),
        (has_succeeded, write(keys.job("job"), BODY), ("succeeded", "succeeded", "its body is still there")),
        (has_succeeded, mark(b"w:1"), ("succeeded", "succeeded", "a claim still holds it: w:1")),
        (has_succeeded, write(keys.retry("job"), b"1"), ("succeeded", "succeeded", "its attempts are still counted")),
        (has_succeeded, keep(FAILED), ("succeeded", "failed", "its result says failed")),
        (has_succeeded, keep(OF_ATTEMPT_2), ("succeeded", "succeeded", "its result is of attempt 2")),
    ],
)
async def test_disagreement_is_found(
    redis: AegisRedis, scripts: Scripts, arrange: Arrange, breaks: Break, expected: tuple[str, str, str]
) -> None:
    await arrange(scripts)
    await breaks(redis)
    derived, stored, what = await only_finding(redis)
    assert (derived, stored) == expected[:2]
    assert expected[2] in what


async def test_end_without_its_event_is_found(redis: AegisRedis, scripts: Scripts) -> None:
    await runs(scripts)
    await redis.zrem(QUEUE, "job")
    await redis.delete(keys.job("job"), keys.in_progress("job"), keys.retry("job"))
    assert await only_finding(redis) == ("in_progress", "nothing stored", "it is in no queue")
    await redis.set(keys.result("job"), RESULT)
    assert await only_finding(redis) == ("in_progress", "succeeded", "it has ended, and no event tells of it")


async def test_entry_that_outlives_its_job_is_found(redis: AegisRedis, scripts: Scripts) -> None:
    await runs(scripts)
    await finish(scripts, ending("job", result=b""))
    await redis.zadd(QUEUE, {"job": 1})
    assert (await only_finding(redis))[2] == "it is still in the queue mail"
    await redis.set(keys.job("job"), BODY)  # enqueued before it ended
    assert (await only_finding(redis))[2] == "it is still in the queue mail"


async def test_wrong_order_of_events_is_found(redis: AegisRedis, scripts: Scripts) -> None:
    await has_succeeded(scripts)
    await report(scripts, JobSucceeded(ran_ms=1, queued_ms=0))
    derived, stored, what = await only_finding(redis)
    assert (derived, stored) == ("succeeded", None)
    assert what.startswith("a second end")


# --- what is legal ------------------------------------------------------------------------------------


async def expire_the_result(redis: AegisRedis) -> None:
    await redis.delete(keys.result("job"))


async def expire_the_body(redis: AegisRedis) -> None:
    await redis.delete(keys.job("job"))


async def make_the_body_strange(redis: AegisRedis) -> None:
    await redis.delete(keys.job("job"))
    await redis.hset(keys.job("job"), "a", "b")  # type: ignore[misc]


async def lose_the_worker(redis: AegisRedis) -> None:
    await lose_lease(redis, "job")


async def claim_without_a_start(redis: AegisRedis) -> None:
    """A claim that finds no body, and has not written the end yet."""
    await redis.delete(keys.job("job"))
    assert (await claim(Scripts(redis, events_max_len=1000))).jobs


async def abort_with_arq(redis: AegisRedis) -> None:
    job = Job("job", redis, _queue_name=QUEUE, _deserializer=job_deserializer)
    with pytest.raises(TimeoutError):
        await job.abort(timeout=0)


@pytest.mark.parametrize(
    ("arrange", "happens"),
    [
        (has_succeeded, expire_the_result),
        (has_succeeded, keep(b"\x80pickled")),
        (waits, expire_the_body),
        (waits, make_the_body_strange),
        (waits, claim_without_a_start),
        (runs, expire_the_body),
        (runs, lose_the_worker),
        (runs, abort_with_arq),
        (is_deferred, abort_with_arq),
    ],
)
async def test_what_may_be_legal_is_not_told(
    redis: AegisRedis, scripts: Scripts, arrange: Arrange, happens: Break
) -> None:
    await arrange(scripts)
    await happens(redis)
    assert (await verify(redis)).findings == []


async def test_job_that_a_stock_producer_enqueues_is_unseen(redis: AegisRedis, stock_pool: ArqRedis) -> None:
    await stock_pool.enqueue_job("cleanup_temp_files", _queue_name=keys.queue("system"))
    found = await verify(redis)
    assert (found.agrees, found.unseen, found.jobs) == (True, 1, {})


async def test_id_that_a_stock_producer_enqueues_again_is_counted(
    redis: AegisRedis, scripts: Scripts, stock_pool: ArqRedis
) -> None:
    await runs(scripts)
    await finish(scripts, ending("job", result=b""))
    await stock_pool.enqueue_job("send", 1, _queue_name=QUEUE, _job_id="job", _defer_by=1)
    found = await verify(redis)
    assert (found.findings, found.oddities) == ([], {Oddity.REENQUEUED.value: 1})


async def test_end_that_a_stock_worker_does_not_tell_is_counted(redis: AegisRedis, scripts: Scripts) -> None:
    await waits(scripts)
    await forget_the_job(redis)
    await report(scripts, JobStarted(enqueued_at_ms=1, queued_ms=0), job_id="other", worker=STOCK)
    found = await verify(redis)
    assert (found.findings, found.oddities) == ([], {Oddity.UNTOLD_END.value: 2})


async def test_failure_by_a_cancellation_is_a_failure(redis: AegisRedis) -> None:
    async def give_up(ctx: Context) -> None:
        raise asyncio.CancelledError

    view = AegisRedis(pool_or_conn=redis.connection_pool)
    await redis.enqueue_job("send", _queue_name=QUEUE, _job_id="job")
    functions = [func(give_up, name="send")]
    worker = BatchWorker(
        functions, queue_name=QUEUE, redis_pool=view, handle_signals=False, burst=True, retry_jobs=False
    )
    await worker.async_run()
    found = await verify(redis)
    assert (found.findings, found.jobs) == ([], {"failed": 1})


# --- parts of a stream, and a busy one --------------------------------------------------------------------


async def test_trimmed_stream_is_judged_by_what_is_there(redis: AegisRedis, scripts: Scripts) -> None:
    await has_succeeded(scripts)
    await enqueue(scripts, "other")
    await redis.xtrim(keys.EVENTS, maxlen=2, approximate=False)
    first = (await EventStream(redis).history())[0]
    found = await verify(redis)
    assert (found.findings, found.trimmed_from, found.events) == ([], first.id, 2)
    assert found.jobs == {"succeeded": 1, "queued": 1}


async def test_replay_can_begin_anywhere(redis: AegisRedis, scripts: Scripts) -> None:
    await has_succeeded(scripts)
    _, started, succeeded = await EventStream(redis).history()
    found = await verify(redis, after=started.id)
    assert (found.findings, found.trimmed_from, found.events) == ([], succeeded.id, 1)
    found = await verify(redis, after="$")
    assert (found.agrees, found.events, found.jobs) == (True, 0, {})


async def test_stream_that_is_trimmed_meanwhile_is_judged_from_there(redis: AegisRedis, scripts: Scripts) -> None:
    await enqueue(scripts, *map(str, range(600)))

    def trim(what: str, done: int, total: int) -> None:
        if what == "events" and not tasks:
            tasks.append(asyncio.ensure_future(overtake()))

    async def overtake() -> None:
        await enqueue(scripts, "later")
        await enqueue(scripts, "last")
        await redis.xtrim(keys.EVENTS, maxlen=1, approximate=False)

    tasks: list[asyncio.Future[None]] = []
    found = await Verifier(redis, QUEUES, pause_s=0.01).verify(tell=trim)
    await tasks[0]
    assert (found.findings, found.trimmed_from, found.jobs) == ([], found.last_event_id, {"queued": 1})


async def test_busy_queue_gives_no_finding(redis: AegisRedis) -> None:
    async def work(ctx: Context, number: int) -> int:
        await asyncio.sleep(0.002 * (number % 4))
        if number % 5 == 1 and ctx["job_try"] == 1:
            raise Retry(defer=0.01)
        if number % 7 == 1:
            raise ValueError("on purpose")
        return number

    async def produce() -> None:
        for start in range(0, 1000, 50):
            for number in range(start, start + 50):
                job_id = str(number) if number % 3 else None
                await pool.enqueue_job(
                    "work", number, _queue_name=QUEUE, _job_id=job_id, _defer_by=0.05 * (number % 10 == 3)
                )
            await redis.delete(keys.result(str(start + 1)))

    pool = AegisRedis(pool_or_conn=redis.connection_pool)
    workers = [
        BatchWorker(
            [func(work, name="work")],
            queue_name=QUEUE,
            redis_pool=AegisRedis(pool_or_conn=redis.connection_pool),
            handle_signals=False,
            keep_result=keep_result,
        )
        for keep_result in (3600, 0)
    ]
    running = [asyncio.create_task(worker.async_run()) for worker in workers]
    producing = asyncio.create_task(produce())
    looks = 0
    while not producing.done() or await redis.zcard(QUEUE):
        found = await verify(redis)
        assert found.findings == []
        looks += 1
    assert looks > 1
    for worker in workers:
        worker.handle_sig(15)  # type: ignore[arg-type]
    await asyncio.gather(producing, *running)
    found = await verify(redis)
    assert (found.findings, found.oddities) == ([], {})
    assert set(found.jobs) == {"succeeded", "failed"}
    assert sum(found.jobs.values()) == 1000


async def test_stock_worker_with_our_hooks_gives_no_finding(redis: AegisRedis, settings: Settings) -> None:
    for job_id, task, *args in (("a", "double", 21), ("b", "fail"), ("c", "retry_once"), ("d", "double", 1)):
        await redis.enqueue_job(task, *args, _queue_name=keys.queue("lab"), _job_id=job_id)
    await redis.delete(keys.job("d"))  # it has expired, and no event tells of its end
    await make(settings, redis).async_run()
    found = await verify(redis)
    assert (found.findings, found.oddities) == ([], {Oddity.UNTOLD_END.value: 1})
    assert found.jobs == {"succeeded": 2, "failed": 1, "queued": 1}


async def test_stock_worker_without_our_hooks_is_found(redis: AegisRedis, stock_pool: ArqRedis) -> None:
    """It writes no event at all, so its ends cannot be told from losses."""

    async def send(ctx: Context, number: int) -> int:
        return number

    await redis.enqueue_job("send", 1, _queue_name=QUEUE, _job_id="job")
    await Worker(
        [func(send, name="send")],
        queue_name=QUEUE,
        redis_pool=stock_pool,
        burst=True,
        poll_delay=0.01,
        handle_signals=False,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
    ).async_run()
    assert await only_finding(redis) == ("queued", "succeeded", "it has ended, and no event tells of it")
