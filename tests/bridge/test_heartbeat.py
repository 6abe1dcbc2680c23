"""The registry of workers: heartbeats, and who tells that one is lost."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.event_stream import EventStream
from bridge.events import Event, WorkerLost, WorkerStarted, WorkerStopped
from bridge.scripts import LOST_AT_A_TIME, Heartbeat, Scripts
from bridge.worker_registry import read_workers


def sign(**changes: Any) -> Heartbeat:
    usual = Heartbeat("vm", 7, "mail", 15, "BatchWorker", running=2, done=30, failed=4, retried=5)
    return usual._replace(**changes)


async def events(store: AegisRedis) -> list[Event]:
    return await EventStream(store).history()


async def told(store: AegisRedis) -> list[tuple[str, str]]:
    return [(event.kind, event.worker) for event in await events(store)]


async def silence(store: AegisRedis, worker: str, milliseconds: int = keys.WORKER_LOST_MS + 1000) -> None:
    """The worker's latest heartbeat is so old."""
    await store.zincrby(keys.WORKERS, -milliseconds, worker)


async def test_first_heartbeat_registers_the_worker_and_the_next_ones_keep_it(
    store: AegisRedis, scripts: Scripts
) -> None:
    started_at_ms = await scripts.heartbeat("vm:7:a", sign())
    assert await scripts.heartbeat("vm:7:a", sign(done=31), started_at_ms=started_at_ms) == started_at_ms
    (event,) = await events(store)
    assert (event.kind, event.queue, event.worker, event.job_id) == ("worker.started", "mail", "vm:7:a", "")
    assert event.read_data() == WorkerStarted(host="vm", pid=7, queue="mail", max_jobs=15)
    (worker,) = await read_workers(store)
    assert (worker.id, worker.state, worker.queue, worker.host, worker.pid) == ("vm:7:a", "running", "mail", "vm", 7)
    assert (worker.runner, worker.max_jobs, worker.running) == ("BatchWorker", 15, 2)
    assert (worker.done, worker.failed, worker.retried) == (31, 4, 5)
    assert worker.started_at.timestamp() * 1000 == pytest.approx(started_at_ms, abs=0.5)
    assert 0 <= worker.heartbeat_age_ms < 5000
    assert keys.WORKER_LOST_MS < await store.pttl(keys.worker("vm:7:a")) <= keys.WORKER_TTL_MS


async def test_worker_that_leaves_is_registered_no_more(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.heartbeat("vm:7:a", sign())
    for _ in range(2):
        await scripts.leave("vm:7:a")
    assert await told(store) == [("worker.started", "vm:7:a"), ("worker.stopped", "vm:7:a")]
    assert (await events(store))[1].read_data() == WorkerStopped(host="vm", pid=7, queue="mail", max_jobs=15)
    assert await store.keys() == [keys.EVENTS.encode()]


async def test_worker_that_is_silent_too_long_is_lost_exactly_once(store: AegisRedis, scripts: Scripts) -> None:
    for name in ("a", "b", "c"):
        await scripts.heartbeat(f"vm:7:{name}", sign(queue=name))
    await silence(store, "vm:7:c")
    assert [worker.state for worker in await read_workers(store)] == ["running", "running", "missing"]
    for _ in range(2):
        for name in ("a", "b"):
            await scripts.heartbeat(f"vm:7:{name}", sign(queue=name))
    lost = [event for event in await events(store) if event.kind == "worker.lost"]
    assert [(event.worker, event.queue) for event in lost] == [("vm:7:c", "c")]
    assert lost[0].read_data() == WorkerLost(host="vm", pid=7, queue="c", max_jobs=15)
    assert not await store.exists(keys.worker("vm:7:c"))
    assert [worker.id for worker in await read_workers(store)] == ["vm:7:a", "vm:7:b"]


async def test_worker_that_was_lost_and_comes_back_is_registered_again(store: AegisRedis, scripts: Scripts) -> None:
    started_at_ms = await scripts.heartbeat("back", sign())
    await scripts.heartbeat("other", sign())
    await silence(store, "back")
    await scripts.heartbeat("other", sign())
    await scripts.heartbeat("back", sign(), started_at_ms=started_at_ms)
    assert [kind for kind, worker in await told(store) if worker == "back"] == [
        "worker.started", "worker.lost", "worker.started"
    ]  # fmt: skip
    assert {w.id: w.started_at.timestamp() for w in await read_workers(store)}["back"] * 1000 == pytest.approx(
        started_at_ms, abs=0.5
    )


async def test_nobody_is_lost_because_redis_was_away_from_everyone(store: AegisRedis, scripts: Scripts) -> None:
    for worker in ("a", "b"):
        await scripts.heartbeat(worker, sign())
        await silence(store, worker)
    for worker in ("new", "a", "b", "new", "a", "b"):
        await scripts.heartbeat(worker, sign())
    assert [kind for kind, _ in await told(store)] == ["worker.started"] * 3


async def test_worker_is_not_lost_before_its_time(store: AegisRedis, scripts: Scripts) -> None:
    for worker in ("late", "other"):
        await scripts.heartbeat(worker, sign())
    await silence(store, "late", keys.WORKER_LOST_MS - 5000)
    await scripts.heartbeat("other", sign())
    assert [kind for kind, _ in await told(store)] == ["worker.started"] * 2


async def test_one_heartbeat_takes_a_bounded_number_off(store: AegisRedis, scripts: Scripts) -> None:
    await store.zadd(keys.WORKERS, {f"vm:{n}:x": 1 for n in range(LOST_AT_A_TIME + 5)})
    left = []
    for _ in range(3):
        await scripts.heartbeat("a", sign())
        left.append(await store.zcard(keys.WORKERS) - 1)
    assert left == [LOST_AT_A_TIME + 5, 5, 0]


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_lost_worker_of_which_nothing_is_known_is_told_by_its_id(
    store: AegisRedis, scripts: Scripts, is_damaged: bool
) -> None:
    await scripts.heartbeat("a", sign())
    await store.zadd(keys.WORKERS, {"vm:x:12:abc": 1})
    assert [worker.id for worker in await read_workers(store)] == ["a"]
    if is_damaged:
        await store.set(keys.worker("vm:x:12:abc"), b"text", px=60_000)
    await scripts.heartbeat("a", sign())
    assert (await events(store))[-1].read_data() == WorkerLost(host="vm:x", pid=12, queue="", max_jobs=0)


@pytest.mark.parametrize("key", [keys.EVENTS, keys.WORKERS, keys.worker("a")])
async def test_key_of_another_type_stops_the_heartbeat_before_it_writes(
    store: AegisRedis, scripts: Scripts, key: str
) -> None:
    await store.set(key, b"text", px=60_000)
    before = {name: await store.dump(name) for name in await store.keys()}
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await scripts.heartbeat("a", sign())
    assert {name: await store.dump(name) for name in await store.keys()} == before
    await store.delete(key)


@pytest.mark.parametrize("wrong", [{"pid": "seven"}, {"max_jobs": ""}])
async def test_heartbeat_refuses_what_is_no_number(store: AegisRedis, scripts: Scripts, wrong: dict[str, Any]) -> None:
    with pytest.raises(ResponseError, match="not a number"):
        await scripts.heartbeat("a", sign(**wrong))
    assert await store.dbsize() == 0
