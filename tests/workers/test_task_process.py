"""Tasks in child processes. The functions at the top are run by them, and so cannot be inside a test."""

import asyncio
import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from arq.worker import Function, Retry

from bridge.errors import ChildProcessDied, ConfigurationError, TaskFailed
from bridge.events import JobProgressed
from workers import child_processes
from workers import task as task_module
from workers.progress import PROGRESS, report_progress
from workers.retry import RetryLater
from workers.task import task

Context = dict[Any, Any]
CTX = {"job_id": "a", "job_try": 1, "enqueue_time": datetime(2026, 1, 31, tzinfo=UTC), "score": 1, "redis": object()}


def pid(ctx: Context) -> int:
    return os.getpid()


def look(ctx: Context, day: date) -> Any:
    return ctx, day


def spin(ctx: Context, pid_file: str) -> None:
    tell(pid_file, os.getpid())
    while True:
        pass


def spin_in_c_code(ctx: Context, pid_file: str) -> None:
    tell(pid_file, os.getpid())
    sum(range(10**15))


def run_program(ctx: Context, pid_file: str) -> None:
    program = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    tell(pid_file, program.pid)
    program.wait()


def tell(pid_file: str, number: int) -> None:
    """All at once, so that whoever sees the file sees all of it."""
    new = Path(f"{pid_file}.new")
    new.write_text(str(number))
    new.replace(pid_file)


def print_much(ctx: Context) -> str:
    print("x" * 200_000)
    subprocess.run([sys.executable, "-c", "print('y' * 200_000)"], check=True)
    os.write(1, b"z" * 200_000)
    os.write(2, b"z" * 200_000)
    return "printed"


def make_much(ctx: Context, size_bytes: int) -> bytes:
    return bytes(size_bytes)


def leave(ctx: Context) -> None:
    os._exit(3)


