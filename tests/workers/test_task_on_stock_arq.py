"""Tasks as stock arq runs them: its worker, its pickle, a real Valkey. Processes run the functions at the top."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job, JobResult
from arq.worker import Function, Worker

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.errors import ChildProcessDied
from workers import task as task_module
from workers.task import task

Context = dict[Any, Any]
QUEUE = keys.queue("lab")


def year_and_place(ctx: Context, day: date) -> tuple[int, int, str]:
    return day.year, os.getpid(), threading.current_thread().name


def spin(ctx: Context, pid_file: str) -> None:
    new = Path(f"{pid_file}.new")
    new.write_text(str(os.getpid()))
    new.replace(pid_file)
    while True:
        pass


def leave_in_first_attempt(ctx: Context) -> str:
    if ctx["job_try"] == 1:
        os._exit(3)
    return "second time"


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    """One process at a time: a test that needs it quick to answer can have it started before."""
    with ThreadPoolExecutor(max_workers=1) as threads, pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_module, "process_threads", threads)
        yield


@pytest.fixture
async def pool(valkey_url: str, redis: AegisRedis) -> AsyncIterator[ArqRedis]:
    stock = await create_pool(RedisSettings.from_dsn(valkey_url), default_queue_name=QUEUE)
    yield stock
    await stock.aclose(close_connection_pool=True)


def make_worker(pool: ArqRedis, function: Function, *, burst: bool = True) -> Worker:
    return Worker(
        [function],
        redis_pool=pool,
        queue_name=QUEUE,
        burst=burst,
        poll_delay=0.01,
        allow_abort_jobs=True,
        handle_signals=False,
    )


async def run_job(pool: ArqRedis, function: Function, *args: Any) -> tuple[JobResult, Worker]:
    job = await pool.enqueue_job(function.name, *args)
    assert job is not None
    worker = make_worker(pool, function)
    async with asyncio.timeout(30):
        await worker.async_run()
    return await result_of(job), worker


async def result_of(job: Job) -> JobResult:
    result = await job.result_info()
    assert result is not None
    return result


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    running_worker = asyncio.create_task(worker.async_run())
    try:
        yield
    finally:
        running_worker.cancel()
        await asyncio.wait({running_worker})


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - it is in Redis, or about another process
            await asyncio.sleep(0.01)


async def exists(file: Path) -> bool:
    return file.exists()


async def is_gone(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_expected_error_is_retried_after_its_pause(pool: ArqRedis) -> None:
    scores: list[int] = []

    async def connect(ctx: Context) -> str:
        scores.append(ctx["score"])
        if ctx["job_try"] < 3:
            raise ConnectionError("refused")
        return "connected"

    result, worker = await run_job(
        pool, task(connect, name="connect", retry_on=(ConnectionError,), backoff_s=0.02, backoff_max_s=0.03)
    )
    assert (result.success, result.result, result.job_try) == (True, "connected", 3)
    assert (worker.jobs_complete, worker.jobs_retried, worker.jobs_failed) == (1, 2, 0)
    assert scores == sorted(scores), "a job with a pause is due later than before"


async def test_last_attempts_error_is_the_result(pool: ArqRedis) -> None:
    async def connect(ctx: Context) -> None:
        raise ConnectionError(f"refused at attempt {ctx['job_try']}")

    result, worker = await run_job(pool, task(connect, name="connect", retry_on=(OSError,), max_tries=2, backoff_s=0))
    assert not result.success
    assert repr(result.result) == "ConnectionError('refused at attempt 2')"
    assert (worker.jobs_retried, worker.jobs_failed) == (1, 1)


async def test_unexpected_error_fails_the_first_attempt(pool: ArqRedis) -> None:
    async def divide(ctx: Context) -> float:
        return 1 / 0

    result, worker = await run_job(pool, task(divide, name="divide", retry_on=(OSError,)))
    assert isinstance(result.result, ZeroDivisionError)
    assert worker.jobs_retried == 0


async def test_timed_out_attempt_is_retried(pool: ArqRedis) -> None:
    async def hang_once(ctx: Context) -> str:
        if ctx["job_try"] == 1:
            await asyncio.Event().wait()
        return "second time"

    result, _ = await run_job(
        pool, task(hang_once, name="hang", timeout=timedelta(seconds=0.05), retry_on=(TimeoutError,), backoff_s=0)
    )
    assert result.result == "second time"


async def test_timeout_without_retries_is_the_workers(pool: ArqRedis) -> None:
    async def hang(ctx: Context) -> None:
        await asyncio.Event().wait()

    result, worker = await run_job(pool, task(hang, name="hang", timeout=0.05, retry_on=(ConnectionError,)))
    assert isinstance(result.result, TimeoutError)
    assert worker.jobs_retried == 0


async def test_plain_function_runs_in_a_thread(pool: ArqRedis) -> None:
    result, _ = await run_job(pool, task(year_and_place), "2026-01-31")
    year, process_id, thread = result.result
    assert (year, process_id) == (2026, os.getpid())
    assert thread.startswith("task-thread")


async def test_plain_function_runs_in_a_process(pool: ArqRedis) -> None:
    result, _ = await run_job(pool, task(year_and_place, run_in="process"), "2026-01-31")
    year, process_id, thread = result.result
    assert (year, thread) == (2026, "MainThread")
    assert process_id != os.getpid()


async def test_timed_out_thread_ends_its_job_at_once(pool: ArqRedis) -> None:
    go_on = threading.Event()

    def block(ctx: Context) -> None:
        go_on.wait(10)

    try:
        result, _ = await run_job(pool, task(block, name="block", timeout=0.05))
        assert not go_on.is_set()
    finally:
        go_on.set()
    assert isinstance(result.result, TimeoutError)


@pytest.mark.parametrize("retry_on", [(), (TimeoutError,)])
async def test_timed_out_process_is_killed(
    pool: ArqRedis, tmp_path: Path, retry_on: tuple[type[Exception], ...]
) -> None:
    await run_job(pool, task(year_and_place, run_in="process"), "2026-01-31")  # so that it is there
    pid_file = tmp_path / "pid"
    function = task(spin, run_in="process", timeout=0.5, retry_on=retry_on, max_tries=1)
    result, _ = await run_job(pool, function, str(pid_file))
    assert isinstance(result.result, TimeoutError)
    await until(lambda: is_gone(int(pid_file.read_text())))


async def test_aborted_process_is_killed(pool: ArqRedis, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    function = task(spin, run_in="process", retry_on=(Exception,))
    job = await pool.enqueue_job("spin", str(pid_file))
    assert job is not None
    async with running(make_worker(pool, function, burst=False)):
        await until(lambda: exists(pid_file))
        assert await job.abort(timeout=10, poll_delay=0.01)
    await until(lambda: is_gone(int(pid_file.read_text())))
    assert isinstance((await result_of(job)).result, asyncio.CancelledError)


async def test_dead_process_can_be_retried(pool: ArqRedis) -> None:
    function = task(leave_in_first_attempt, run_in="process", retry_on=(ChildProcessDied,), backoff_s=0)
    result, worker = await run_job(pool, function)
    assert (result.result, worker.jobs_retried) == ("second time", 1)


async def test_dead_process_is_told_to_stock_clients(pool: ArqRedis) -> None:
    result, _ = await run_job(pool, task(leave_in_first_attempt, run_in="process"))
    assert isinstance(result.result, ChildProcessDied)
    assert (result.result.task_name, result.result.exit_code) == ("leave_in_first_attempt", 3)
