import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from arq.worker import Retry

from workers import task as task_module
from workers.retry import RetryLater
from workers.task import task

Context = dict[Any, Any]
greeting = contextvars.ContextVar("greeting", default="none")


async def test_plain_function_runs_outside_the_event_loops_thread() -> None:
    def whereabouts(ctx: Context) -> str:
        return threading.current_thread().name

    assert (await task(whereabouts).coroutine({})).startswith("task-thread")


async def test_thread_sees_the_whole_ctx_and_the_jobs_context_variables() -> None:
    def look(ctx: Context) -> Any:
        return ctx, greeting.get()

    greeting.set("hello")
    ctx = {"job_id": "a", "database": object()}
    assert await task(look, run_in="thread").coroutine(ctx) == (ctx, "hello")


@pytest.mark.parametrize("error", [KeyError("x"), Retry(5)])
async def test_error_of_a_thread_is_the_jobs(error: Exception) -> None:
    def fail(ctx: Context) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await task(fail, retry_on=(ConnectionError,)).coroutine({"job_try": 1})
    assert caught.value is error


async def test_expected_error_of_a_thread_is_retried() -> None:
    def fail(ctx: Context) -> None:
        raise ConnectionError

    with pytest.raises(RetryLater):
        await task(fail, retry_on=(ConnectionError,)).coroutine({"job_try": 1})


async def test_stop_iteration_fails_the_job_rather_than_hanging_it() -> None:
    def take_first(ctx: Context) -> Any:
        return next(iter([]))

    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="the task raised StopIteration"):
            await task(take_first).coroutine({})


async def test_job_ends_at_its_timeout_and_its_thread_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, ended = threading.Event(), threading.Event()

    def block(ctx: Context) -> None:
        go_on.wait(10)
        ended.set()

    def is_after(ctx: Context) -> bool:
        return ended.is_set()

    with ThreadPoolExecutor(max_workers=1) as only_one:
        monkeypatch.setattr(task_module, "threads", only_one)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task(block).coroutine({}), 0.01)
        assert not ended.is_set()
        next_job = asyncio.ensure_future(task(is_after).coroutine({}))
        done, _ = await asyncio.wait({next_job}, timeout=0.05)
        assert not done
        go_on.set()
        assert await next_job, "the next one has waited for the end of the abandoned one"


async def test_job_cancelled_while_it_waits_for_a_thread_never_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, ran = threading.Event(), threading.Event()

    def block(ctx: Context) -> None:
        go_on.wait(10)

    def run(ctx: Context) -> None:
        ran.set()

    with ThreadPoolExecutor(max_workers=1) as only_one:
        monkeypatch.setattr(task_module, "threads", only_one)
        blocking = asyncio.ensure_future(task(block).coroutine({}))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task(run).coroutine({}), 0.01)
        go_on.set()
        await blocking
    assert not ran.is_set()