def be_killed(ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class RateLimited(Exception):
    """As many are: pickle cannot call its __init__, whose arguments it does not know."""

    def __init__(self, message: str, *, wait_s: int) -> None:
        super().__init__(f"{message} for {wait_s} s")
        self.wait_s = wait_s


class WithLock(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()


def fail(ctx: Context, how: str) -> Any:
    match how:
        case "builtin":
            raise FileNotFoundError(2, "no such file", "a.txt")
        case "own":
            raise RateLimited("wait", wait_s=7)
        case "with a lock":
            raise WithLock
        case "exit":
            sys.exit("enough")
        case "cancelled":
            raise asyncio.CancelledError
        case "retry":
            raise Retry(defer=5)
        case "stop":
            return next(iter([]))
        case _:
            return threading.Lock()


def shadowed(ctx: Context) -> str:
    return "found"


shadowed_task = task(shadowed, run_in="process")


@functools.partial(task, run_in="process")
def decorated(ctx: Context) -> str:
    return "found"


shadowed = shadowed_task  # type: ignore[assignment]


async def run(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return await task(function, run_in="process", **options).coroutine(CTX, *args)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is about another process
            await asyncio.sleep(0.01)


def is_gone(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    """One process at a time, so that a test knows which one serves the next call."""
    with ThreadPoolExecutor(max_workers=1) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_module, "process_threads", pool)
        yield


async def test_calls_run_in_one_other_process_after_another() -> None:
    first = await run(pid)
    assert first != os.getpid()
    assert await run(pid) == first


async def test_process_gets_converted_arguments_and_the_plain_part_of_ctx() -> None:
    ctx, day = await run(look, "2026-01-31")
    assert ctx == {key: CTX[key] for key in ("job_id", "job_try", "enqueue_time", "score")}
    assert day == date(2026, 1, 31)


class Listener:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.heard: list[JobProgressed] = []

    def report(self, ctx: Context, progress: JobProgressed) -> None:
        self.heard.append(progress)


async def run_heard(function: Callable[..., Any], *args: Any) -> tuple[Any, list[JobProgressed]]:
    listener = Listener()
    return await task(function, run_in="process").coroutine({**CTX, PROGRESS: listener}, *args), listener.heard


def report_often(ctx: Context, number: int) -> str:
    for done in range(number):
        report_progress(ctx, done + 1, number, "counting")
    return "reported"


async def test_worker_hears_few_of_a_processes_many_reports_and_the_last() -> None:
    started_s = time.monotonic()
    result, heard = await run_heard(report_often, 100_000)
    assert result == "reported"
    assert heard[-1] == JobProgressed(current=100_000, total=100_000, message="counting")
    assert len(heard) <= 2 + (time.monotonic() - started_s) / child_processes.SEND_EVERY_S
    currents = [progress.current for progress in heard]
    assert currents == sorted(set(currents)), "each once, in order"


def report_and_leave(ctx: Context) -> None:
    report_progress(ctx, 1)
    os._exit(3)


async def test_process_that_reports_and_dies_fails_its_job() -> None:
    with pytest.raises(ChildProcessDied):
        await run_heard(report_and_leave)


go_on, reports_of_the_other = threading.Semaphore(0), threading.Semaphore(0)


def leave_a_thread(ctx: Context) -> None:
    def report() -> None:
        go_on.acquire()
        for _ in range(1000):
            report_progress(ctx, 13)
        reports_of_the_other.release()

    threading.Thread(target=report, daemon=True).start()


def report_after_the_other(ctx: Context) -> None:
    go_on.release()
    assert reports_of_the_other.acquire(timeout=20)
    report_progress(ctx, 1)


async def test_thread_that_a_task_left_behind_reports_for_no_later_job() -> None:
    await run_heard(leave_a_thread)
    _, heard = await run_heard(report_after_the_other)
    assert [progress.current for progress in heard] == [1]


async def test_ctx_that_takes_reports_can_be_returned() -> None:
    (ctx, day), heard = await run_heard(look, "2026-01-31")
    report_progress(ctx, 1)
    assert (day, heard) == (date(2026, 1, 31), [])


def report_where_nobody_listens(ctx: Context) -> str:
    report_progress(ctx, 1)
    return "fine"


async def test_process_without_a_listener_reports_nothing() -> None:
    assert await run(report_where_nobody_listens) == "fine"


async def test_function_is_found_behind_the_task_that_took_its_name() -> None:
    assert await shadowed_task.coroutine(CTX) == "found"
    assert isinstance(decorated, Function)
    assert await decorated.coroutine(CTX) == "found"


async def test_what_a_task_prints_and_returns_may_be_large() -> None:
    assert await run(print_much) == "printed"
    assert len(await run(make_much, 5_000_000)) == 5_000_000


async def test_exception_comes_back_with_its_type_and_its_traceback() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await run(fail, "builtin")
    assert (caught.value.errno, caught.value.filename) == (2, "a.txt")
    assert 'raise FileNotFoundError(2, "no such file", "a.txt")' in caught.value.__notes__[0]


async def test_exception_that_pickle_cannot_build_comes_back_all_the_same() -> None:
    with pytest.raises(RateLimited, match="wait for 7 s") as caught:
        await run(fail, "own")
    assert caught.value.wait_s == 7


@pytest.mark.parametrize(
    ("how", "message"),
    [("with a lock", "WithLock: has a lock"), ("exit", "SystemExit: enough"), ("cancelled", "CancelledError")],
)
async def test_exception_that_cannot_or_must_not_leave_its_process_is_described(how: str, message: str) -> None:
    with pytest.raises(TaskFailed, match=message) as caught:
        await run(fail, how)
    assert "in fail" in caught.value.traceback


async def test_retry_of_the_function_itself_passes_through() -> None:
    with pytest.raises(Retry) as caught:
        await run(fail, "retry")
    assert caught.value.defer_score == 5000


async def test_stop_iteration_fails_the_job_rather_than_hanging_it() -> None:
    async with asyncio.timeout(20):
        with pytest.raises(RuntimeError, match="the task raised StopIteration"):
            await run(fail, "stop")


async def test_values_that_cannot_be_pickled_fail_the_job_and_not_the_process() -> None:
    first = await run(pid)
    with pytest.raises(TypeError, match=r"cannot pickle '_thread.lock' object"):
        await run(fail, "by its result")
    with pytest.raises(TypeError, match=r"cannot pickle '_thread.lock' object"):
        await run(make_much_of_anything, threading.Lock())
    assert await run(pid) == first


def make_much_of_anything(ctx: Context, seed: Any) -> Any:
    return [seed] * 1000


async def test_expected_error_of_a_process_is_retried() -> None:
    with pytest.raises(RetryLater) as caught:
        await run(fail, "own", retry_on=(RateLimited,))
    assert isinstance(caught.value.error, RateLimited)


@pytest.mark.parametrize(
    ("function", "exit_code", "message"),
    [
        (leave, 3, "task leave: its process ended without an answer, with exit code 3"),
        (be_killed, -9, "task be_killed: its process ended without an answer, by SIGKILL, perhaps for want of memory"),
    ],
)
async def test_process_that_dies_fails_its_job_and_no_other(
    function: Callable[..., Any], exit_code: int, message: str
) -> None:
    with pytest.raises(ChildProcessDied) as caught:
        await run(function)
    assert (str(caught.value), caught.value.exit_code) == (message, exit_code)
    assert await run(pid) != os.getpid()


async def test_process_that_died_while_idle_fails_no_job() -> None:
    first = await run(pid)
    os.kill(first, signal.SIGKILL)
    await until(lambda: is_gone(first))
    assert await run(pid) != first


@pytest.mark.parametrize("function", [spin, spin_in_c_code, run_program])
async def test_cancelled_job_leaves_no_process_behind(function: Callable[..., Any], tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    job = asyncio.create_task(run(function, str(pid_file)))
    await until(pid_file.exists)
    busy = int(pid_file.read_text())
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    await until(lambda: is_gone(busy))
    assert await run(pid) != busy


async def test_jobs_cancelled_at_any_moment_leave_no_process_behind_and_do_no_harm() -> None:
    await run(pid)
    before = len(task_children())
    for step in range(40):
        job = asyncio.create_task(run(pid))
        await asyncio.wait({job}, timeout=step / 4000)
        job.cancel()
        await asyncio.wait({job})
    await run(pid)
    assert len(task_children()) == before


def task_children() -> list[psutil.Process]:
    return [process for process in psutil.Process().children() if is_task_child(process)]


def is_task_child(process: psutil.Process) -> bool:
    try:
        return "multiprocessing.spawn" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # it is ending
        return False


def test_process_killed_just_after_it_answered_serves_no_further_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class CancelledJustNow:
        is_killed = is_buried = False

        def ask(self, raw_request: bytes, hear: object) -> bytes:
            call.end()
            return pickle.dumps(child_processes.Returned(42))

        def kill(self) -> None:
            self.is_killed = True

        def bury(self) -> int:
            self.is_buried = True
            return -9

    child = CancelledJustNow()
    monkeypatch.setattr(child_processes, "child_of_this_thread", lambda: child)
    reference = child_processes.Reference("os", "getpid")
    request = child_processes.Request(reference, {}, (), {}, has_listener=False)
    call = child_processes.Call("pid", request, lambda _: None)
    with pytest.raises(ChildProcessDied):
        call.run()
    assert (child.is_killed, child.is_buried) == (True, True)


async def test_job_cancelled_while_it_waits_for_a_process_never_starts(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    running = asyncio.create_task(run(spin, str(first)))
    await until(first.exists)
    waiting = asyncio.create_task(run(spin, str(second)))
    await asyncio.sleep(0)
    for job in (waiting, running):
        job.cancel()
        await asyncio.wait({job})
    await run(pid)
    assert not second.exists()


WORKER = """
import asyncio, signal, sys
from pathlib import Path
from tests.workers.test_task_process import pid, spin, spin_in_c_code
from workers.task import task

def answer_when(ctx, here, go_on):
    Path(here).touch()
    while not Path(go_on).exists():
        pass
    return "answered"

async def main():
    _, function, *args = sys.argv
    ctx = dict.fromkeys(["job_id", "job_try", "enqueue_time", "score"])
    print(await task(globals()[function], run_in="process").coroutine(ctx, *args))

if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: None)
    print("ready", flush=True)
    asyncio.run(main())
"""


def start_worker(tmp_path: Path, function: str, *args: Path) -> "subprocess.Popen[str]":
    """A program that runs one task, as a worker would, and survives SIGINT and SIGTERM."""
    program = tmp_path / "a_worker.py"
    program.write_text(WORKER)
    return subprocess.Popen(
        [sys.executable, program, function, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


@pytest.mark.parametrize("function", ["spin", "spin_in_c_code"])
async def test_process_does_not_outlive_its_killed_worker(function: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with start_worker(tmp_path, function, pid_file) as worker:
        await until(pid_file.exists)
        busy = int(pid_file.read_text())
        assert not is_gone(busy)
        worker.kill()
    await until(lambda: is_gone(busy))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_signal_to_all_of_a_terminal_or_service_is_left_to_the_worker(
    signum: signal.Signals, tmp_path: Path
) -> None:
    here, go_on = tmp_path / "here", tmp_path / "go on"
    with start_worker(tmp_path, "answer_when", here, go_on) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()

        def is_here() -> bool:
            signal_all(worker.pid, signum)  # from the very start of its process on
            return here.exists()

        await until(is_here)
        signal_all(worker.pid, signum)
        go_on.touch()
        out, err = await asyncio.to_thread(worker.communicate, timeout=20)
    assert (out, err, worker.returncode) == ("answered\n", "", 0)


def signal_all(worker_pid: int, signum: signal.Signals) -> None:
    """As systemd does: to the worker and to all that it has started, in whatever group."""
    processes = [psutil.Process(worker_pid), *psutil.Process(worker_pid).children(recursive=True)]
    for process in processes:
        if "resource_tracker" not in " ".join(process.cmdline()):  # ignores them, but not from its start on
            process.send_signal(signum)


async def test_worker_exits_with_its_idle_processes(tmp_path: Path) -> None:
    with start_worker(tmp_path, "pid") as worker:
        out, err = await asyncio.to_thread(worker.communicate, timeout=20)
    assert (err, worker.returncode) == ("", 0)
    await until(lambda: is_gone(int(out.split()[-1])))


def test_function_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    def local(ctx: Context) -> None: ...

    for function, name in [(local, "local"), (lambda ctx: None, "nameless")]:
        with pytest.raises(ConfigurationError, match=f'task {name}: with run_in="process" the function has to be imp'):
            task(function, run_in="process", name=name)

    @functools.wraps(pid)
    def looks_like_pid(ctx: Context) -> None: ...

    with pytest.raises(ConfigurationError, match=r"task pid: .*test_task_process.pid is something else"):
        task(looks_like_pid, run_in="process")


def test_function_of_an_interactive_session_is_refused() -> None:
    code = "from workers.task import task\ndef f(ctx): ...\ntask(f, run_in='process')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "what was typed or piped in cannot be: define it in a file" in run.stderr
