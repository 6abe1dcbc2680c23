"""What cannot be read or written fails its job, and nothing else."""

import pickle
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job, SerializationError
from arq.worker import JobExecutionFailed

from bridge import keys
from bridge.codec import job_deserializer, job_serializer
from tests.conformance.conftest import (
    QUEUE,
    Context,
    MakeWorker,
    drain,
    enqueue,
    failure_of,
    open_pool,
    result_of,
)

PICKLE: dict[str, Any] = {"job_serializer": pickle.dumps, "job_deserializer": pickle.loads}


async def work(ctx: Context) -> str:
    return "done"


async def store(producer: ArqRedis, body: bytes | None) -> Job:
    """A job with this body."""
    if body is not None:
        await producer.set(keys.job("broken"), body)
    await producer.zadd(QUEUE, {"broken": 1})
    return Job("broken", producer, QUEUE, producer.job_deserializer)


class Executed:
    """An object that, when it is unpickled, calls a function."""

    def __reduce__(self) -> Any:
        return mark_as_executed, ()


executed: list[str] = []


def mark_as_executed() -> None:
    executed.append("executed")


@pytest.mark.parametrize(
    "body",
    [
        b"neither JSON nor pickle",
        b"",
        b"\x80\x05",
        b"\xff\xfe",
        b"[]",
        b'{"t": null, "a": [], "k": {}, "et": 0}',
        pickle.dumps({"t": None, "f": "work", "a": (), "k": {}, "et": 0}),
    ],
    ids=["text", "empty", "cut off", "no UTF-8", "no object", "no function", "pickle"],
)
async def test_job_that_cannot_be_read_fails(make_worker: MakeWorker, producer: ArqRedis, body: bytes) -> None:
    job = await store(producer, body)
    worker = make_worker([work])
    await drain(worker)
    assert not (await result_of(job)).success
    assert (worker.jobs_failed, worker.jobs_complete) == (1, 0)


async def test_failure_says_that_the_job_could_not_be_read(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await store(producer, b"no pickle")
    await drain(make_worker([work], **PICKLE))
    failure = await failure_of(Job("broken", producer, QUEUE, pickle.loads))
    assert isinstance(failure, SerializationError)
    assert str(failure) == "unable to deserialize job"


async def test_job_that_cannot_be_read_keeps_no_other_from_running(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await store(producer, b"neither JSON nor pickle")
    good = await enqueue(producer, "work")
    await drain(make_worker([work], max_jobs=1))
    assert await good.result(timeout=5) == "done"


async def test_job_that_cannot_be_read_leaves_only_its_result(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await store(producer, b"neither JSON nor pickle")
    await drain(make_worker([work]))
    left = [name for name in (keys.job, keys.retry, keys.in_progress) if await producer.exists(name("broken"))]
    assert left == []
    assert await producer.zcard(QUEUE) == 0


async def test_pickled_job_is_not_executed_by_a_worker_that_reads_json(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    executed.clear()
    body = pickle.dumps({"t": None, "f": "work", "a": (Executed(),), "k": {}, "et": 0})
    pickle.loads(body)
    assert executed == ["executed"], "the trap works"
    executed.clear()
    await store(producer, body)
    await drain(make_worker([work]))
    assert executed == []


async def test_job_without_a_body_counts_as_expired(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await store(producer, None)
    worker = make_worker([work])
    await drain(worker)
    assert await failure_of(job) == JobExecutionFailed("job expired")
    assert worker.jobs_failed == 1


async def return_what_json_cannot_hold(ctx: Context) -> object:
    return object()


async def test_result_that_cannot_be_written_fails_the_job(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "return_what_json_cannot_hold")
    await drain(make_worker([return_what_json_cannot_hold]))
    assert "object" in str(await failure_of(job))


async def test_result_that_cannot_be_written_keeps_no_other_from_running(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    await enqueue(producer, "return_what_json_cannot_hold", _job_id="a")
    good = await enqueue(producer, "work", _job_id="b")
    await drain(make_worker([return_what_json_cannot_hold, work], max_jobs=1))
    assert await good.result(timeout=5) == "done"


async def return_a_lambda(ctx: Context) -> object:
    return lambda: None


async def raise_what_pickle_cannot_hold(ctx: Context) -> None:
    class LocalError(Exception):
        pass

    raise LocalError("not today")


@pytest.mark.parametrize("task", [return_a_lambda, raise_what_pickle_cannot_hold])
async def test_result_that_pickle_cannot_hold_is_told_by_arqs_own_words(
    make_worker: MakeWorker, redis_settings: RedisSettings, producer: ArqRedis, task: Any
) -> None:
    async with open_pool(redis_settings, **PICKLE) as pickling:
        job = await enqueue(pickling, task.__name__)
        await drain(make_worker([task], **PICKLE))
        assert not (await result_of(job)).success
        with pytest.raises(SerializationError, match="unable to serialize result"):
            await job.result(timeout=5)


def write_no_results(data: dict[str, Any]) -> bytes:
    if "r" in data:
        raise ValueError("out of ink")
    return job_serializer(data)


@pytest.mark.parametrize("name", ["work", "unknown"])
async def test_job_ends_without_a_result_when_no_result_can_be_written(
    make_worker: MakeWorker, producer: ArqRedis, name: str
) -> None:
    job = await enqueue(producer, name)
    await drain(make_worker([work], job_serializer=write_no_results))
    assert await job.result_info() is None
    assert await producer.exists(keys.job(job.job_id)) == 0
    assert await producer.zcard(QUEUE) == 0


async def test_body_may_hold_more_than_arq_writes(make_worker: MakeWorker, producer: ArqRedis) -> None:
    body = job_serializer({"t": None, "f": "work", "a": [], "k": {}, "et": 0, "trace": "00-0af7-01"})
    assert job_deserializer(body)["trace"] == "00-0af7-01"
    job = await store(producer, body)
    await drain(make_worker([work]))
    assert await job.result(timeout=5) == "done"
