"""Makes a function a task: where it runs, how long it may take, on which errors it is retried.

An ``async def`` runs in the worker's event loop, a ``def`` in a thread of a pool or in a child process.

The child processes are this module's own, on `multiprocessing` pipes, since the pools at hand do not do
what a worker needs. `concurrent.futures` cannot kill one process of a pool, and never learns that it died in the
middle of an answer. `anyio.to_process` talks over stdin and stdout, so that whatever a task's own
subprocess prints breaks it; Ctrl-C in a terminal answers the wrong call; and a busy process survives its worker.
"""

import asyncio
import atexit
import contextvars
import ctypes
import functools
import importlib
import inspect
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, Literal, NamedTuple, assert_never

from arq.utils import to_seconds
from arq.worker import Function

from bridge.child_process import PR_SET_PDEATHSIG
from bridge.errors import AegisError, ConfigurationError, TaskFailed
from workers.conversion import converting
from workers.retry import RetryPolicy, Run, retrying

__all__ = ["ChildProcessDied", "task"]

RETRYING_MAX_TRIES: Final = 3
RUNNER_TIMEOUT_MARGIN_S: Final = 5
"""How much later than ours the runner's timeout comes, where ours is there to be retried."""

THREADS: Final = min(32, (os.cpu_count() or 1) + 4)
PROCESSES: Final = os.cpu_count() or 1
SPAWN: Final = multiprocessing.get_context("spawn")
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
OWN_END_S: Final = 1
"""How long a process that has closed its pipe is given to end and tell its exit code."""
CHILD_FUNCTION: Final = "__aegis_child_function__"
"""The attribute of a coroutine that holds the plain function it runs in a process."""

Context = dict[Any, Any]

# Pools rather than anyio's threads and limiter: there, a cancelled job's thread gives up its place before it ends.
# No thread is started before the first job needs one.
threads: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="task-thread")
# Each of these waits for a child process of its own, so there are as many of the one as of the other.
process_threads: Final = ThreadPoolExecutor(PROCESSES, thread_name_prefix="task-process")
of_this_thread: Final = threading.local()
children: Final[set["Child"]] = set()


class ChildProcessDied(AegisError):
    """A task's process ended without an answer: killed from outside, out of memory, or by ``os._exit``.

    Attributes:
        task_name: the task it was running.
        exit_code: of the process; a negative number is the signal that killed it.
    """

    def __init__(self, task_name: str, exit_code: int | None) -> None:
        super().__init__(task_name, exit_code)
        self.task_name = task_name
        self.exit_code = exit_code

    def __str__(self) -> str:
        how = f"with exit code {self.exit_code}"
        if self.exit_code is not None and self.exit_code < 0:
            with suppress(ValueError):  # a real-time signal has no name
                how = f"by {signal.Signals(-self.exit_code).name}"
            if self.exit_code == -9:  # SIGKILL, which Windows does not have
                how += ", perhaps for want of memory"
        return f"task {self.task_name}: its process ended without an answer, {how}"


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
    * In a child process with ``run_in="process"``, one per core. It gets a ``ctx`` of ``job_id``, ``job_try``,
      ``enqueue_time`` and ``score`` only. When the job times out or is aborted, the process is killed with
      everything that it has started. Otherwise it stays and serves further jobs. Arguments, result and
      exception have to be picklable; an exception that is not arrives as `bridge.errors.TaskFailed`.

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
            timeout_s=timeout_s if issubclass(TimeoutError, tuple(retry_on)) else None,
        )
        run = retrying(run, policy)
        if policy.timeout_s is not None:
            timeout_s = policy.timeout_s + RUNNER_TIMEOUT_MARGIN_S
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
        call = Call(task_name, Request(reference, plain_ctx, args, kwargs))
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


class Reference(NamedTuple):
    """A function by its name: the process looks it up, since pickle would not find one hidden behind its task."""

    module: str
    qualname: str


class Request(NamedTuple):
    """What a process is asked to run."""

    function: Reference
    ctx: Context
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Returned(NamedTuple):
    """The function returned."""

    value: Any


class Raised(NamedTuple):
    """The function raised."""

    error: Exception
    traceback: str


class RaisedUnpicklable(NamedTuple):
    """The function raised what cannot or must not leave its process, such as SystemExit."""

    type: str
    message: str
    traceback: str


def reference_to(function: Callable[..., Any], task_name: str) -> Reference:
    """Where a process finds the function.

    Raises:
        ConfigurationError: it would not find it.
    """
    reference = Reference(function.__module__, function.__qualname__)
    if "<" in reference.qualname:
        why = "a lambda, or a function inside a function, cannot be: define it at the top level of a module"
    elif reference.module == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        why = "what was typed or piped in cannot be: define it in a file"
    elif find(reference) not in (None, function):
        why = f"{'.'.join(reference)} is something else: give the function under its own name"
    else:  # None: it is not there yet, as task() is used as a decorator
        return reference
    raise ConfigurationError(f'task {task_name}: with run_in="process" the function has to be imported, and {why}')


def find(reference: Reference) -> Callable[..., Any] | None:
    """The function, also where the task that was made from it has taken its name."""
    found: Any = sys.modules[reference.module]
    for attribute in reference.qualname.split("."):
        found = getattr(found, attribute, None)
    function: Callable[..., Any] | None = getattr(getattr(found, "coroutine", found), CHILD_FUNCTION, found)
    return function


