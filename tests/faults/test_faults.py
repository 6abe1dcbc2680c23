"""Workers are killed, Redis goes away: nothing acknowledged is lost, nothing is committed twice."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq import func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.broker import STORE_AWAY, open_redis
from bridge.event_stream import EventStream
from bridge.events import Event, JobFailed, JobRetrying, WorkerLost
from bridge.settings import Settings
from tests.cli.processes import Commands, ValkeyChild
from tests.faults.chaos import run_chaos
from tests.faults.chaos_queue import QUEUE
from workers.batch_worker import BatchWorker
from workers.progress import report_progress

RECOVERY_S = 15
"""A lease of 10 s, and the start of a process on a busy machine."""


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyChild]:
    """A Valkey of the test's own, with an append-only file, to be ended and started again."""
    child = ValkeyChild(tmp_path)
    child.start()
    yield child
    child.close()


@pytest.fixture
async def client(valkey: ValkeyChild) -> AsyncIterator[AegisRedis]:
    redis = open_redis(Settings(redis_url=valkey.url))
    yield redis
    await redis.aclose(close_connection_pool=True)


@pytest.fixture
def commands(tmp_path: Path, valkey: ValkeyChild) -> Iterator[Commands]:
    started = Commands(tmp_path, REDIS_URL=valkey.url, AEGIS_QUEUES="tests.faults.chaos_queue")
    yield started
    started.close()


async def events(redis: AegisRedis, job_id: str = "job") -> list[Event]:
    return [event for event in await EventStream(redis).history() if event.job_id == job_id]


async def until_started(redis: AegisRedis, attempts: int, job_id: str = "job") -> None:
    async with asyncio.timeout(60):
        while sum(e.kind == "job.started" for e in await events(redis, job_id)) < attempts:  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.02)


async def test_job_of_a_killed_worker_starts_elsewhere_once_its_lease_is_over(
    client: AegisRedis, commands: Commands
) -> None:
    await client.enqueue_job("wait", _queue_name=QUEUE, _job_id="job")
    first = commands.start("worker")
    await until_started(client, 1)
    commands.start("worker")
    first.process.kill()
    await until_started(client, 2)
    _, first_start, retrying, second_start = await events(client)
    assert second_start.at_ms - first_start.at_ms < RECOVERY_S * 1000
    data = retrying.read_data()
    assert isinstance(data, JobRetrying)
    assert data.reason == "stalled"
    assert (first_start.attempt, second_start.attempt) == (1, 2)


async def test_killed_worker_is_told_as_lost_by_one_of_another_queue(client: AegisRedis, commands: Commands) -> None:
    commands.environ["AEGIS_QUEUES"] = "tests.faults.chaos_queue,workers.queues.system"
    killed = commands.start("worker", "chaos")
    commands.start("worker", "system")
    commands.start("worker", "system")
    async with asyncio.timeout(60):
        while await client.zcard(keys.WORKERS) < 3:  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.02)
    killed.process.kill()
    async with asyncio.timeout(60):
        while await client.zcard(keys.WORKERS) > 2:  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.02)
    lost = [event for event in await EventStream(client).history() if event.kind == "worker.lost"]
    assert [event.queue for event in lost] == ["chaos"]
    data = lost[0].read_data()
    assert isinstance(data, WorkerLost)
    assert data.pid == killed.process.pid


async def test_job_that_kills_every_worker_ends_as_failed(
    client: AegisRedis, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.enqueue_job("wait", _queue_name=QUEUE, _job_id="job")
    await client.set(keys.retry("job"), 19)  # of 20 attempts one is left
    worker = commands.start("worker")
    await until_started(client, 1)
    worker.process.kill()
    commands.start("worker")
    async with asyncio.timeout(60):
        while (await events(client))[-1].kind != "job.failed":  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.02)
    failed = (await events(client))[-1]
    data = failed.read_data()
    assert isinstance(data, JobFailed)
    assert (data.reason, failed.attempt) == ("tries_exhausted", 20)


