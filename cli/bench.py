"""``aegis-tasks bench``: how fast this installation is."""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any, Final, cast

import msgspec
import typer
from arq.worker import func

from bridge import keys
from bridge.broker import open_redis, safe_address
from bridge.catalog import Catalog, Queue, read_queue
from bridge.embedded_valkey import stop
from bridge.enqueue import TaskRequest
from bridge.redis_backend import RedisBackend
from bridge.settings import Settings, read_settings
from cli.context import open_store, run
from cli.options import Json
from cli.printing import console, error_console, print_json
from workers.batch_worker import BatchWorker
from workers.run import make_worker, run_workers

__all__ = ["bench"]

TASK: Final = "note_start"
BATCH: Final = 1000
ONE_BY_ONE: Final = 500
STARTS: Final = 200
KEEP_RESULT_S: Final = 60
PATIENCE_S: Final = 30


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        enqueue_per_second: one at a time, each after the answer to the one before.
        enqueue_batch_per_second: a thousand at a time.
        run_per_second: jobs of a task that does nothing, by one worker process, from the first claim to the last end.
        start_p50_ms, start_p95_ms, start_p99_ms: from the enqueue to the first line of the task, with an idle worker.
    """

    redis: str
    jobs: int
    enqueue_per_second: int
    enqueue_batch_per_second: int
    run_per_second: int
    start_p50_ms: float
    start_p95_ms: float
    start_p99_ms: float


def bench(
    jobs: Annotated[int, typer.Option(min=BATCH, help="So many jobs in batches.")] = 10_000,
    here: Annotated[
        bool,
        typer.Option("--here", help="On the Redis of the settings, on a queue of its own; its events stay."),
    ] = False,
    json: Json = False,
) -> None:
    """Measure how fast jobs are enqueued, started and run here: a few seconds on a Valkey that is gone afterwards.

    **Examples:** `aegis-tasks bench`, `aegis-tasks bench --jobs 1000 --json`
    """
    with store_for(read_settings(), is_here=here) as settings:
        found = run(measure(settings, jobs))
    if json:
        print_json(found)
        return
    rows = {
        "enqueue one by one": f"{found.enqueue_per_second} jobs/s",
        "enqueue in batches": f"{found.enqueue_batch_per_second} jobs/s",
        "run by one worker": f"{found.run_per_second} jobs/s",
        "start, worker idle": f"p50 {found.start_p50_ms} ms, p95 {found.start_p95_ms} ms, p99 {found.start_p99_ms} ms",
    }
    for name, value in rows.items():
        console.print(f"{name:<20}{value}", markup=False)


@contextlib.contextmanager
def store_for(settings: Settings, *, is_here: bool) -> Iterator[Settings]:
    """Settings of the Redis to measure; one that was started for it is gone afterwards."""
    if is_here:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="aegis-bench-") as name:
        folder = Path(name)
        try:
            yield msgspec.structs.replace(settings, redis_url="", data_dir=folder)
        finally:
            stop(folder)


async def measure(settings: Settings, jobs: int) -> Measured:
    started: asyncio.Queue[float] = asyncio.Queue()
    queue = make_queue(started)
    with error_console.status("measuring") as display:
        async with open_store(settings) as opened:
            store = RedisBackend(settings, Catalog([queue]), opened.redis)
            request = TaskRequest(task_name=TASK)
            display.update("enqueueing one by one")
            begun_s = time.perf_counter()
            for _ in range(ONE_BY_ONE):
                await store.enqueue(request)
            one_by_one_s = time.perf_counter() - begun_s
            display.update("enqueueing in batches")
            items = [{"task_name": TASK}] * BATCH
            begun_s = time.perf_counter()
            for _ in range(jobs // BATCH):
                await store.enqueue_batch(items)
            batches_s = time.perf_counter() - begun_s
            display.update("running them")
            begun_s = time.perf_counter()
            await run_workers([new_worker(store, queue, burst=True)])
            run_s = time.perf_counter() - begun_s
            display.update("starting one after the other")
            starts_ms = await measure_starts(store, queue, started)
            await opened.redis.delete(keys.health_check(queue.key))
    cuts = quantiles(starts_ms, n=100)
    return Measured(
        redis=safe_address(settings),
        jobs=ONE_BY_ONE + jobs // BATCH * BATCH + STARTS,
        enqueue_per_second=round(ONE_BY_ONE / one_by_one_s),
        enqueue_batch_per_second=round(jobs // BATCH * BATCH / batches_s),
        run_per_second=round((ONE_BY_ONE + jobs // BATCH * BATCH) / run_s),
        start_p50_ms=round(cuts[49], 2),
        start_p95_ms=round(cuts[94], 2),
        start_p99_ms=round(cuts[98], 2),
    )


def make_queue(started: "asyncio.Queue[float]") -> Queue:
    """A queue of our own, with a task that tells when it starts."""

    async def note_start(_: dict[Any, Any]) -> None:
        started.put_nowait(time.perf_counter())

    options = {
        "queue_name": keys.queue(f"bench-{secrets.token_hex(4)}"),
        "functions": [func(cast(Any, note_start), name=TASK)],
        "keep_result": KEEP_RESULT_S,
        "max_jobs": 100,
    }
    return read_queue(type("BenchSettings", (), options), "cli.bench")


async def measure_starts(store: RedisBackend, queue: Queue, started: "asyncio.Queue[float]") -> list[float]:
    """How long each job took from its enqueue to its start, in ms."""
    found = []
    while not started.empty():
        started.get_nowait()
    async with idle_worker(store, queue):
        for _ in range(STARTS):
            begun_s = time.perf_counter()
            await store.enqueue(TaskRequest(task_name=TASK))
            found.append((await asyncio.wait_for(started.get(), PATIENCE_S) - begun_s) * 1000)
    return found


def new_worker(store: RedisBackend, queue: Queue, *, burst: bool = False) -> BatchWorker:
    redis = open_redis(store.settings)
    redis.default_queue_name = queue.key
    return make_worker(queue, burst=burst, redis=redis, events_max_len=store.settings.events_max_len)


@contextlib.asynccontextmanager
async def idle_worker(store: RedisBackend, queue: Queue) -> AsyncIterator[None]:
    running = asyncio.create_task(run_workers([new_worker(store, queue)]))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
