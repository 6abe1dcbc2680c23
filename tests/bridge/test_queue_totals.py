from typing import Any

from arq import Retry, func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.catalog import Catalog
from bridge.control import Control
from bridge.dead_letters import DeadFilter, DeadLetters
from bridge.new_job import job_body
from bridge.queue_totals import QueueTotals, read_totals, totals_of
from bridge.scripts import NewJob, Scripts
from workers.batch_worker import BatchWorker


def new_job(job_id: str, queue: str = "load_test", **options: Any) -> NewJob:
    body = job_body("io_simulation_task", (), {})
    return NewJob(
        job_id=job_id, task="io_simulation_task", queue=queue, queue_key=keys.queue(queue), body=body, **options
    )


async def totals(store: AegisRedis, queue: str = "load_test") -> QueueTotals:
    (found,) = await read_totals(store, [queue])
    return found


async def test_each_stored_job_is_counted_once_with_its_queue(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("a"), new_job("b"), new_job("a"), new_job("c", delay_ms=5000)])
    await scripts.enqueue([new_job("d", "system"), new_job("b"), new_job("e")])
    here, there, nowhere = await read_totals(store, ["load_test", "system", "media"])
    assert (here.enqueued, here.deferred) == (3, 1)
    assert (there.enqueued, there.deferred) == (1, 0)
    assert nowhere == totals_of({})


async def test_only_deferred_jobs_count_as_no_enqueued_one(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("a", delay_ms=5000)])
    found = await totals(store)
    assert (found.enqueued, found.deferred) == (0, 1)


async def test_job_that_is_aborted_while_it_waits_is_counted(
    store: AegisRedis, scripts: Scripts, catalog: Catalog
) -> None:
    await scripts.enqueue([new_job("a")])
    await Control(store, catalog, scripts, keep_result_s=60).abort("a")
    await Control(store, catalog, scripts, keep_result_s=60).abort("a")
    assert (await totals(store)).aborted == 1


async def test_job_that_has_expired_is_counted_when_its_id_is_taken(store: AegisRedis, scripts: Scripts) -> None:
    await scripts.enqueue([new_job("a", expires_ms=60_000)])
    await store.delete(keys.job("a"))
    await scripts.enqueue([new_job("a")])
    found = await totals(store)
    assert (found.enqueued, found.failed) == (2, 1)


async def test_what_the_worker_ends_is_counted_and_never_expires(redis: AegisRedis, catalog: Catalog) -> None:
    async def io_simulation_task(ctx: dict[str, Any], outcome: str) -> None:
        if outcome == "fail":
            raise ValueError
        if outcome == "retry" and ctx["job_try"] == 1:
            raise Retry

    key = keys.queue("load_test")
    for number, outcome in enumerate(["succeed"] * 3 + ["fail", "retry"]):
        await redis.enqueue_job("io_simulation_task", outcome, _job_id=str(number), _queue_name=key)
    options: dict[str, Any] = {"redis_pool": redis, "burst": True, "handle_signals": False}
    worker = BatchWorker([func(io_simulation_task, name="io_simulation_task")], queue_name=key, **options)
    await worker.async_run()
    found = await totals(redis)
    assert (found.succeeded, found.failed, found.retried, found.aborted) == (4, 1, 1, 0)
    assert sum(found.waits.values()) == sum(found.runs.values()) == 6
    assert await redis.ttl(keys.totals("load_test")) == -1

    letters = DeadLetters(redis, catalog, redis.scripts)
    assert [step.done async for step in letters.retry(DeadFilter(queue="load_test"))][-1] == 1
    assert (await totals(redis)).requeued == 1


async def test_counter_that_cannot_be_written_is_in_nobodys_way(store: AegisRedis, scripts: Scripts) -> None:
    await store.set(keys.totals("load_test"), "x")
    _, (event_id,) = await scripts.enqueue([new_job("a")])
    assert event_id
    assert await store.zscore(keys.queue("load_test"), "a")
    assert await store.get(keys.totals("load_test")) == b"x"


def test_fields_of_a_later_version_are_ignored() -> None:
    found = totals_of({b"wait:x": b"1", b"job.new": b"5", b"run:": b"2", b"run:7": b"3"})
    assert (found.waits, found.runs) == ({}, {7: 3})
