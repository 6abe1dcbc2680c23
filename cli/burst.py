"""``aegis-tasks burst``: run what is in a queue, then end."""

import asyncio
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.context import open_store, run
from cli.exit_codes import ExitCode
from cli.log import configure_logging
from cli.options import Json, QueueName
from cli.printing import console, error_console, print_json
from workers.batch_worker import BatchWorker
from workers.run import make_worker, run_workers

__all__ = ["burst"]

REFRESH_S = 0.1


def burst(
    queue: QueueName,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every job.")] = False,
    json: Json = False,
) -> None:
    """Run the jobs of a queue until none is left; exit code 1 when one of them failed.

    Deferred jobs are waited for.

    **Example:** `aegis-tasks burst load_test`
    """
    configure_logging(is_quiet=not verbose)
    counts = run(run_burst(queue, show_progress=not json and not verbose))
    if json:
        print_json(counts)
    else:
        told = ", ".join(
            f"{number} {outcome}" for outcome, number in counts.items() if number or outcome == "succeeded"
        )
        console.print(f"{queue}: {told}", style="red" if counts["failed"] else "green", markup=False)
    if counts["failed"]:
        raise typer.Exit(ExitCode.FAILED)


async def run_burst(queue_name: str, *, show_progress: bool) -> dict[str, int]:
    async with open_store() as backend:
        queue = backend.catalog.queue(queue_name)
        total = await backend.redis.zcard(queue.key)
        worker = make_worker(queue, burst=True)
        running = asyncio.create_task(run_workers([worker]))
        with progress_bar() if show_progress else nullcontext() as bar:
            await show_until_done(running, worker, bar, queue_name, total)
        await running
    return {"succeeded": worker.jobs_complete, "failed": worker.jobs_failed, "retried": worker.jobs_retried}


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=error_console,
    )


async def show_until_done(
    running: "asyncio.Task[Any]", worker: BatchWorker, bar: Progress | None, queue_name: str, total: int
) -> None:
    shown = bar.add_task(queue_name, total=total, rate="") if bar else None
    started_s = asyncio.get_running_loop().time()
    while not running.done():
        await asyncio.wait({running}, timeout=REFRESH_S)
        if bar is not None and shown is not None:
            ended = worker.jobs_complete + worker.jobs_failed
            elapsed_s = asyncio.get_running_loop().time() - started_s
            bar.update(shown, completed=ended, total=max(total, ended), rate=f"{ended / elapsed_s:.0f}/s")
