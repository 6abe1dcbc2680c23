from typing import Any

import pytest
from arq.jobs import serialize_result

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.codec import job_serializer
from bridge.enqueue import Enqueuer, TaskRequest
from bridge.errors import JobNotFound, UndecodablePayload
from bridge.events import ErrorSummary
from bridge.inspector import Inspector
from bridge.scripts import NewProgress, Scripts

QUEUE = keys.queue("load_test")


@pytest.fixture
def inspector(store: AegisRedis, catalog: Catalog, scripts: Scripts) -> Inspector:
    return Inspector(store, catalog, scripts)


@pytest.fixture
async def job_id(catalog: Catalog, scripts: Scripts) -> str:
    return (await Enqueuer(catalog, scripts).enqueue(TaskRequest(task_name="io_simulation_task"))).task_id


async def store_result(store: AegisRedis, job_id: str, result: Any, *, success: bool = True) -> None:
    raw = serialize_result(
        "io_simulation_task",
        (),
        {},
        2,
        1000,
        success,
        result,
        2000,
        3000,
        "ref",
        QUEUE,
        job_id,
        serializer=job_serializer,
    )
    assert raw is not None
    await store.delete(keys.job(job_id), keys.in_progress(job_id))
    await store.zrem(QUEUE, job_id)
    await store.set(keys.result(job_id), raw, px=60_000)


async def test_queued_job(inspector: Inspector, job_id: str, store: AegisRedis) -> None:
    status = await inspector.status(job_id)
    assert (status.status, status.task_name, status.queue_type) == ("queued", "io_simulation_task", "load_test")
    assert (status.attempt, status.result_available) == (0, False)
    assert status.event_id == (await store.xrevrange(keys.EVENTS, count=1))[0][0].decode()
    assert not (await inspector.result(job_id)).is_final


async def test_job_that_is_due_later_is_deferred(inspector: Inspector, job_id: str, store: AegisRedis) -> None:
    await store.zadd(QUEUE, {job_id: 4_000_000_000_000})
    assert (await inspector.status(job_id)).status == "deferred"


async def test_job_that_a_worker_holds_is_in_progress(inspector: Inspector, job_id: str, store: AegisRedis) -> None:
    await store.set(keys.in_progress(job_id), b"1", px=60_000)
    await store.set(keys.retry(job_id), b"2", px=60_000)
    status = await inspector.status(job_id)
    assert (status.status, status.attempt) == ("in_progress", 2)


async def test_running_job_tells_its_progress(
    inspector: Inspector, job_id: str, store: AegisRedis, scripts: Scripts
) -> None:
    await store.set(keys.in_progress(job_id), b"w:1", px=60_000)
    await store.set(keys.retry(job_id), b"2", px=60_000)
    assert (await inspector.status(job_id)).progress is None
    data = b'{"current":30,"total":100,"message":"resizing"}'
    await scripts.progress("load_test", worker="w", reports=[NewProgress(job_id, "w:1", "x", 2, data)])
    assert (await inspector.status(job_id)).progress == {"current": 30, "total": 100, "message": "resizing"}


@pytest.mark.parametrize("stored", [b'{"token":"w:0","current":3}', b"{", b"[]", b"\xff"])
async def test_progress_of_an_earlier_run_or_of_somebody_else_does_not_count(
    inspector: Inspector, job_id: str, store: AegisRedis, stored: bytes
) -> None:
    await store.set(keys.in_progress(job_id), b"w:1", px=60_000)
    await store.set(keys.retry(job_id), b"2", px=60_000)
    await store.set(keys.progress(job_id), stored, px=60_000)
    assert (await inspector.status(job_id)).progress is None


async def test_job_that_does_not_run_has_no_progress(inspector: Inspector, job_id: str, store: AegisRedis) -> None:
    await store.set(keys.retry(job_id), b"1", px=60_000)
    await store.set(keys.progress(job_id), b'{"token":"w:1","current":3}', px=60_000)
    assert (await inspector.status(job_id)).progress is None


async def test_succeeded_job(inspector: Inspector, job_id: str, store: AegisRedis) -> None:
    await store_result(store, job_id, {"answer": 42})
    status = await inspector.status(job_id)
    assert (status.status, status.attempt, status.result_available) == ("succeeded", 2, True)
    assert status.finish_time is not None
    assert status.finish_time.timestamp() == 3
    result = await inspector.result(job_id)
    assert result.is_final
    assert result.result == {"answer": 42}


async def test_failed_job_tells_its_error_without_the_traceback(
    inspector: Inspector, job_id: str, store: AegisRedis
) -> None:
    await store_result(store, job_id, ValueError("no"), success=False)
    assert (await inspector.status(job_id)).error == ErrorSummary(type="ValueError", message="no")
    result = await inspector.result(job_id)
    assert (result.status, result.error) == ("failed", ErrorSummary(type="ValueError", message="no"))


async def test_aborted_job_is_not_called_failed(inspector: Inspector, job_id: str, store: AegisRedis) -> None:
    import asyncio

    await store_result(store, job_id, asyncio.CancelledError(), success=False)
    assert (await inspector.status(job_id)).status == "aborted"


async def test_unknown_job(inspector: Inspector) -> None:
    with pytest.raises(JobNotFound):
        await inspector.status("nobody")
    with pytest.raises(JobNotFound):
        await inspector.result("nobody")


async def test_job_whose_body_expired_is_still_found_in_its_queue(
    inspector: Inspector, job_id: str, store: AegisRedis
) -> None:
    await store.delete(keys.job(job_id))
    status = await inspector.status(job_id)
    assert (status.status, status.task_name, status.queue_type) == ("queued", None, "load_test")


async def test_result_of_another_codec_is_an_error_of_its_own(
    inspector: Inspector, job_id: str, store: AegisRedis
) -> None:
    await store.set(keys.result(job_id), b"\x80\x04N.", px=60_000)
    with pytest.raises(UndecodablePayload, match="pickled"):
        await inspector.status(job_id)


async def test_queue_tells_whether_its_worker_is_there(inspector: Inspector, job_id: str, store: AegisRedis) -> None:
    messages = {queue.name: queue.message for queue in await inspector.queues()}
    assert messages == {"system": "worker offline", "load_test": "worker offline", "media": "no tasks defined"}
    await store.set(keys.health_check(QUEUE), b"j_complete=0", px=60_000)
    (load_test,) = [queue for queue in await inspector.queues() if queue.name == "load_test"]
    assert (load_test.message, load_test.queued) == ("ready", 1)
