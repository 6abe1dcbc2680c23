"""What the commands print: documents for scripts, tables and short lines for people."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.events import Event

__all__ = [
    "STATE_STYLES",
    "console",
    "error_console",
    "event_line",
    "make_table",
    "print_json",
    "print_json_line",
    "print_table",
    "progress_text",
    "since",
    "this_command",
]

# Rich leaves out colours and cursor movements by itself when this is no terminal or NO_COLOR is set.
# A pipe has no width: there, lines are not cut to fit one.
console: Final = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
error_console: Final = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 1000)

STATE_STYLES: Final = {
    "succeeded": "green",
    "ready": "green",
    "started": "cyan",
    "in_progress": "cyan",
    "retrying": "yellow",
    "deferred": "yellow",
    "offline": "yellow",
    "paused": "yellow",
    "aborted": "magenta",
    "failed": "red",
    "lost": "red",
    "running": "green",
    "missing": "red",
}
"""Style of a state, and of an event by the last part of its kind."""

DATA_WIDTH: Final = 100


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    write(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_json_line(value: Any) -> None:
    """One JSON document on one line, for streams of them."""
    write(msgspec.json.encode(value))


def write(document: bytes) -> None:
    sys.stdout.write(document.decode() + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a `make_table`."""
    console.print(make_table(columns, rows))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table without lines; numbers to the right, states in their colour. ``None`` shows as a dash.

    The first column, names or ids to be copied, is never broken.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    content = [list(row) for row in rows]
    for index, name in enumerate(columns):
        is_numeric = bool(content) and all(isinstance(row[index], int | float) for row in content)
        table.add_column(name, justify="right" if is_numeric else "left", no_wrap=index == 0)
    for row in content:
        table.add_row(*[Text("-" if v is None else str(v), style=STATE_STYLES.get(str(v), "")) for v in row])
    return table


def event_line(event: Event) -> Text:
    """An event on one line: time, kind, queue, task, job, attempt, data."""
    moment = datetime.fromtimestamp(event.at_ms / 1000).astimezone()
    data = bytes(event.data).decode(errors="replace")
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} ", style="dim")
    line.append(f"{event.kind:<14} ", style=STATE_STYLES.get(event.kind.rpartition(".")[2], ""))
    line.append(f"{event.queue:<10} {event.task or '-':<22} {event.job_id or event.worker} ")
    if event.attempt > 1:
        line.append(f"attempt {event.attempt} ", style="yellow")
    line.append(data if len(data) <= DATA_WIDTH else data[: DATA_WIDTH - 1] + "…", style="dim")
    return line


def progress_text(progress: Mapping[str, Any]) -> str:
    """What a task has reported, on one line: ``30 of 100 (30%), resizing``."""
    current, total, message = progress.get("current", 0), progress.get("total"), progress.get("message")
    text = digits(current)
    if total is not None:
        text += f" of {digits(total)}"
    if total:
        text += f" ({current / total:.0%})"
    if message:
        text += ", " + "".join(c if c.isprintable() else " " for c in message)
    return text


def digits(number: float) -> str:
    return f"{round(number, 2):.16g}"


def this_command() -> str:
    """How the user called us, to be typed again: the relative path of a command that is not on the PATH."""
    command = Path(sys.argv[0])
    if command.name != "aegis-tasks" or shutil.which("aegis-tasks"):
        return "aegis-tasks"
    return os.path.relpath(command)


def since(milliseconds: float) -> str:
    """A length of time for people: ``1.2s``, ``3m 04s``, ``2 days, 3:04:05``."""
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f}s"
    if milliseconds < 3_600_000:
        return f"{milliseconds // 60_000:.0f}m {milliseconds % 60_000 // 1000:02.0f}s"
    return str(timedelta(seconds=milliseconds // 1000))