async def test_outcome_is_kept_while_redis_is_down_and_written_when_it_is_back(
    valkey: ValkeyChild, client: AegisRedis
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def work(ctx: dict[str, Any]) -> str:
        reached.set()
        await go_on.wait()
        return "done"

    await client.enqueue_job("work", _queue_name=QUEUE, _job_id="job")
    worker = BatchWorker([func(work, name="work")], queue_name=QUEUE, redis_pool=client, handle_signals=False)
    running = asyncio.create_task(worker.async_run())
    await reached.wait()
    valkey.kill()
    go_on.set()
    async with asyncio.timeout(10):
        while not len(worker._buffer):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    valkey.start()
    async with asyncio.timeout(20):
        while not await client.exists(keys.result("job")):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.05)
    assert not running.done()
    assert [e.kind for e in await events(client)] == ["job.enqueued", "job.started", "job.succeeded"]
    worker.handle_sig(signal.SIGTERM)
    await running


async def test_progress_that_cannot_be_written_holds_up_no_outcome(valkey: ValkeyChild, client: AegisRedis) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def work(ctx: dict[str, Any]) -> str:
        report_progress(ctx, 1)
        reached.set()
        await go_on.wait()
        report_progress(ctx, 2)
        return "done"

    await client.enqueue_job("work", _queue_name=QUEUE, _job_id="job")
    worker = BatchWorker([func(work, name="work")], queue_name=QUEUE, redis_pool=client, handle_signals=False)
    running = asyncio.create_task(worker.async_run())
    await reached.wait()
    async with asyncio.timeout(10):
        while not await client.exists(keys.progress("job")):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.01)
    valkey.kill()
    go_on.set()
    async with asyncio.timeout(10):
        while not len(worker._buffer) or worker._progress.has_unwritten:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    valkey.start()
    async with asyncio.timeout(20):
        while not await client.exists(keys.result("job")):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.05)
    kinds = [e.kind.removeprefix("job.") for e in await events(client)]
    assert kinds == ["enqueued", "started", "progressed", "succeeded"], "the last report is dropped"
    worker.handle_sig(signal.SIGTERM)
    await running


async def test_progress_of_a_running_job_is_written_when_redis_is_back(
    valkey: ValkeyChild, client: AegisRedis, caplog: pytest.LogCaptureFixture
) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def work(ctx: dict[str, Any]) -> str:
        reached.set()
        await go_on.wait()
        report_progress(ctx, 1)
        await asyncio.Event().wait()
        return "done"

    await client.enqueue_job("work", _queue_name=QUEUE, _job_id="job")
    worker = BatchWorker([func(work, name="work")], queue_name=QUEUE, redis_pool=client, handle_signals=False)
    running = asyncio.create_task(worker.async_run())
    await reached.wait()
    valkey.kill()
    go_on.set()
    async with asyncio.timeout(10):
        while "progress of jobs cannot be written" not in caplog.text:  # noqa: ASYNC110 - it is in the log
            await asyncio.sleep(0.01)
    valkey.start()
    await client.connection_pool.disconnect()
    async with asyncio.timeout(20):
        while not await client.exists(keys.progress("job")):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.05)
    worker.handle_sig(signal.SIGTERM)
    await running
    assert [e.kind.removeprefix("job.") for e in await events(client)][1:] == ["started", "progressed", "retrying"]


@pytest.mark.parametrize("trouble", ["maxmemory", "read_only"])
async def test_worker_waits_while_redis_takes_no_writes(client: AegisRedis, trouble: str) -> None:
    async def work(ctx: dict[str, Any]) -> str:
        return "done"

    async def make_trouble(is_on: bool) -> None:
        if trouble == "maxmemory":
            await client.config_set("maxmemory", 1 if is_on else 0)
        elif is_on:
            await client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        else:
            await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]

    worker = BatchWorker([func(work, name="work")], queue_name=QUEUE, redis_pool=client, handle_signals=False)
    running = asyncio.create_task(worker.async_run())
    await client.enqueue_job("work", _queue_name=QUEUE, _job_id="before")
    await until_started(client, 1, "before")
    await make_trouble(True)
    with pytest.raises(STORE_AWAY):
        await client.enqueue_job("work", _queue_name=QUEUE, _job_id="refused")
    await asyncio.sleep(1)
    assert not running.done()
    await make_trouble(False)
    assert not await events(client, "refused")
    await client.enqueue_job("work", _queue_name=QUEUE, _job_id="after")
    async with asyncio.timeout(20):
        while await client.exists(keys.result("before"), keys.result("after")) < 2:  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.05)
    worker.handle_sig(signal.SIGTERM)
    await running


async def test_chaos_loses_and_doubles_nothing(tmp_path: Path) -> None:
    books = await run_chaos(tmp_path, jobs=3000, kills=6)
    print(books)
    books.check()
