"""``aegis-tasks dead list``, ``retry`` and ``purge``: the jobs that have failed for good."""

import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bridge.dead_letters import BATCH, DeadFilter, DeadLetter, DeadLetters, Handled, Step, Verdict
from bridge.errors import InvalidRequest
from cli.context import open_backend, run
from cli.exit_codes import ExitCode
from cli.options import Json, QueueOption
from cli.printing import console, error_console, print_json, print_table, since

__all__ = ["dead"]

dead = typer.Typer(
    help="Failed jobs: list them, run them again, forget them.", no_args_is_help=True, rich_markup_mode="markdown"
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these jobs.")]
TaskOption = Annotated[str | None, typer.Option(help="Only this task.")]
ErrorOption = Annotated[str | None, typer.Option(help="Only this error, by its class name, e.g. TimeoutError.")]
OlderOption = Annotated[str | None, typer.Option(metavar="AGE", help="Only those that failed longer ago, e.g. 2h.")]
NewerOption = Annotated[str | None, typer.Option(metavar="AGE", help="Only those that failed since, e.g. 15m.")]
All = Annotated[bool, typer.Option("--all", help="Every one; needed where nothing else says which.")]

DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
ERROR_WIDTHS: Final = (16, 60)
OTHERS_WIDTH: Final = 90


@dead.command("list")
def list_dead(
    ids: Ids = None,
    queue: QueueOption = None,
    task: TaskOption = None,
    error: ErrorOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the tracebacks too.")] = False,
    by_error: Annotated[bool, typer.Option("--by-error", help="Count all of them by task and error instead.")] = False,
    json: Json = False,
) -> None:
    """List failed jobs, the latest first.

    **Examples:** `aegis-tasks dead list --newer-than 1h`, `aegis-tasks dead list --error TimeoutError --json`
    """
    wanted = filter_of(ids, queue, task, error, older_than, newer_than)
    if by_error:
        show_counts(run(count_by_error(wanted)), json=json)
        return
    found, now_ms = run(read(wanted, limit, traceback))
    if json:
        print_json(found)
    elif not found:
        console.print("no dead letters", style="dim")
    else:
        columns = ["id", "queue", "task", "error", "attempts", "age"]
        print_table(columns, [row(letter, now_ms) for letter in found])
        if traceback:
            for letter in found:
                console.print(f"\n{letter.task_id}", style="bold", markup=False)
                console.print(letter.traceback or "no traceback", markup=False, soft_wrap=True)


def row(letter: DeadLetter, now_ms: float) -> list[Any]:
    message = f"{letter.error.type}: {letter.error.message}".partition("\n")[0]
    width = min(max(console.width - OTHERS_WIDTH, ERROR_WIDTHS[0]), ERROR_WIDTHS[1])
    shown = message if len(message) <= width else message[: width - 1] + "…"
    age = since(max(now_ms - letter.failed_at.timestamp() * 1000, 0))
    return [letter.task_id, letter.queue_type, letter.task_name, shown, letter.attempts, age]


async def read(wanted: DeadFilter, limit: int, with_traceback: bool) -> tuple[list[DeadLetter], float]:
    found: list[DeadLetter] = []
    async with open_backend() as backend:
        seconds, microseconds = await backend.redis.time()
        async for letter in backend.letters.letters(wanted, with_traceback=with_traceback):
            found.append(letter)
            if len(found) == limit:
                break
    return found, seconds * 1000 + microseconds / 1000


async def count_by_error(wanted: DeadFilter) -> Counter[tuple[str, str, str]]:
    async with open_backend() as backend:
        letters = backend.letters.letters(wanted)
        return Counter([(one.queue_type, one.task_name, one.error.type) async for one in letters])


def show_counts(counts: Counter[tuple[str, str, str]], *, json: bool) -> None:
    names = ["queue_type", "task_name", "error_type", "count"]
    rows = [(*key, number) for key, number in counts.most_common()]
    if json:
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    elif not rows:
        console.print("no dead letters", style="dim")
    else:
        print_table(["queue", "task", "error", "jobs"], rows)


@dead.command("retry")
def retry_dead(
    ids: Ids = None,
    queue: QueueOption = None,
    task: TaskOption = None,
    error: ErrorOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    all: All = False,
    json: Json = False,
) -> None:
    """Run failed jobs again, with their ids and arguments; exit code 1 when one cannot be, 3 when an id is unknown.

    **Examples:** `aegis-tasks dead retry --task io_simulation_task --newer-than 1h`, `aegis-tasks dead retry --all`
    """
    wanted = filter_of(ids, queue, task, error, older_than, newer_than)
    check_that_it_says_which(wanted, all)
    conclude(wanted, run(handle(wanted, DeadLetters.retry, "requeueing", quiet=json)), "requeued", json=json)


@dead.command("purge")
def purge_dead(
    ids: Ids = None,
    queue: QueueOption = None,
    task: TaskOption = None,
    error: ErrorOption = None,
    older_than: OlderOption = None,
    newer_than: NewerOption = None,
    all: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Forget failed jobs for good; their results stay as long as they would. Asks first.

    **Example:** `aegis-tasks dead purge --older-than 3d --yes`
    """
    wanted = filter_of(ids, queue, task, error, older_than, newer_than)
    check_that_it_says_which(wanted, all)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidRequest("purging asks first, and this is no terminal; say --yes", path="--yes")
        count = run(count_dead(wanted))
        if count and not typer.confirm(f"purge {count} dead letters? They cannot be retried then", err=True):
            raise typer.Exit(ExitCode.FAILED)
    conclude(wanted, run(handle(wanted, DeadLetters.purge, "purging", quiet=json)), "purged", json=json)


def filter_of(
    ids: list[str] | None,
    queue: str | None,
    task: str | None,
    error: str | None,
    older_than: str | None,
    newer_than: str | None,
) -> DeadFilter:
    return DeadFilter(
        ids=ids or None,
        queue=queue,
        task=task,
        error_type=error,
        older_than_s=read_duration_s(older_than, "--older-than"),
        newer_than_s=read_duration_s(newer_than, "--newer-than"),
    )


def read_duration_s(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    found = DURATION.fullmatch(text)
    if not found:
        raise InvalidRequest(f"{option} {text!r} is no age; write 90s, 15m, 2h or 3d", path=option)
    return float(found[1]) * SECONDS[found[2]]


def check_that_it_says_which(wanted: DeadFilter, is_all: bool) -> None:
    if not is_all and wanted == DeadFilter():
        raise InvalidRequest("say which: ids, or filters such as --queue and --task, or --all", path="--all")


async def count_dead(wanted: DeadFilter) -> int:
    async with open_backend() as backend:
        return len([letter async for letter in backend.letters.letters(wanted)])


async def handle(
    wanted: DeadFilter,
    how: Callable[[DeadLetters, DeadFilter], AsyncIterator[Step]],
    name: str,
    *,
    quiet: bool,
) -> list[Handled]:
    handled: list[Handled] = []
    bar: Progress | None = None
    async with open_backend() as backend:
        with ExitStack() as stack:
            async for step in how(backend.letters, wanted):
                handled += step.handled
                if bar is None and step.total > BATCH and not quiet:
                    bar = stack.enter_context(progress_bar())
                    bar.add_task(name, total=step.total)
                if bar is not None:
                    bar.update(bar.task_ids[0], completed=step.done)
    return handled


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=error_console)


def conclude(wanted: DeadFilter, handled: list[Handled], done: Verdict, *, json: bool) -> None:
    """Tells what was done and what was not, and leaves with the exit code that fits it."""
    counts = Counter(one.verdict for one in handled)
    refused = [one for one in handled if one.verdict not in {done, "gone"}]  # what is gone, somebody else has handled
    known = {one.task_id for one in handled if one.verdict != "gone"}
    unknown = [job_id for job_id in dict.fromkeys(wanted.ids or ()) if job_id not in known]
    if json:
        print_json({done: counts[done], "refused": refused, "not_found": unknown})
    else:
        console.print(f"{counts[done]} {done}" if handled or unknown else "no dead letters", markup=False)
        for one in refused:
            error_console.print(f"{one.task_id}: {one.message}", style="yellow", markup=False, soft_wrap=True)
        for job_id in unknown:
            error_console.print(f"{job_id}: no dead letter has this id", style="yellow", markup=False, soft_wrap=True)
    if refused:
        raise typer.Exit(ExitCode.FAILED)
    if unknown:
        raise typer.Exit(ExitCode.NOT_FOUND)
