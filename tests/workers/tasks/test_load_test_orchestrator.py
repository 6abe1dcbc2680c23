import asyncio
from typing import Any

import pytest
from arq.worker import Worker, func
from redis.exceptions import ConnectionError

from bridge.aegis_redis import AegisRedis
from tests.workers.tasks.event_loop import wait_until
from workers.tasks.failure_testing import failure_testing_task
from workers.tasks.load_test_orchestrator import load_test_orchestrator

QUEUE = "arq:queue:load_test"


async def queued_ids(redis: AegisRedis, queue: str = QUEUE) -> set[str]:
    return {job_id.decode() for job_id in await redis.zrange(queue, 0, -1)}


async def first_batch_is_queued(redis: AegisRedis) -> bool:
    return len(await queued_ids(redis)) == 20


async def test_orchestrator_enqueues_fifty_io_jobs_without_arguments(ctx: dict[str, Any], redis: AegisRedis) -> None:
    done = await load_test_orchestrator(ctx, delay_between_batches_ms=0)

    jobs = await redis.queued_jobs()
    assert {job.job_id for job in jobs} == {f"job-1:{number}" for number in range(50)}
    assert {(job.function, tuple(job.args), *job.kwargs) for job in jobs} == {("io_simulation_task", ())}
    assert (done.enqueued, done.already_enqueued, done.num_tasks, done.batches) == (50, 0, 50, 3)
    assert (done.task_id_prefix, done.queue_key, done.task_name) == ("job-1:", QUEUE, "io_simulation_task")


@pytest.mark.parametrize(
    ("num_tasks", "batch_size", "batches"), [(1, 1_000, 1), (20, 20, 1), (21, 20, 2), (7, 1, 7), (300, 1_000, 1)]
)
async def test_every_job_is_in_exactly_one_batch(
    ctx: dict[str, Any], redis: AegisRedis, num_tasks: int, batch_size: int, batches: int
) -> None:
    done = await load_test_orchestrator(ctx, num_tasks=num_tasks, batch_size=batch_size, delay_between_batches_ms=0)
    assert done.batches == batches
    assert done.enqueued == len(await queued_ids(redis)) == num_tasks


async def test_orchestrator_pauses_between_batches_only(ctx: dict[str, Any]) -> None:
    done = await load_test_orchestrator(ctx, num_tasks=6, batch_size=2, delay_between_batches_ms=60)
    assert 2 * 60 <= done.ran_ms < 3 * 60 + 1_000
    single = await load_test_orchestrator(ctx, num_tasks=6, batch_size=6, delay_between_batches_ms=10_000)
    assert single.ran_ms < 10_000


async def test_retry_enqueues_what_is_missing_and_nothing_twice(ctx: dict[str, Any], redis: AegisRedis) -> None:
    first = asyncio.create_task(load_test_orchestrator(ctx, batch_size=20, delay_between_batches_ms=10_000))
    await wait_until(lambda: first_batch_is_queued(redis))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    again = await load_test_orchestrator({**ctx, "job_try": 2}, delay_between_batches_ms=0)

    assert (again.enqueued, again.already_enqueued) == (30, 20)
    assert len(await queued_ids(redis)) == 50


async def test_two_orchestrators_do_not_share_jobs(ctx: dict[str, Any], redis: AegisRedis) -> None:
    await load_test_orchestrator(ctx, num_tasks=3)
    await load_test_orchestrator({**ctx, "job_id": "job-2"}, num_tasks=3)
    assert len(await queued_ids(redis)) == 6


async def test_orchestrator_fails_when_redis_does_and_leaves_no_call_behind(
    ctx: dict[str, Any], redis: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue_job = redis.enqueue_job
    calls = ended = 0

    async def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, ended
        calls += 1
        try:
            if calls == 3:
                raise ConnectionError("gone")
            return await enqueue_job(*args, **kwargs)
        finally:
            ended += 1

    monkeypatch.setattr(redis, "enqueue_job", failing)
    with pytest.raises(ConnectionError, match="gone"):
        await load_test_orchestrator(ctx)
    assert calls == ended == 20


async def test_stock_arq_worker_runs_the_orchestrator_and_then_its_jobs(ctx: dict[str, Any], redis: AegisRedis) -> None:
    worker = Worker(
        functions=[func(load_test_orchestrator), func(failure_testing_task, max_tries=1)],
        redis_pool=redis,
        queue_name=QUEUE,
        burst=True,
        poll_delay=0.01,
        max_jobs=50,
        handle_signals=False,
        job_serializer=redis.job_serializer,
        job_deserializer=redis.job_deserializer,
    )
    await redis.enqueue_job(
        "load_test_orchestrator",
        _job_id="load",
        task_name="failure_testing_task",
        num_tasks=100,
        delay_between_batches_ms=0,
    )

    await worker.async_run()

    results = {result.job_id: result for result in await redis.all_job_results()}
    assert results.keys() == {"load", *(f"load:{number}" for number in range(100))}
    assert results["load"].result["enqueued"] == 100
    failed = [result for result in results.values() if not result.success]
    assert 0 < len(failed) < 60
    assert {result.result.type for result in failed} == {"IntendedFailure"}
