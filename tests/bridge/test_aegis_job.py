"""`Job.abort()` of a job that our pool returned: at once, wherever the job is."""

import asyncio

import pytest
from arq.jobs import JobStatus

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.scripts import Scripts
from tests.bridge.test_claiming import QUEUE, claim, ending, finish, kinds


@pytest.mark.parametrize("delay_s", [None, 60])
async def test_waiting_job_is_aborted_without_any_worker(store: AegisRedis, delay_s: int | None) -> None:
    job = await store.enqueue_job("send", _queue_name=QUEUE, _job_id="job", _defer_by=delay_s)
    assert job
    assert await job.abort()
    assert await job.status() is JobStatus.complete
    assert (await kinds(store, "job"))[-1] == "aborted"
    with pytest.raises(asyncio.CancelledError):
        await job.result(timeout=1)


async def test_id_can_be_used_again_after_an_abort(store: AegisRedis, scripts: Scripts) -> None:
    job = await store.enqueue_job("send", _queue_name=QUEUE, _job_id="job")
    assert job
    await job.abort()
    await store.delete(keys.result("job"))
    await store.enqueue_job("send", _queue_name=QUEUE, _job_id="job")
    claims = await claim(scripts)
    assert claims.jobs[4] == b"run"


async def test_job_that_has_ended_is_not_aborted(store: AegisRedis, scripts: Scripts) -> None:
    job = await store.enqueue_job("send", _queue_name=QUEUE, _job_id="job")
    assert job
    await claim(scripts)
    await finish(scripts, ending("job", result=b""))
    assert not await job.abort(timeout=1)
    assert not await store.exists(keys.ABORT)


async def test_caller_that_is_cancelled_while_it_waits_is_cancelled(store: AegisRedis, scripts: Scripts) -> None:
    job = await store.enqueue_job("send", _queue_name=QUEUE, _job_id="job")
    assert job
    await claim(scripts)
    aborting = asyncio.create_task(job.abort())
    async with asyncio.timeout(10):
        while not await store.exists(keys.orders("w")):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.01)
    aborting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await aborting
    assert await kinds(store, "job") == ["enqueued", "started"]
