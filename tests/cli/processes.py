"""`aegis-tasks` commands and Valkey servers as processes of a test's own; nothing of them outlives the test."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
from redis import Redis

from bridge.embedded_valkey import find_server, stop
from bridge.file_lock import FileLock
from bridge.valkey_keeper import find_free_port, is_free

__all__ = [
    "Command",
    "Commands",
    "InVainError",
    "ValkeyChild",
    "are_gone",
    "find_free_port",
    "is_free",
    "is_of_ours",
    "is_unused",
    "kill",
    "wait_until",
]

ROOT: Final = Path(__file__).parents[2]
OURS: Final = ("AEGIS_", "REDIS_", "WORKER_")
OF_THE_TERMINAL: Final = {"NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TERM", "COLUMNS", "LINES", "TTY_COMPATIBLE"}


class InVainError(AssertionError):
    """What is waited for cannot come any more."""


def wait_until(condition: Callable[[], object], timeout_s: float = 30, *, what: str = "it") -> None:
    """The condition is true. An exception of the condition means that it is not yet, but for an `InVainError`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
            reason = ""
        except InVainError:
            raise
        except Exception as error:
            reason = f": {error!r}"
        assert time.monotonic() < deadline_s, f"waited {timeout_s} s in vain for {what}{reason}"
        time.sleep(0.02)


def is_of_ours(variable: str) -> bool:
    """Whether this environment variable would change what a command does or how it looks."""
    return variable.startswith(OURS) or variable in OF_THE_TERMINAL


def is_unused(data_dir: Path) -> bool:
    """Whether no embedded server of this folder runs, nor its keeper."""
    return all(is_unlocked(data_dir / name) for name in ("keeper.lock", "server.lock"))


def is_unlocked(path: Path) -> bool:
    if not path.exists():
        return True
    with FileLock(path) as lock:
        return lock.take()


def are_gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs any more."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def kill(processes: list[psutil.Process]) -> None:
    """None of them runs any more."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # psutil knows when the id has been given to another process
            process.kill()


class Command:
    """A command that runs, its output going to files."""

    def __init__(
        self,
        arguments: list[str],
        folder: Path,
        number: int,
        environ: Mapping[str, str],
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.out, self.err = folder / f"{number}.out", folder / f"{number}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli", *arguments],
                cwd=folder,
                env=environ,
                stdin=stdin,
                stdout=out,
                stderr=err,
                start_new_session=True,  # so that no signal of the test run's own terminal reaches it
            )

    @property
    def stdout(self) -> str:
        return self.out.read_text()

    @property
    def stderr(self) -> str:
        return self.err.read_text()

    @property
    def lines(self) -> list[str]:
        """Whole lines of its standard output so far."""
        return [line.rstrip("\n") for line in self.stdout.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    def assert_is_running(self) -> None:
        """It has not ended; else what it said of the reason is told."""
        if not self.is_running:
            raise InVainError(f"it has ended with code {self.process.returncode}: {self.stdout}\n{self.stderr}")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def children(self) -> list[psutil.Process]:
        """Its descendants now."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Ctrl-C, as it reaches this process alone."""
        self.process.send_signal(signal.SIGINT)

    def wait(self, timeout_s: float = 60) -> int:
        """Its exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on: {self.process.args!r}\n{self.stdout}\n{self.stderr}") from None


class Commands:
    """Starts commands in a folder of their own, with nothing of the outer environment that concerns them.

    Args:
        folder: their current folder; the data folder is ``.aegis`` in it, the gateway's port a free one.
        environ: further variables.
    """

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self.data_dir = folder / ".aegis"
        outer = {name: value for name, value in os.environ.items() if not is_of_ours(name)}
        own = {"PYTHONPATH": str(ROOT), "AEGIS_DATA_DIR": str(self.data_dir), "AEGIS_PORT": str(find_free_port())}
        self.environ = {**outer, **own, **environ}
        self.started: list[Command] = []

    def start(self, *arguments: str, **environ: str) -> Command:
        """The command, which goes on running."""
        return self.start_reading(subprocess.DEVNULL, *arguments, **environ)

    def start_reading(self, stdin: int, *arguments: str, **environ: str) -> Command:
        """The same, with a file descriptor as its standard input."""
        command = Command(list(arguments), self.folder, len(self.started), {**self.environ, **environ}, stdin)
        self.started.append(command)
        return command

    def run(self, *arguments: str, exit_code: int = 0, timeout_s: float = 60, **environ: str) -> Command:
        """The command, once it has ended with this exit code."""
        return self.run_reading(b"", *arguments, exit_code=exit_code, timeout_s=timeout_s, **environ)

    def run_reading(
        self, typed: bytes, *arguments: str, exit_code: int = 0, timeout_s: float = 60, **environ: str
    ) -> Command:
        """The same, with this as its standard input."""
        path = self.folder / f"{len(self.started)}.in"
        path.write_bytes(typed)
        with path.open("rb") as stdin:
            command = self.start_reading(stdin.fileno(), *arguments, **environ)
        ended_with = command.wait(timeout_s)
        assert ended_with == exit_code, f"{arguments}: {ended_with}\n{command.stdout}\n{command.stderr}"
        assert "Traceback (most recent call last)" not in command.stdout
        return command

    def close(self) -> None:
        """What still runs is ended, by its id."""
        for command in self.started:
            if command.is_running:
                descendants = command.children()
                command.process.kill()
                command.process.wait()
                kill(descendants)
        assert stop(self.data_dir, timeout_s=30)


class ValkeyChild:
    """A Valkey server on a port that stays the same, whose data outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """It answers, with the data of before."""
        options = {"port": self.port, "bind": "127.0.0.1", "appendonly": "yes", "save": "", "dir": self.folder}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [find_server(), *(str(part) for name, value in options.items() for part in (f"--{name}", value))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self.is_answering, what="Valkey")

    def is_answering(self) -> bool:
        with Redis.from_url(self.url) as client:
            return bool(client.ping())

    def signal(self, signum: int) -> None:
        assert self.process
        self.process.send_signal(signum)

    def kill(self) -> None:
        """It is gone, as after a crash."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
