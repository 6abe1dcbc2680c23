"""A job that fails for good, from its end in a worker to its next run."""

import pickle
from typing import Any

import pytest
from arq import Retry
from arq.worker import Worker, func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog, read_queue
from bridge.codec import decode_result, job_deserializer, job_deserializer_accepting_pickle, job_serializer
from bridge.dead_letters import DeadFilter, DeadLetter, DeadLetters
from bridge.event_stream import EventStream
from bridge.events import Event, JobEnqueued
from bridge.scripts import Scripts
from workers.batch_worker import BatchWorker

Context = dict[Any, Any]
QUEUE = keys.queue("lab")
ALL = DeadFilter()


class Bank:
    """A task that fails until the bank is open, the second attempt for good."""

    is_open = False

    async def charge(self, ctx: Context, amount: int, *, currency: str) -> str:
        if self.is_open:
            return f"{amount} {currency} in attempt {ctx['job_try']}"
        if ctx["job_try"] == 1:
            raise Retry
        raise ConnectionError("the bank is closed")


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
def dead_letters(redis: AegisRedis) -> DeadLetters:
    settings = type("WorkerSettings", (), {"queue_name": QUEUE, "functions": []})
    return DeadLetters(redis, Catalog([read_queue(settings, "lab")]), Scripts(redis, events_max_len=1000))


async def enqueue(redis: AegisRedis, *job_ids: str) -> None:
    for job_id in job_ids:
        await redis.enqueue_job("charge", 7, currency="EUR", _queue_name=QUEUE, _job_id=job_id)


async def work(redis: AegisRedis, bank: Bank, **options: Any) -> None:
    view = AegisRedis(pool_or_conn=redis.connection_pool)
    functions = [func(bank.charge, name="charge")]
    await BatchWorker(
        functions, queue_name=QUEUE, redis_pool=view, handle_signals=False, burst=True, **options
    ).async_run()


async def listed(dead_letters: DeadLetters) -> list[DeadLetter]:
    return [letter async for letter in dead_letters.letters(ALL)]


async def events(redis: AegisRedis, job_id: str) -> list[Event]:
    return [event for event in await EventStream(redis).history() if event.job_id == job_id]


async def test_failed_job_is_retried_and_succeeds(redis: AegisRedis, bank: Bank, dead_letters: DeadLetters) -> None:
    await enqueue(redis, "job")
    await work(redis, bank)
    (letter,) = await listed(dead_letters)
    assert (letter.task_name, letter.args, letter.kwargs) == ("charge", [7], {"currency": "EUR"})
    assert (letter.attempts, letter.reason, letter.obstacle) == (2, "error", None)
    assert (letter.error.type, letter.error.message) == ("ConnectionError", "the bank is closed")

    bank.is_open = True
    assert [one.verdict async for step in dead_letters.retry(ALL) for one in step.handled] == ["requeued"]
    await work(redis, bank)

    raw = await redis.get(keys.result("job"))
    assert raw is not None
    assert decode_result(raw).r == "7 EUR in attempt 1"
    assert await listed(dead_letters) == []
    told = await events(redis, "job")
    assert [(event.kind.removeprefix("job."), event.attempt) for event in told] == [
        ("enqueued", 0),
        ("started", 1),
        ("retrying", 1),
        ("started", 2),
        ("failed", 2),
        ("enqueued", 0),
        ("started", 1),
        ("succeeded", 1),
    ]
    again = told[5].read_data()
    assert isinstance(again, JobEnqueued)
    assert again.reason == "requeued"


async def test_job_that_fails_again_is_a_dead_letter_again(
    redis: AegisRedis, bank: Bank, dead_letters: DeadLetters
) -> None:
    await enqueue(redis, "job")
    await work(redis, bank)
    (first,) = await listed(dead_letters)
    await dead_letters.retry_one("job")
    await work(redis, bank)
    (second,) = await listed(dead_letters)
    assert second.attempts == 2, "counted from the beginning"
    assert second.failed_at > first.failed_at
    assert await dead_letters.retry_one("job") == "lab"


async def test_abort_of_the_failed_run_does_not_end_the_retried_one(
    redis: AegisRedis, bank: Bank, dead_letters: DeadLetters
) -> None:
    await enqueue(redis, "job")
    await work(redis, bank)
    await redis.zadd(keys.ABORT, {"job": 9e12})
    bank.is_open = True
    await dead_letters.retry_one("job")
    await work(redis, bank, allow_abort_jobs=True)
    assert (await events(redis, "job"))[-1].kind == "job.succeeded"


async def test_what_a_worker_could_not_read_says_that_it_cannot_be_run_again(
    redis: AegisRedis, bank: Bank, dead_letters: DeadLetters
) -> None:
    await enqueue(redis, "job")
    await redis.set(keys.job("job"), b"garbage")
    await work(redis, bank)
    (letter,) = await listed(dead_letters)
    assert (letter.task_name, letter.reason) == ("<unknown>", "undecodable")
    assert letter.obstacle is not None


async def test_pickled_arguments_that_json_cannot_hold_are_not_run_again_without_them(
    redis: AegisRedis, bank: Bank, dead_letters: DeadLetters
) -> None:
    await enqueue(redis, "job", "plain")
    for job_id, amount in (("job", 7j), ("plain", 7)):
        body = {"t": None, "f": "charge", "a": (amount,), "k": {"currency": "EUR"}, "et": 1}
        await redis.set(keys.job(job_id), pickle.dumps(body))
    await work(redis, bank, job_serializer=job_serializer, job_deserializer=job_deserializer_accepting_pickle)
    letters = {letter.task_id: letter for letter in await listed(dead_letters)}
    assert letters["job"].obstacle == "its arguments were not JSON, so they are not kept"
    assert (letters["plain"].obstacle, letters["plain"].args) == (None, [7])


async def test_failed_job_of_a_stock_worker_is_retried_from_its_result(
    redis: AegisRedis, bank: Bank, dead_letters: DeadLetters
) -> None:
    await enqueue(redis, "job")
    serializers: Any = {"job_serializer": job_serializer, "job_deserializer": job_deserializer}
    stock = Worker(
        [func(bank.charge, name="charge")],
        queue_name=QUEUE,
        redis_pool=redis,
        handle_signals=False,
        burst=True,
        poll_delay=0.01,
        **serializers,
    )
    await stock.async_run()
    assert await listed(dead_letters) == []
    bank.is_open = True
    assert await dead_letters.retry_one("job") == "lab"
    await work(redis, bank)
    assert (await events(redis, "job"))[-1].kind == "job.succeeded"
