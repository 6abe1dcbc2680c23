"""``aegis-tasks enqueue --stdin``: one job for each line, in batches, with a verdict for each that is refused."""

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bridge.backend import Backend
from bridge.batch import BatchVerdict, ItemProblem
from bridge.errors import InvalidRequest, StoreUnreachable
from cli.context import address_of, open_backend, run
from cli.exit_codes import ExitCode
from cli.printing import console, error_console, print_json_line
from cli.standard_input import Line, lines_of_stdin, size_of_stdin

__all__ = ["enqueue_lines"]

BATCH: Final = 1000
BATCH_BYTES: Final = 512 * 1024
SHOWN_REFUSALS: Final = 10
LAST_BATCH_S: Final = 0.9
"""How long Ctrl-C leaves a batch that is on its way to be answered."""
INTERRUPTED: Final = 130


class NotEnqueued(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line without a job."""

    line: int
    status: str
    task_id: str | msgspec.UnsetType = msgspec.UNSET
    error: ItemProblem | msgspec.UnsetType = msgspec.UNSET


class Tally:
    """What became of the lines so far, and telling of it.

    Args:
        is_json: a JSON line for each that was not enqueued, instead of words for the first few.
    """

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        self.enqueued = self.duplicates = self.refused = self.untried = 0
        self.unknown = 0
        """Lines that have a job perhaps: no answer came."""
        self.started_s = time.monotonic()

    @property
    def is_clean(self) -> bool:
        """Whether each line has its job."""
        return not (self.duplicates or self.refused or self.unknown or self.untried)

    @property
    def per_second(self) -> float:
        """Jobs stored, on average."""
        return self.enqueued / max(time.monotonic() - self.started_s, 1e-6)

    def count(self, line: int, verdict: BatchVerdict) -> None:
        """Counts a line, and tells of it if it has no job."""
        match verdict.status:
            case "enqueued":
                self.enqueued += 1
                return
            case "duplicate":
                self.duplicates += 1
            case "refused":
                self.refused += 1
            case "unknown":
                self.unknown += 1
            case "untried":
                self.untried += 1
        if self.is_json:
            print_json_line(NotEnqueued(line=line, status=verdict.status, task_id=verdict.task_id, error=verdict.error))
        elif verdict.status in {"duplicate", "refused"} and self.duplicates + self.refused <= SHOWN_REFUSALS:
            error_console.print(f"line {line}: {reason_of(verdict)}", style="yellow", markup=False, soft_wrap=True)

    def conclude(self, *, is_whole: bool) -> None:
        """Tells the sum."""
        seconds = time.monotonic() - self.started_s
        if self.is_json:
            counts = {"enqueued": self.enqueued, "duplicates": self.duplicates, "refused": self.refused}
            rates = {"seconds": round(seconds, 3), "per_second": round(self.per_second)}
            print_json_line({**counts, "unknown": self.unknown, "untried": self.untried, "complete": is_whole, **rates})
            return
        if (hidden := self.duplicates + self.refused - SHOWN_REFUSALS) > 0:
            error_console.print(f"… and {hidden} more lines", style="yellow")
        parts = [f"{self.enqueued} enqueued"]
        parts += [f"{self.duplicates} with an id that is taken"] if self.duplicates else []
        parts += [f"{self.refused} refused"] if self.refused else []
        parts += [f"{self.unknown} perhaps"] if self.unknown else []
        parts += [f"{self.untried} not tried"] if self.untried else []
        told = f"{', '.join(parts)} in {seconds:.1f} s ({self.per_second:.0f}/s)"
        style = "green" if self.is_clean and is_whole else "yellow"
        console.print(told if is_whole else f"stopped: {told}", style=style, markup=False)


def reason_of(verdict: BatchVerdict) -> str:
    if verdict.error is msgspec.UNSET:
        return verdict.status
    path = verdict.error.path
    return verdict.error.detail if not path or path in verdict.error.detail else f"{verdict.error.detail} - at {path}"


def enqueue_lines(common: dict[str, Any], *, json: bool) -> None:
    """Each line of standard input has its job, or has been refused; leaves with the exit code that fits.

    Args:
        common: fields of every request; with ``task_name``, lines are arguments, else whole requests.
        json: JSON lines instead of words.
    """
    tally = Tally(is_json=json)
    is_whole = False
    if sys.stdin.isatty():
        error_console.print("one JSON document a line; Ctrl-D ends", style="dim")
    try:
        is_whole = run(enqueue_all(msgspec.to_builtins(common), tally, show_progress=not json))
    finally:
        tally.conclude(is_whole=is_whole)
    if not is_whole:
        raise typer.Exit(INTERRUPTED)
    if not tally.is_clean:
        raise typer.Exit(ExitCode.FAILED)


async def enqueue_all(common: dict[str, Any], tally: Tally, *, show_progress: bool) -> bool:
    """Whether all lines were read; false after Ctrl-C."""
    async with open_backend() as backend:
        tally.started_s = time.monotonic()
        with progress_bar(is_shown=show_progress) as bar:
            shown = bar.add_task("enqueueing", total=size_of_stdin(), rate="")
            try:
                async for lines in lines_of_stdin():
                    for batch in batches(lines):
                        await enqueue_batch(backend, batch, common, tally)
                        rate = f"{tally.enqueued} jobs, {tally.per_second:.0f}/s"
                        bar.update(shown, completed=batch[-1].end, rate=rate)
            except asyncio.CancelledError:
                return False
    return True


def progress_bar(*, is_shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    return Progress(*columns, console=error_console, disable=not (is_shown and error_console.is_terminal))


def batches(lines: list[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size_bytes = 0
    for line in lines:
        if batch and (len(batch) == BATCH or size_bytes + len(line.text) > BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(line)
        size_bytes += len(line.text)
    if batch:
        yield batch


async def enqueue_batch(backend: Backend, lines: list[Line], common: dict[str, Any], tally: Tally) -> None:
    """Counts the lines; after Ctrl-C too, as far as the answer comes soon."""
    requests: list[dict[str, Any]] = []
    numbers: list[int] = []
    for line in lines:
        try:
            requests.append(read_request(line.text, common))
            numbers.append(line.number)
        except InvalidRequest as error:
            problem = ItemProblem(code="invalid_request", detail=str(error), path=error.path)
            tally.count(line.number, BatchVerdict(index=0, status="refused", error=problem))
    if not requests:
        return
    asked = asyncio.ensure_future(backend.enqueue_batch(requests))
    try:
        answer = await asyncio.shield(asked)
        if answer.unknown or answer.untried:
            raise StoreUnreachable(address_of(backend), "it went away on the way")
    finally:
        await asyncio.wait({asked}, timeout=LAST_BATCH_S)
        if asked.done() and not asked.cancelled() and asked.exception() is None:
            for verdict in asked.result().items:
                tally.count(numbers[verdict.index], verdict)
        else:
            tally.unknown += len(requests)


def read_request(text: bytes, common: dict[str, Any]) -> dict[str, Any]:
    """The request that a line stands for."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"not JSON: {error}") from None
    if "task_name" not in common:
        if not isinstance(found, dict):
            raise InvalidRequest("no JSON object, as a request is")
        return {**common, **found}
    if isinstance(found, dict):
        return {**common, "kwargs": found}
    if isinstance(found, list):
        return {**common, "args": found}
    raise InvalidRequest("neither a JSON object nor an array, as arguments are")
