"""Child processes for tasks: one for each thread that waits for it, used again, killed with its job.

They are our own, on `multiprocessing` pipes, since the pools at hand do not do what a worker needs.
`concurrent.futures` cannot kill one process of a pool, and never learns that it died in the middle of
an answer. `anyio.to_process` talks over stdin and stdout, so that whatever a task's own subprocess
prints breaks it; Ctrl-C in a terminal answers the wrong call; and a busy process survives its worker.
"""

import atexit
import ctypes
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple, assert_never

import msgspec

from bridge.child_process import PR_SET_PDEATHSIG
from bridge.errors import ChildProcessDied, ConfigurationError, TaskFailed
from bridge.events import JobProgressed
from workers.progress import PROGRESS

__all__ = ["CHILD_FUNCTION", "Call", "Reference", "Request", "Returned", "reference_to"]

SPAWN: Final = multiprocessing.get_context("spawn")
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
OWN_END_S: Final = 1
"""How long a process that has closed its pipe is given to end and tell its exit code."""
CHILD_FUNCTION: Final = "__aegis_child_function__"
"""The attribute of a coroutine that holds the plain function it runs in a process."""
SEND_EVERY_S: Final = 0.1
"""How often a process sends what its task reports; the worker thins it further."""

of_this_thread: Final = threading.local()
children: Final[set["Child"]] = set()


class Reference(NamedTuple):
    """A function by its name: the process looks it up, since pickle would not find one hidden behind its task."""

    module: str
    qualname: str


class Request(NamedTuple):
    """What a process is asked to run."""

    function: Reference
    ctx: dict[Any, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    has_listener: bool
    """Whether anybody wants to know what the task reports."""


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
    found: Any = sys.modules.get(reference.module)
    for attribute in reference.qualname.split("."):
        found = getattr(found, attribute, None)
    function: Callable[..., Any] | None = getattr(getattr(found, "coroutine", found), CHILD_FUNCTION, found)
    return function


class Call:
    """One call of a function in a process. It is run in a thread, and ended from the event loop.

    Args:
        task_name: for the errors.
        request: what to run.
        hear: called in that thread with what the task reports.
    """

    def __init__(self, task_name: str, request: Request, hear: Callable[[JobProgressed], None]) -> None:
        self.task_name = task_name
        self.request = request
        self.hear = hear
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
            raw_answer = child.ask(raw_request, self.hear)
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

    def ask(self, raw_request: bytes, hear: Callable[[JobProgressed], None]) -> bytes:
        """Its answer; EOFError or OSError when it has died."""
        self.pipe.send_bytes(raw_request)
        while (raw := self.pipe.recv_bytes()).startswith(b"{"):  # JSON, which no pickle begins like
            hear(JobProgressed(**msgspec.json.decode(raw)))  # decoded as one, whole numbers would become floats
        return raw

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


# At exit multiprocessing waits for its processes: this is registered after its own handler, and so runs before.
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
            raw_request = pipe.recv_bytes()
            sender = ProgressSender(pipe)
            raw_answer = answer_to(raw_request, sender)
            sender.close()
            pipe.send_bytes(raw_answer)


class ProgressSender:
    """Sends what the task of one call reports, thinned, until its answer is sent.

    A thread does it, so that a report is seen though none follows for long.
    """

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.pipe_lock = threading.Lock()
        self.latest: deque[JobProgressed] = deque(maxlen=1)
        self.has_news = threading.Event()
        self.is_over = threading.Event()
        self.thread: threading.Thread | None = None

    def report(self, ctx: Mapping[Any, Any], progress: JobProgressed) -> None:
        """The progress will be sent, unless a newer one comes first."""
        self.latest.append(progress)
        self.has_news.set()
        if self.thread is None:
            self.thread = threading.Thread(target=self.run, name="progress", daemon=True)
            self.thread.start()

    def run(self) -> None:
        """Sends what is new until the call is over."""
        with suppress(OSError):  # the parent is gone
            while not self.is_over.is_set():
                self.has_news.wait()
                self.has_news.clear()
                self.send()
                self.is_over.wait(SEND_EVERY_S)

    def send(self) -> None:
        """The latest report is sent, if it is new."""
        with self.pipe_lock:
            if self.latest and not self.is_over.is_set():
                self.pipe.send_bytes(msgspec.json.encode(self.latest.pop()))

    def close(self) -> None:
        """The last report is sent; what a thread of the task may still report is not."""
        self.send()
        with self.pipe_lock:
            self.is_over.set()
        self.has_news.set()

    def __reduce__(self) -> tuple[Any, ...]:
        return Unheard, ()  # a task may return its ctx, or hand it to a process of its own


class Unheard:
    """Takes reports where nobody wants to know them."""

    def report(self, ctx: Mapping[Any, Any], progress: JobProgressed) -> None:
        """Nothing happens."""


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


def answer_to(raw_request: bytes, sender: ProgressSender) -> bytes:
    try:
        request: Request = pickle.loads(raw_request)  # noqa: S301 - from our own parent
        importlib.import_module(request.function.module)
        function = find(request.function)
        if function is None:
            raise AttributeError(f"there is no {'.'.join(request.function)}")
        if request.has_listener:
            request.ctx[PROGRESS] = sender
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
