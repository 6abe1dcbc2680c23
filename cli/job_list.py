"""``aegis-tasks jobs``: which jobs a queue holds, and which of its jobs have ended."""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from bridge.backend import JobPage, JobSummary
from bridge.inspector import State
from cli.context import open_backend, run
from cli.options import Json, QueueName
from cli.printing import console, error_console, print_json, print_table, since

__all__ = ["jobs"]

PAGE: Final = 500


def jobs(
    queue: QueueName,
    state: Annotated[
        State | None, typer.Option(help="Only jobs in this state; without it those that wait or run.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    cursor: Annotated[str, typer.Option(help="Go on where an earlier list has ended.")] = "",
    all: Annotated[bool, typer.Option("--all", help="As many as there are.")] = False,
    json: Json = False,
) -> None:
    """List jobs of a queue.

    **Examples:** `aegis-tasks jobs load_test`, `aegis-tasks jobs load_test --state deferred --all --json`
    """
    found = run(read(queue, state, cursor, None if all else limit))
    if json:
        print_json(found)
        return
    show(found.jobs)
    if found.next_cursor is not None:
        error_console.print(f"there are more: --cursor {found.next_cursor}, or --all", style="dim", markup=False)


async def read(queue: str, state: State | None, cursor: str, limit: int | None) -> JobPage:
    found: list[JobSummary] = []
    async with open_backend() as backend:
        while True:
            wanted = PAGE if limit is None else min(limit - len(found), PAGE)
            page = await backend.jobs(queue, state=state, cursor=cursor, limit=wanted)
            found += page.jobs
            if page.next_cursor is None or (limit is not None and len(found) >= limit):
                return JobPage(jobs=found, next_cursor=page.next_cursor)
            cursor = page.next_cursor


def show(found: Iterable[JobSummary]) -> None:
    rows = [row(job, time.time()) for job in found]
    if rows:
        print_table(["id", "state", "task", "attempt", "enqueued", "due or ended"], rows)
    else:
        console.print("no jobs", style="dim")


def row(job: JobSummary, now_s: float) -> list[Any]:
    moment = job.finished_at or job.due_at
    return [job.task_id, job.status, job.task_name, job.attempt, ago(job.enqueue_time, now_s), ago(moment, now_s)]


def ago(moment: datetime | None, now_s: float) -> str | None:
    """How far away it is: ``3.0s ago``, ``in 1m 00s``."""
    if moment is None:
        return None
    passed_ms = (now_s - moment.timestamp()) * 1000
    return f"{since(passed_ms)} ago" if passed_ms >= 0 else f"in {since(-passed_ms)}"
