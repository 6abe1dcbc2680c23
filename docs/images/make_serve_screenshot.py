"""Makes ``serve.png``: real commands, each run in a terminal of its own, and what they printed.

From the top of a clone: ``.venv/bin/python docs/images/make_serve_screenshot.py``. Needs Chromium.
"""

import os
import pty
import re
import struct
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 118
COMMANDS = [
    ".venv/bin/aegis-tasks enqueue io_simulation_task --queue load_test --id hello --wait",
    ".venv/bin/aegis-tasks events --id hello",
    ".venv/bin/aegis-tasks queues",
]
PICTURE = Path(__file__).with_name("serve.png")
ENVIRONMENT = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "50"}
ERASED = re.compile(r"[^\n]*(\r|\n\x1b\[\?25h\r\x1b\[1A)\x1b\[2K|\x1b\[\?25[hl]")
"""A line of a progress display that the next one replaces, and the cursor's going and coming."""
WINDOW_FRAME_PX = 300
"""More than Chromium takes off the height of its window for what is not the page."""
CHROMIUM = (
    "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --default-background-color=00000000"
)


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, command: str) -> None:
        self.reader, writer = pty.openpty()
        self.process = subprocess.Popen(command.split(), stdin=writer, stdout=writer, stderr=writer, env=ENVIRONMENT)
        os.close(writer)
        self.printed = b""

    def read(self, until: bytes | None = None) -> str:
        """What is to be seen there once these words have come, or once the command has ended."""
        try:
            while until is None or until not in self.printed:
                self.printed += os.read(self.reader, 65536)
        except OSError:  # how a terminal says that its last program has ended
            self.process.wait()
        return ERASED.sub("", self.printed.decode().replace("\r\n", "\n")).strip("\n")


def main() -> None:
    """Runs the commands, draws what they printed, and takes the picture."""
    with Path(os.devnull).open("w") as nowhere:
        paper = Console(record=True, width=COLUMNS, file=nowhere)
        serve = Terminal("make serve")
        draw(paper, "make serve", serve.read(until=b"Ctrl-C stops everything."))
        paper.rule("in another terminal", style="dim")
        paper.print()
        time.sleep(1)  # the workers are a moment behind the gateway
        for command in COMMANDS:
            draw(paper, command, Terminal(command).read())
        serve.process.terminate()
        serve.read()
        PICTURE.write_bytes(photograph(paper.export_svg(title="aegis-tasks")))


def draw(paper: Console, command: str, printed: str) -> None:
    """Draws a command as if it had been typed, and what it printed."""
    paper.print(Text.assemble(("$ ", "bold bright_green"), (command, "bold")))
    paper.print(Text.from_ansi(printed))
    paper.print()


def photograph(svg: str) -> bytes:
    """The picture as PNG."""
    width, height = (round(float(size)) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    local_fonts_only = re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = folder / "page.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><body style='margin:0'>{local_fonts_only}")
        places = [f"--user-data-dir={folder}/profile", f"--screenshot={folder}/page.png", page.as_uri()]
        window = f"--window-size={width},{height + WINDOW_FRAME_PX}"
        subprocess.run([*CHROMIUM.split(), window, *places], check=True, capture_output=True)
        return cut_bottom((folder / "page.png").read_bytes(), height)


def cut_bottom(png: bytes, height: int) -> bytes:
    """The same PNG without what is below this height: a row of one refers to the row above it, never below."""
    header = png[16:29]
    width, bytes_per_pixel = struct.unpack(">I", header[:4])[0], {2: 3, 6: 4}[header[9]]
    rows, start = b"", 8
    while start < len(png):
        (length,) = struct.unpack(">I", png[start : start + 4])
        if png[start + 4 : start + 8] == b"IDAT":
            rows += png[start + 8 : start + 8 + length]
        start += length + 12
    kept = zlib.decompress(rows)[: height * (1 + width * bytes_per_pixel)]
    new_header = header[:4] + struct.pack(">I", height) + header[8:]
    return png[:8] + chunk(b"IHDR", new_header) + chunk(b"IDAT", zlib.compress(kept, 9)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    main()
