"""``aegis-tasks top``, in a terminal of its own, and where there is none."""

import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyte
import pytest
from redis import Redis

from cli.screen import Screen
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands, ValkeyChild

IO = "io_simulation_task"
LEFT = b"\x1b[?1049l"


class Terminal:
    """``top`` in a terminal, and what is to be seen there."""

    def __init__(self, commands: Commands, *, columns: int = 110, lines: int = 24, **environ: str) -> None:
        self.master, slave = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b""
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli", "top"],
            cwd=commands.folder,
            env={**commands.environ, "TERM": "xterm-256color", **environ},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 30) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "\n".join(self.screen.display)
            self.read()

    def read(self) -> None:
        """What comes within a moment."""
        if select.select([self.master], [], [], 0.05)[0]:
            try:
                part = os.read(self.master, 65536)
            except OSError:  # how a terminal says that its last program has ended
                part = b""
            self.written += part
            self.stream.feed(part)

    def row(self, name: str) -> list[str]:
        """The words of the line that begins with this one."""
        return next((line.split() for line in self.screen.display if line.startswith(f"{name} ")), [])

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        """Its exit code."""
        self.wait_for(lambda: self.process.poll() is not None)
        while select.select([self.master], [], [], 0)[0] and LEFT not in self.written:
            self.read()
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@contextmanager
def top(commands: Commands, **options: object) -> Iterator[Terminal]:
    terminal = Terminal(commands, **options)  # type: ignore[arg-type]
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.fixture(params=["redis", "gateway"])
def place(request: pytest.FixtureRequest, cli: Commands) -> dict[str, str]:
    """What makes `top` work on Redis, or through a gateway."""
    if request.param == "redis":
        return {}
    return {"AEGIS_URL": request.getfixturevalue("gateway_url"), "REDIS_URL": "redis://127.0.0.1:1/0"}


def test_counts_follow_what_happens_and_q_ends_it(cli: Commands, sync_redis: Redis, place: dict[str, str]) -> None:
    assert sync_redis.dbsize() == 0
    with top(cli, **place) as terminal:
        terminal.wait_for(lambda: terminal.row("load_test")[1:5] == ["offline", "0", "0", "0"])
        assert terminal.screen.display[0].startswith("aegis-tasks  ")

        cli.run("enqueue", IO, "--id", "order-17")
        terminal.wait_for(lambda: terminal.row("load_test")[2:3] == ["1"])
        terminal.wait_for(
            lambda: any("job.enqueued" in line and "order-17" in line for line in terminal.screen.display)
        )
        cli.run("pause", "load_test")
        terminal.wait_for(lambda: terminal.row("load_test")[1:2] == ["paused"])

        terminal.type(b"xq")
        assert terminal.end() == 0
    assert LEFT in terminal.written
    assert b"Traceback" not in terminal.written


def test_it_fits_itself_to_the_terminal(cli: Commands, sync_redis: Redis) -> None:
    assert sync_redis.dbsize() == 0
    with top(cli) as terminal:
        terminal.wait_for(lambda: "p50/p95" in terminal.screen.display[3])
        terminal.resize(60, 8)
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.wait_for(lambda: "running" in terminal.screen.display[2] and "p50" not in terminal.screen.display[2])
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0


def test_it_says_when_redis_is_away_and_goes_on_when_it_is_back(cli: Commands, valkey: ValkeyChild) -> None:
    cli.environ["REDIS_URL"] = valkey.url
    with top(cli) as terminal:
        terminal.wait_for(lambda: terminal.row("load_test"))
        valkey.kill()
        terminal.wait_for(lambda: "away, waiting for it" in terminal.screen.display[0])
        valkey.start()
        terminal.wait_for(lambda: "away" not in terminal.screen.display[0])
        cli.run("enqueue", IO)
        terminal.wait_for(lambda: terminal.row("load_test")[2:3] == ["1"])
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0


@pytest.mark.usefixtures("sync_redis")
def test_without_a_terminal_it_is_printed_once(anywhere: InProcess) -> None:
    anywhere("enqueue", IO, "--id", "order-17")
    ended = anywhere("top")
    assert ended.exit_code == 0
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ["load_test", "offline", "1"] in [row[:3] for row in rows]
    assert ["job.enqueued", "load_test", IO, "order-17"] in [row[1:5] for row in rows]
    assert "\x1b" not in ended.stdout


@pytest.mark.usefixtures("sync_redis")
def test_json_is_one_document(anywhere: InProcess) -> None:
    anywhere("enqueue", IO, "--id", "order-17")
    found = json.loads(anywhere("top", "--json").stdout)
    assert [queue["queued"] for queue in found["queues"]] == [0, 1, 0]
    assert found["workers"] == []
    assert [event["id"] for event in found["events"]] == [found["event_id"]]


def test_screen_writes_only_the_lines_that_have_changed() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.draw(["one", "two", "three"])
    out.truncate(0)
    assert screen.draw(["one", "two", "three"]) == 0
    screen.draw(["one", "2", "three"])
    assert "\x1b[2;1H2\x1b[K" in out.getvalue()
    assert "one" not in out.getvalue()
    out.truncate(0)
    screen.draw(["one"])
    assert "\x1b[2;1H\x1b[J" in out.getvalue()
