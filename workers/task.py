"""Makes a function a task: where it runs, how long it may take, on which errors it is retried.

An ``async def`` runs in the worker's event loop, a ``def`` in a thread of a pool or in a child process
(`workers.child_processes`).
"""

import asyncio
import contextvars
import functools
import inspect
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final, Literal

from arq.utils import to_seconds
from arq.worker import Function

from bridge.errors import ConfigurationError
from workers.child_processes import CHILD_FUNCTION, Call, Request, reference_to
from workers.conversion import converting
from workers.progress import PROGRESS
from workers.retry import RetryPolicy, Run, retrying, runner_timeout_s

__all__ = ["task"]

RETRYING_MAX_TRIES: Final = 3

THREADS: Final = min(32, (os.cpu_count() or 1) + 4)
PROCESSES: Final = os.cpu_count() or 1

Context = dict[Any, Any]

# Pools rather than anyio's threads and limiter: there, a cancelled job's thread gives up its place before it ends.
# No thread is started before the first job needs one.
threads: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="task-thread")
# Each of these waits for a child process of its own, so there are as many of the one as of the other.
process_threads: Final = ThreadPoolExecutor(PROCESSES, thread_name_prefix="task-process")


def task(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    timeout: float | timedelta | None = None,
    max_tries: int | None = None,
    retry_on: Sequence[type[Exception]] = (),
    backoff_s: float = 1.0,
    backoff_max_s: float = 600.0,
    keep_result: float | timedelta | None = None,
    keep_result_forever: bool | None = None,
    run_in: Literal["thread", "process"] | None = None,
) -> Function:
    """An entry for a queue's ``functions``, under the stock ``arq`` command and under ours.

    The function gets its arguments as their annotated types, and a job whose arguments do not fit fails
    before it starts. An ``async def`` runs in the worker's event loop, a ``def`` elsewhere:

    * In a thread, one of ``min(32, cores + 4)`` per worker process. It gets arq's whole ``ctx``, but must not
      use ``ctx["redis"]``, which belongs to the event loop. A thread cannot be stopped: when the job times out or
      is aborted, the job ends at once, but the thread goes on to its end, keeps its place among the
      others until then, and holds up the exit of the worker.
    * In a child process with ``run_in="process"``, one per core and worker process. It gets a ``ctx`` of
      ``job_id``, ``job_try``, ``enqueue_time`` and ``score`` only. When the job times out or is aborted, the
      process is killed with everything that it has started. Otherwise it stays and serves further jobs.
      Arguments, result and exception have to be picklable; an exception that is not arrives as
      `bridge.errors.TaskFailed`.

    A job that waits for a thread or a process is running already, and its timeout with it.

    >>> def count_words(ctx: dict[str, Any], text: str) -> int:
    ...     return len(text.split())
    >>> class WorkerSettings:
    ...     functions = [task(count_words, timeout=10, retry_on=(ConnectionError, TimeoutError))]
    >>> WorkerSettings.functions[0].name, WorkerSettings.functions[0].max_tries
    ('count_words', 3)

    Args:
        function: an ``async def`` or a ``def``, whose first parameter is arq's ``ctx``.
        name: what jobs call it; by default the function's qualified name.
        timeout: seconds that one attempt may take, then it is cancelled and ends in a `TimeoutError`; by default
            the worker's ``job_timeout``. It is retried if ``retry_on`` covers `TimeoutError` (as
            `OSError` does too); the worker's default never is.
        max_tries: attempts, the first included; by default 3 with ``retry_on``, else the worker's.
        retry_on: exceptions after which the job is tried again, their subclasses included. The exception of the
            last attempt is the result. Without any, only arq's ``Retry`` repeats the job.
        backoff_s: the longest pause in seconds after the first attempt. It doubles with each attempt, and
            the actual pause is a random part of it.
        backoff_max_s: no pause in seconds is longer.
        keep_result: seconds that the result is kept; by default the worker's.
        keep_result_forever: wins over ``keep_result``; by default the worker's.
        run_in: where a ``def`` runs; by default in a thread. A process imports the function, so that one
            has to be at the top level of a module.

    Raises:
        ConfigurationError: the function or an option cannot work; the message names the task and says why.
    """
    check_function(function)
    task_name = name or function.__qualname__
    timeout_s = to_seconds(timeout)
    keep_result_s = to_seconds(keep_result)
    is_async = inspect.iscoroutinefunction(function)
    check_options(
        task_name,
        {
            "timeout must be more than 0 seconds": timeout_s is None or (is_duration(timeout_s) and timeout_s > 0),
            "max_tries must be a whole number from 1": max_tries is None or (type(max_tries) is int and max_tries > 0),
            "retry_on must be a tuple of exception classes, such as (ConnectionError,)": are_exceptions(retry_on),
            "backoff_s must be 0 seconds or more": is_duration(backoff_s),
            "backoff_max_s must be 0 seconds or more": is_duration(backoff_max_s),
            "keep_result must be 0 seconds or more": keep_result_s is None or is_duration(keep_result_s),
            'run_in must be "thread" or "process"': run_in in {None, "thread", "process"},
            "run_in is for a plain def; an async def runs in the event loop": run_in is None or not is_async,
        },
    )
    run: Run
    if is_async:
        run = function
    elif run_in == "process":
        run = in_process(function, task_name)
    else:
        run = in_thread(function)
    if retry_on:
        max_tries = RETRYING_MAX_TRIES if max_tries is None else max_tries
        policy = RetryPolicy(
            retry_on=tuple(retry_on),
            max_tries=max_tries,
            backoff_s=backoff_s,
            backoff_max_s=backoff_max_s,
            timeout_s=timeout_s,
        )
        run = retrying(run, policy)
        timeout_s = None if timeout_s is None else runner_timeout_s(run, timeout_s)
    return converting(
        Function(
            name=task_name,
            coroutine=run,  # type: ignore[arg-type]  # ctx by position only: a task may have an argument named ctx
            timeout_s=timeout_s,
            keep_result_s=keep_result_s,
            keep_result_forever=keep_result_forever,
            max_tries=max_tries,
        )
    )


