"""``aegis-tasks verify``: do the events and what is stored tell the same?"""

from contextlib import nullcontext
from typing import Annotated

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bridge.event_stream import BEGINNING, parse_cursor
from bridge.verifier import Report, Verifier
from cli.context import open_store, run
from cli.exit_codes import ExitCode
from cli.options import Json
from cli.printing import console, error_console, print_json, print_table

__all__ = ["verify"]


def verify(
    after: Annotated[str | None, typer.Option(help="Replay only what follows this event id or time.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Print at most this many findings.")] = 50,
    json: Json = False,
) -> None:
    """Replay the events and compare each job with what is stored; exit code 1 when one disagrees.

    Works while jobs are running, and changes nothing.

    **Example:** `aegis-tasks verify`
    """
    report = run(compare(BEGINNING if after is None else parse_cursor(after), show_progress=not json))
    if json:
        document = msgspec.to_builtins(report)
        print_json({**document, "findings_total": len(report.findings), "findings": document["findings"][:limit]})
    else:
        show(report, limit)
    if not report.agrees:
        raise typer.Exit(ExitCode.FAILED)


async def compare(after: str, *, show_progress: bool) -> Report:
    async with open_store() as backend:
        verifier = Verifier(backend.redis, backend.catalog)
        with Bars() if show_progress else nullcontext() as bars:
            return await verifier.verify(after, tell=bars.tell) if bars else await verifier.verify(after)


class Bars(Progress):
    """A bar for the events, then one for the jobs."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=error_console)
        self._bars: dict[str, TaskID] = {}

    def tell(self, what: str, done: int, total: int) -> None:
        """So much is done."""
        if what not in self._bars:
            self._bars[what] = self.add_task(what, total=total)
        self.update(self._bars[what], completed=done, total=total)


def show(report: Report, limit: int) -> None:
    told = ", ".join(f"{number} {state}" for state, number in report.jobs.items())
    number = sum(report.jobs.values())
    console.print(f"{report.events} events, {number} jobs{f': {told}' if told else ''}", markup=False)
    if report.trimmed_from is not None:
        console.print(f"earlier events are missing: the first one is {report.trimmed_from}", markup=False)
    if report.unseen:
        console.print(f"{report.unseen} jobs in queues that no event mentions", markup=False)
    for oddity, times in report.oddities.items():
        console.print(f"{times} x {oddity}", style="dim", markup=False)
    if report.agrees:
        console.print("all agree", style="green")
        return
    if limit:
        print_table(
            ["job", "queue", "task", "by events", "stored", "what is wrong", "event"],
            [
                (f.job_id, f.queue, f.task or None, f.derived, f.stored, f.what, f.event_id)
                for f in report.findings[:limit]
            ],
        )
    console.print(f"{len(report.findings)} findings, {min(limit, len(report.findings))} shown", style="red")
