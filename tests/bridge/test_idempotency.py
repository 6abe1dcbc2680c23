"""Requests with an idempotency key: one job, one answer, whoever asks and however often."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.enqueue import Enqueued, Enqueuer, Replayed, TaskRequest, parse_request
from bridge.errors import DuplicateJob, IdempotencyKeyReused
from bridge.scripts import Scripts

REQUEST = TaskRequest(task_name="io_simulation_task", kwargs={"delay_ms": 5, "operations": 2}, delay_seconds=90.0)
ANOTHER = TaskRequest(task_name="io_simulation_task", kwargs={"delay_ms": 6, "operations": 2}, delay_seconds=90.0)


@pytest.fixture
def enqueuer(catalog: Catalog, scripts: Scripts) -> Enqueuer:
    return Enqueuer(catalog, scripts)


async def test_repeated_request_gets_the_same_answer_and_stores_nothing(enqueuer: Enqueuer, store: AegisRedis) -> None:
    first = await enqueuer.enqueue(REQUEST, idempotency_key="k", caller="ann")
    assert type(first) is Enqueued
    again = await enqueuer.enqueue(REQUEST, idempotency_key="k", caller="ann")
    assert type(again) is Replayed
    assert msgspec.json.encode(again) == msgspec.json.encode(first)
    assert await store.zrange(keys.queue("load_test"), 0, -1) == [first.task_id.encode()]
    assert await store.xlen(keys.EVENTS) == 1


@pytest.mark.parametrize(
    "same",
    [
        b'{"task_name":"io_simulation_task","kwargs":{"operations":2,"delay_ms":5},"delay_seconds":90}',
        b'{ "delay_seconds": 90.0, "args": [], "task_name": "io_simulation_task",'
        b' "kwargs": {"delay_ms": 5, "operations": 2}, "run_at": null }',
    ],
)
async def test_request_is_the_same_however_it_is_written(enqueuer: Enqueuer, same: bytes) -> None:
    first = await enqueuer.enqueue(REQUEST, idempotency_key="k")
    assert (await enqueuer.enqueue(parse_request(same), idempotency_key="k")).task_id == first.task_id


async def test_another_request_with_the_key_is_refused(enqueuer: Enqueuer, store: AegisRedis) -> None:
    await enqueuer.enqueue(REQUEST, idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        await enqueuer.enqueue(ANOTHER, idempotency_key="k")
    assert await store.zcard(keys.queue("load_test")) == 1


async def test_chosen_id_is_replayed_under_its_key_and_taken_under_another(enqueuer: Enqueuer) -> None:
    request = msgspec.structs.replace(REQUEST, task_id="mine")
    first = await enqueuer.enqueue(request, idempotency_key="k")
    assert (await enqueuer.enqueue(request, idempotency_key="k")).event_id == first.event_id
    with pytest.raises(DuplicateJob):
        await enqueuer.enqueue(request, idempotency_key="l")


async def test_callers_do_not_see_one_anothers_keys(enqueuer: Enqueuer) -> None:
    answers = [
        await enqueuer.enqueue(request, idempotency_key=key, caller=caller)
        for request, caller, key in ((REQUEST, "ann", "k:x"), (ANOTHER, "ann:k", "x"), (ANOTHER, "bob", "k:x"))
    ]
    assert len({answer.task_id for answer in answers}) == 3


async def test_requests_at_the_same_moment_store_one_job(enqueuer: Enqueuer, store: AegisRedis) -> None:
    answers = await asyncio.gather(*(enqueuer.enqueue(REQUEST, idempotency_key="k") for _ in range(20)))
    assert len({answer.task_id for answer in answers}) == 1
    assert [type(answer) for answer in answers].count(Enqueued) == 1
    assert await store.xlen(keys.EVENTS) == 1


async def racing(url: str, *arguments: str) -> asyncio.subprocess.Process:
    command = ("-m", "tests.bridge.racing_enqueuer", url, *arguments)
    return await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)


async def outcomes(redis: AegisRedis, processes: Sequence[asyncio.subprocess.Process]) -> list[list[Any]]:
    """What each process was answered, once both have started at the same moment."""
    for _ in processes:
        async with asyncio.timeout(60):
            while not await redis.blpop(["racer"], timeout=1):  # type: ignore[misc]
                pass
    await redis.rpush("start", *range(len(processes)))  # type: ignore[misc]
    printed = await asyncio.gather(*(process.communicate() for process in processes))
    return [msgspec.json.decode(out) for out, _ in printed]


async def test_processes_that_race_for_keys_get_one_job_for_each(redis: AegisRedis, valkey_url: str) -> None:
    processes = [await racing(valkey_url, "keys") for _ in range(2)]
    ours, theirs = await outcomes(redis, processes)
    assert [task_id for task_id, _ in ours] == [task_id for task_id, _ in theirs]
    for (_, is_new_here), (_, is_new_there) in zip(ours, theirs, strict=True):
        assert is_new_here is not is_new_there
    assert await redis.zcard(keys.queue("load_test")) == len(ours) == await redis.xlen(keys.EVENTS)


async def test_processes_that_race_for_ids_get_each_once(redis: AegisRedis, valkey_url: str) -> None:
    processes = [await racing(valkey_url, "ids") for _ in range(2)]
    ours, theirs = await outcomes(redis, processes)
    for (_, is_new_here), (_, is_new_there) in zip(ours, theirs, strict=True):
        assert is_new_here is not is_new_there
    assert await redis.zcard(keys.queue("load_test")) == len(ours) == await redis.xlen(keys.EVENTS)