class Call:
    """One call of a function in a process. It is run in a thread, and ended from the event loop."""

    def __init__(self, task_name: str, request: Request) -> None:
        self.task_name = task_name
        self.request = request
        self.lock = threading.Lock()
        self.child: Child | None = None
        self.is_over = False

    def run(self) -> Any:
        """Returns what the function returned, or raises what it raised, with the process's traceback as a note.

        Raises:
            ChildProcessDied: before it answered.
            TaskFailed: the function raised an exception that cannot be pickled.
        """
        raw_request = pickle.dumps(self.request)
        child = child_of_this_thread()
        with self.lock:
            if self.is_over:
                return None
            self.child = child
        raw_answer = None
        with suppress(EOFError, OSError):
            raw_answer = child.ask(raw_request)
        with self.lock:
            self.child = None
            is_killed = self.is_over  # perhaps just after it had answered
        if raw_answer is None or is_killed:
            raise ChildProcessDied(self.task_name, child.bury())
        return result_of(pickle.loads(raw_answer))  # noqa: S301 - from our own process

    def end(self) -> None:
        """Kills the process unless it has answered; the call raises into its thread, which nobody waits for."""
        with self.lock:
            self.is_over = True
            if self.child is not None:
                self.child.kill()


def result_of(answer: Returned | Raised | RaisedUnpicklable) -> Any:
    match answer:
        case Returned(value):
            return value
        case Raised(error, traceback_text):
            error.add_note(f"In the task's process:\n{traceback_text}")
            raise error
        case RaisedUnpicklable(type_name, message, traceback_text):
            raise TaskFailed(type_name, message, traceback_text)
    assert_never(answer)


class Child:
    """A process that answers one request after another, until it is killed or its parent is gone."""

    def __init__(self) -> None:
        self.pipe, their_end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=serve, args=(their_end,), name="aegis-task")
        with their_end, signals_held():
            self.process.start()
        children.add(self)

    def ask(self, raw_request: bytes) -> bytes:
        """Its answer; EOFError or OSError when it has died."""
        self.pipe.send_bytes(raw_request)
        return self.pipe.recv_bytes()

    def kill(self) -> None:
        """Ends it and all that it has started, at once."""
        if sys.platform != "win32" and self.process.pid is not None:
            # It may not have its own group yet, or not any more; macOS forbids where Linux finds nothing.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def bury(self) -> int | None:
        """Its exit code, once it is gone for good."""
        children.discard(self)
        self.pipe.close()
        self.process.join(OWN_END_S)
        if self.process.is_alive():
            self.kill()
        self.process.join()
        return self.process.exitcode


def child_of_this_thread() -> Child:
    child: Child | None = getattr(of_this_thread, "child", None)
    if child is None or not child.process.is_alive():
        if child is not None:
            child.bury()
        child = of_this_thread.child = Child()
    return child


def kill_children() -> None:
    for child in list(children):
        child.kill()


# At exit multiprocessing waits for its processes: this has to be registered after its own, and so runs before.
atexit.register(kill_children)


@contextmanager
def signals_held() -> Iterator[None]:
    """What this thread starts meanwhile gets no SIGINT or SIGTERM before it asks for them (see `settle`)."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # as the first process starts it, which lets the signals through
    held_before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held_before)


def serve(pipe: Connection) -> None:
    """The life of a child process."""
    settle()
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            pipe.send_bytes(answer_to(pipe.recv_bytes()))


def settle() -> None:
    """A group of its own, no end but by its parent's hand, and none without its parent."""
    for signum in STOP_SIGNALS:
        # The worker decides what a signal means for its jobs. A handler, since SIG_IGN would be inherited.
        signal.signal(signum, lambda *_: None)
    if sys.platform != "win32":
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    parent = multiprocessing.parent_process()
    if sys.platform == "linux":
        # Also when the task is in the middle of C code, where the thread below would have to wait for the GIL.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if parent is None or os.getppid() != parent.pid:
            os._exit(1)
    elif parent is not None:
        threading.Thread(target=end_after, args=(parent,), daemon=True).start()


def end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def answer_to(raw_request: bytes) -> bytes:
    try:
        request: Request = pickle.loads(raw_request)  # noqa: S301 - from our own parent
        importlib.import_module(request.function.module)
        function = find(request.function)
        if function is None:
            raise AttributeError(f"there is no {'.'.join(request.function)}")
        return pickle.dumps(Returned(function(request.ctx, *request.args, **request.kwargs)))
    except BaseException as error:
        return raised(error, "".join(traceback.format_exception(error)))


def raised(error: BaseException, traceback_text: str) -> bytes:
    """The exception as it is or else in parts, whichever can be read again; a description if neither can."""
    if isinstance(error, Exception):
        for form in (error, InParts(error)):
            with suppress(Exception):
                raw = pickle.dumps(Raised(form, traceback_text))  # type: ignore[arg-type]  # read as one
                pickle.loads(raw)  # noqa: S301 - it is our own
                return raw
    return pickle.dumps(RaisedUnpicklable(type(error).__name__, str(error), traceback_text))


class InParts:
    """An exception that is pickled without its ``__init__``, whose arguments pickle cannot know."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return from_parts, (type(self.error), self.error.args, vars(self.error))


def from_parts(kind: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error
