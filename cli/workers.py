"""``aegis-tasks workers``: who works, on what, and since when."""

from rich.table import Table

from bridge.backend import WorkerList
from bridge.worker_registry import WorkerStatus
from cli.context import open_backend, run
from cli.options import Json
from cli.printing import console, make_table, print_json, since

__all__ = ["print_workers", "worker_table", "workers"]


def workers(json: Json = False) -> None:
    """Show each worker, which is one queue in one process: whether it lives, and how many jobs it runs and has run.

    A worker is missing when it has been silent for 12.5 s or more, until another one takes it off the list.

    **Example:** `aegis-tasks workers`
    """
    found = run(read()).workers
    if json:
        print_json(found)
    else:
        print_workers(found)


async def read() -> WorkerList:
    async with open_backend() as backend:
        return await backend.workers()


def print_workers(found: list[WorkerStatus]) -> None:
    """The workers as a table."""
    console.print(worker_table(found))


def worker_table(found: list[WorkerStatus]) -> Table:
    """A line for each worker; the first column is the id that events have."""
    columns = ["worker", "queue", "state", "runner", "running", "done", "failed", "retried", "heartbeat"]
    rows = [
        (
            worker.id,
            worker.queue,
            worker.state,
            worker.runner,
            f"{worker.running}/{worker.max_jobs}",
            worker.done,
            worker.failed,
            worker.retried,
            since(worker.heartbeat_age_ms),
        )
        for worker in found
    ]
    return make_table(columns, rows)