def check_function(function: object) -> None:
    if isinstance(function, Function):
        raise ConfigurationError(
            f"task {function.name}: it is an arq Function already; list it as it is, or give task() the function in it"
        )
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise ConfigurationError(f"task {function!r}: give a function made with def or async def")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"task {function.__qualname__}: it yields; a task returns its result")


def check_options(task_name: str, rules: dict[str, bool]) -> None:
    broken = [rule for rule, is_kept in rules.items() if not is_kept]
    if broken:
        raise ConfigurationError(f"task {task_name}: {'; '.join(broken)}")


def is_duration(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < math.inf


def are_exceptions(classes: object) -> bool:
    return isinstance(classes, Sequence) and all(isinstance(c, type) and issubclass(c, Exception) for c in classes)


def in_thread(function: Callable[..., Any]) -> Run:
    @functools.wraps(function)
    async def run_in_thread(ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        work = functools.partial(context.run, function, ctx, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(threads, without_stop_iteration, work)

    return run_in_thread


def in_process(function: Callable[..., Any], task_name: str) -> Run:
    reference = reference_to(function, task_name)

    @functools.wraps(function)
    async def run_in_process(ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        plain_ctx = {key: ctx[key] for key in ("job_id", "job_try", "enqueue_time", "score")}
        request = Request(reference, plain_ctx, args, kwargs, has_listener=PROGRESS in ctx)
        call = Call(task_name, request, lambda progress: ctx[PROGRESS].report(ctx, progress))
        try:
            return await asyncio.get_running_loop().run_in_executor(process_threads, without_stop_iteration, call.run)
        finally:
            call.end()

    setattr(run_in_process, CHILD_FUNCTION, function)
    return run_in_process


def without_stop_iteration(work: Callable[[], Any]) -> Any:
    """Calls it; as in a coroutine (PEP 479), StopIteration becomes RuntimeError: a future would never be done."""
    try:
        return work()
    except StopIteration as error:
        raise RuntimeError("the task raised StopIteration") from error
