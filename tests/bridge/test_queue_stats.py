import asyncio
from typing import Any

import pytest
from arq import Retry, func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.queue_stats import QueueStats, read_stats, summarize
from bridge.time_buckets import bucket
from workers.batch_worker import BatchWorker


async def count(store: AegisRedis, minute: int, queue: str = "mail", **counts: int) -> None:
    fields = {name.replace("__", ":").replace("_", "."): number for name, number in counts.items()}
    writing: Any = store.hset(keys.stats(queue, minute), mapping=fields)
    await writing
    await store.expire(keys.stats(queue, minute), 60)


async def this_minute(store: AegisRedis) -> int:
    """With enough left of it for a test."""
    while (seconds := (await store.time())[0]) % 60 > 55:  # noqa: ASYNC110 - it is Redis' clock
        await asyncio.sleep(0.1)
    return int(seconds) // 60


async def test_counters_of_the_last_minutes_are_added_up(store: AegisRedis) -> None:
    minute = await this_minute(store)
    for back, number in enumerate([1, 10, 100, 1000]):
        await count(store, minute - back, job_succeeded=number, job_failed=number, job_retrying=3)
    await count(store, minute, queue="other", job_aborted=7)
    mail, other, nothing = await read_stats(store, ["mail", "other", "nothing"], minutes=2)
    assert (mail.succeeded, mail.failed, mail.aborted, mail.retried) == (111, 111, 0, 9)
    assert (other.succeeded, other.aborted) == (0, 7)
    assert nothing == summarize([], seconds=nothing.seconds)
    assert 120 <= mail.seconds == other.seconds < 180


async def test_all_queues_are_read_in_one_pipeline_and_the_time_before(
    store: AegisRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    send = AegisRedis.execute_command

    async def execute(self: AegisRedis, *args: Any, **options: Any) -> Any:
        sent.append(args[0])
        return await send(self, *args, **options)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(AegisRedis, "execute_command", execute)
    assert len(await read_stats(store, ["one", "two", "three"])) == 3
    assert sent == ["TIME"]


def test_rates_are_of_the_time_that_has_passed() -> None:
    fields = {b"job.succeeded": b"290", b"job.failed": b"10", b"job.aborted": b"30", b"job.retrying": b"50"}
    stats = summarize([fields, {}], seconds=90.0)
    assert stats.per_second == pytest.approx(330 / 90, abs=0.001)
    assert stats.failure_rate == pytest.approx(10 / 300, abs=0.0001)


def test_times_come_from_their_buckets() -> None:
    first = {b"wait:0": b"19", f"run:{bucket(100)}".encode(): b"10"}
    second = {b"wait:3": b"1", f"run:{bucket(5000)}".encode(): b"10"}
    stats = summarize([first, second], seconds=1)
    assert (stats.wait_p50_ms, stats.wait_p95_ms) == (0, 0)
    assert (bucket(stats.run_p50_ms or 0), bucket(stats.run_p95_ms or 0)) == (bucket(100), bucket(5000))


def test_without_jobs_there_is_neither_rate_of_failures_nor_time() -> None:
    stats = summarize([{}], seconds=300)
    assert stats == QueueStats(
        seconds=300, succeeded=0, failed=0, aborted=0, retried=0, per_second=0, failure_rate=None,
        wait_p50_ms=None, wait_p95_ms=None, run_p50_ms=None, run_p95_ms=None,
    )  # fmt: skip


def test_fields_of_a_later_version_are_ignored() -> None:
    assert summarize([{b"wait:x": b"1", b"job.new": b"5", b"run:": b"2"}], seconds=1).succeeded == 0


async def test_what_the_worker_counts_is_what_is_read(redis: AegisRedis) -> None:
    async def work(ctx: dict[str, Any], outcome: str) -> None:
        if outcome == "fail":
            raise ValueError
        if outcome == "retry" and ctx["job_try"] == 1:
            raise Retry

    for number, outcome in enumerate(["succeed"] * 3 + ["fail", "retry"]):
        await redis.enqueue_job("work", outcome, _job_id=str(number), _queue_name=keys.queue("mail"))
    options: dict[str, Any] = {"redis_pool": redis, "burst": True, "handle_signals": False}
    worker = BatchWorker([func(work, name="work")], queue_name=keys.queue("mail"), **options)
    await worker.async_run()
    (stats,) = await read_stats(redis, ["mail"])
    assert (stats.succeeded, stats.failed, stats.retried) == (4, 1, 1)
    assert stats.failure_rate == 0.2
    assert None not in (stats.wait_p50_ms, stats.wait_p95_ms, stats.run_p50_ms, stats.run_p95_ms)
