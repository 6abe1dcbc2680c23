"""Serializers: pickle, our JSON, one's own, and none at all."""

import pickle
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker

from bridge import keys
from bridge.codec import job_deserializer, job_serializer
from tests.conformance.conftest import Context, MakeWorker, drain, enqueue, named, open_pool

Serializers = dict[str, Callable[..., Any] | None]


def write_with_mark(data: dict[str, Any]) -> bytes:
    return b"mine:" + job_serializer(data)


def read_with_mark(raw: bytes) -> dict[str, Any]:
    assert raw.startswith(b"mine:")
    return job_deserializer(raw.removeprefix(b"mine:"))


PICKLE: Serializers = {"job_serializer": pickle.dumps, "job_deserializer": pickle.loads}
JSON: Serializers = {"job_serializer": job_serializer, "job_deserializer": job_deserializer}
OWN: Serializers = {"job_serializer": write_with_mark, "job_deserializer": read_with_mark}
NONE: Serializers = {"job_serializer": None, "job_deserializer": None}


@pytest.fixture(params=[PICKLE, JSON, OWN, NONE], ids=["pickle", "json", "own", "none"])
def serializers(request: pytest.FixtureRequest) -> Serializers:
    """What the worker is given."""
    given: Serializers = request.param
    return given


@pytest.fixture
async def matching(
    serializers: Serializers, runner: type[Worker], redis_settings: RedisSettings, producer: ArqRedis
) -> AsyncIterator[ArqRedis]:
    """A producer that writes what the worker reads: without any, stock arq pickles and ours writes JSON."""
    default = PICKLE if runner is Worker else JSON
    async with open_pool(redis_settings, **(default if serializers is NONE else serializers)) as pool:
        yield pool


async def join(ctx: Context, *words: str, by: str) -> list[str]:
    return [by.join(words)]


async def refuse(ctx: Context) -> None:
    raise ValueError("not today")


async def test_arguments_and_result_arrive(
    make_worker: MakeWorker, matching: ArqRedis, serializers: Serializers
) -> None:
    job = await enqueue(matching, "join", "grün", "blau", by="→")
    await drain(make_worker([join], **serializers))
    assert await job.result(timeout=5) == ["grün→blau"]


async def test_exception_arrives(make_worker: MakeWorker, matching: ArqRedis, serializers: Serializers) -> None:
    job = await enqueue(matching, "refuse")
    await drain(make_worker([refuse], **serializers))
    with pytest.raises(ValueError, match="not today"):
        await job.result(timeout=5)


async def test_jobs_that_a_job_enqueues_are_written_the_same_way(
    make_worker: MakeWorker, matching: ArqRedis, serializers: Serializers
) -> None:
    async def parent(ctx: Context) -> None:
        child = await ctx["redis"].enqueue_job("join", "a", "b", by="-", _job_id="child")
        assert child is not None

    await enqueue(matching, "parent")
    worker = make_worker([named(parent), join], **serializers)
    await drain(worker)
    assert (worker.jobs_complete, worker.jobs_failed) == (2, 0)


async def test_run_check_reads_the_results(
    make_worker: MakeWorker, matching: ArqRedis, serializers: Serializers
) -> None:
    await enqueue(matching, "refuse")
    with pytest.raises(RuntimeError, match=r"1 job failed ValueError\('not today'\)"):
        await make_worker([refuse], **serializers).run_check()


@dataclass
class Order:
    """What only pickle brings back as it was."""

    number: int
    items: set[complex]


async def test_python_objects_arrive_where_all_pickle(
    make_worker: MakeWorker, redis_settings: RedisSettings, producer: ArqRedis
) -> None:
    async def double(ctx: Context, order: Order) -> Order:
        return Order(order.number * 2, order.items)

    async with open_pool(redis_settings, **PICKLE) as pickling:
        job = await enqueue(pickling, "double", Order(7, {1j}))
        await drain(make_worker([named(double)], **PICKLE))
        assert await job.result(timeout=5) == Order(14, {1j})


class OrderLostError(Exception):
    """Neither a builtin nor arq's."""


async def test_exception_of_ones_own_arrives_where_all_pickle(
    make_worker: MakeWorker, redis_settings: RedisSettings, producer: ArqRedis
) -> None:
    async def lose(ctx: Context) -> None:
        raise OrderLostError("order", 7)

    async with open_pool(redis_settings, **PICKLE) as pickling:
        job = await enqueue(pickling, "lose")
        await drain(make_worker([named(lose)], **PICKLE))
        with pytest.raises(OrderLostError) as caught:
            await job.result(timeout=5)
    assert caught.value.args == ("order", 7)


async def test_result_is_written_by_the_serializer_that_was_given(
    make_worker: MakeWorker, redis_settings: RedisSettings, producer: ArqRedis
) -> None:
    async with open_pool(redis_settings, **OWN) as own:
        job = await enqueue(own, "join", "a", "b", by="-")
        await drain(make_worker([join], **OWN))
        assert (await producer.get(keys.result(job.job_id))).startswith(b"mine:")
