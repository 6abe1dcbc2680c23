"""Makes ``top.png``: ``aegis-tasks top`` in a terminal of its own, while ``serve`` works on jobs.

From the top of a clone: ``.venv/bin/python docs/images/make_top_screenshot.py``. Needs Chromium, and pyte.
"""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import tempfile
import termios
import time
from contextlib import suppress
from pathlib import Path

import pyte
from make_serve_screenshot import photograph
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 118, 30
PICTURE = Path(__file__).absolute().with_name("top.png")
COMMAND = str(Path(".venv/bin/aegis-tasks").absolute())
WATCHED_S = 12
BATCHES = 30
NAMES = {"brown": "yellow"}
"""What pyte calls colours otherwise than Rich."""


def main() -> None:
    """Runs everything for a while, and takes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        environment = {**os.environ, "AEGIS_PORT": "18017", "TERM": "xterm-256color"}
        serve = subprocess.Popen([COMMAND, "serve"], env=environment, stdout=subprocess.PIPE, text=True)
        assert serve.stdout  # noqa: S101
        while "Ctrl-C stops everything." not in serve.stdout.readline():
            pass
        feeder = subprocess.Popen([COMMAND, "enqueue", "--stdin"], env=environment, stdin=subprocess.PIPE)
        try:
            screen = watch(environment, feeder)
        finally:
            feeder.kill()
            serve.terminate()
            serve.wait()
            os.chdir(PICTURE.parent)
    with Path(os.devnull).open("w") as nowhere:
        paper = Console(record=True, width=COLUMNS, file=nowhere)
        for row in range(LINES):
            paper.print(text_of(screen, row), no_wrap=True, overflow="crop")
        PICTURE.write_bytes(photograph(paper.export_svg(title="aegis-tasks top")))


def watch(environment: dict[str, str], feeder: "subprocess.Popen[bytes]") -> pyte.Screen:
    """What the terminal shows in the end."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    top = subprocess.Popen([COMMAND, "top"], env=environment, stdin=writer, stdout=writer, stderr=writer)
    os.close(writer)
    end_s = time.monotonic() + WATCHED_S
    next_s = time.monotonic()
    while time.monotonic() < end_s:
        if time.monotonic() >= next_s:
            feed(feeder)
            next_s += WATCHED_S / BATCHES
        if select.select([reader], [], [], 0.05)[0]:
            stream.feed(os.read(reader, 65536))
    os.write(reader, b"q")
    with suppress(OSError):
        while os.read(reader, 65536):
            pass
    top.wait()
    return screen


def feed(feeder: "subprocess.Popen[bytes]") -> None:
    """Some jobs of several kinds."""
    requests = [{"task_name": "io_simulation_task", "kwargs": {"delay_ms": 40 * n + 20}} for n in range(24)]
    requests += [{"task_name": "failure_testing_task", "kwargs": {"failure_rate": 0.6}}] * 3
    requests += [{"task_name": "cpu_intensive_task", "kwargs": {"iterations": 20_000}}] * 2
    requests += [{"task_name": "system_health_check"}, {"task_name": "cleanup_temp_files", "delay_seconds": 3600}]
    assert feeder.stdin  # noqa: S101
    feeder.stdin.write("".join(json.dumps(request) + "\n" for request in requests).encode())
    feeder.stdin.flush()


def text_of(screen: pyte.Screen, row: int) -> Text:
    """A line of the terminal, with its colours."""
    line = Text()
    for column in range(COLUMNS):
        cell = screen.buffer[row][column]
        color = None if cell.fg == "default" else NAMES.get(cell.fg, cell.fg)
        line.append(cell.data, Style(color=color, bold=cell.bold))
    line.rstrip()
    return line


if __name__ == "__main__":
    main()
