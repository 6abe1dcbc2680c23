from typing import Any

import pytest

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.codec import decode_result
from bridge.control import Control
from bridge.errors import InvalidQueueType, JobNotFound
from bridge.event_stream import EventStream
from bridge.events import JobAborted, QueuePaused
from bridge.inspector import Inspector
from bridge.scripts import Scripts

QUEUE = keys.queue("load_test")


@pytest.fixture
def control(store: AegisRedis, catalog: Catalog, scripts: Scripts) -> Control:
    return Control(store, catalog, scripts, keep_result_s=60)


async def enqueue(store: AegisRedis, **options: Any) -> None:
    await store.enqueue_job("io_simulation_task", delay_ms=5, _queue_name=QUEUE, _job_id="job", **options)


async def newest(store: AegisRedis) -> Any:
    return (await EventStream(store).history())[-1]


@pytest.mark.parametrize(("options", "was"), [({}, "queued"), ({"_defer_by": 60}, "deferred")])
async def test_waiting_job_ends_now(
    store: AegisRedis, control: Control, catalog: Catalog, scripts: Scripts, options: dict[str, Any], was: str
) -> None:
    await enqueue(store, **options)
    assert await control.abort("job", by="ada", reason="a mistake") == "aborted"
    event = await newest(store)
    assert (event.kind, event.task, event.read_data()) == (
        "job.aborted",
        "io_simulation_task",
        JobAborted(was=was, by="ada", reason="a mistake"),
    )
    assert not await store.exists(QUEUE, keys.job("job"), keys.retry("job"), keys.ABORT)
    assert (await Inspector(store, catalog, scripts).status("job")).status == "aborted"
    raw = await store.get(keys.result("job"))
    assert raw is not None
    assert (decode_result(raw).k, decode_result(raw).q, decode_result(raw).id) == ({"delay_ms": 5}, QUEUE, "job")
    assert 0 < await store.pttl(keys.result("job")) <= 3_600_000


async def test_job_of_a_worker_of_ours_is_aborted_by_order(store: AegisRedis, control: Control) -> None:
    await enqueue(store)
    await store.set(keys.in_progress("job"), "host:1:ab:7", px=10_000)
    assert await control.abort("job", by="ada") == "asked"
    orders: Any = store.lrange(keys.orders("host:1:ab"), 0, -1)
    (order,) = await orders
    assert b'"job_id":"job"' in order
    assert b'"token":"host:1:ab:7"' in order
    assert await store.pttl(keys.orders("host:1:ab")) > 0
    await store.delete(keys.ABORT)


async def test_job_of_a_stock_worker_is_aborted_in_arqs_way(store: AegisRedis, control: Control) -> None:
    await enqueue(store)
    await store.set(keys.in_progress("job"), "1", px=10_000)
    assert await control.abort("job") == "asked"
    assert await store.zscore(keys.ABORT, "job") is not None
    await store.delete(keys.ABORT)


async def test_job_whose_body_only_its_worker_can_read_is_left_to_it(store: AegisRedis, control: Control) -> None:
    await enqueue(store, _defer_by=60)
    await store.set(keys.job("job"), b"\x80\x04N.")
    assert await control.abort("job") == "asked"
    now_ms = (await store.time())[0] * 1000 + 1000
    score = await store.zscore(QUEUE, "job")
    assert score is not None
    assert score <= now_ms, "a worker takes it at once"
    await store.delete(keys.ABORT)


async def test_ended_job_stays_as_it_is(store: AegisRedis, control: Control) -> None:
    await store.set(keys.result("job"), b"{}", px=1000)
    assert await control.abort("job") == "ended"
    assert not await store.exists(keys.ABORT, keys.EVENTS)


async def test_unknown_job_is_said_to_be(store: AegisRedis, control: Control) -> None:
    with pytest.raises(JobNotFound):
        await control.abort("job")
    assert await store.keys() == []


async def test_pause_and_resume_are_told_once(
    store: AegisRedis, control: Control, catalog: Catalog, scripts: Scripts
) -> None:
    assert await control.pause("load_test", by="ada")
    assert not await control.pause("load_test")
    event = await newest(store)
    assert (event.kind, event.queue, event.read_data()) == ("queue.paused", "load_test", QueuePaused(by="ada"))
    status = await Inspector(store, catalog, scripts).queue(catalog.queue("load_test"))
    assert status.message == "paused"
    assert await control.resume("load_test")
    assert not await control.resume("load_test")
    assert [e.kind for e in await EventStream(store).history()] == ["queue.paused", "queue.resumed"]
    assert await store.exists(keys.wake("load_test")), "a worker looks for what has gathered"


async def test_unknown_queue_cannot_be_paused(control: Control) -> None:
    with pytest.raises(InvalidQueueType):
        await control.pause("nothing")
