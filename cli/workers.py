"""``aegis-tasks workers``: who works, on what, and since when."""

from bridge.backend import WorkerList
from bridge.worker_registry import WorkerStatus
from cli.context import open_backend, run
from cli.options import Json
from cli.printing import print_json, print_table, since

__all__ = ["workers"]


def workers(json: Json = False) -> None:
    """Show each worker: whether it lives, and how many jobs it runs and has run.

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
    """The workers as a table; the first column is the id that events have."""
    print_table(
        ["worker", "queue", "state", "runner", "running", "done", "failed", "retried", "heartbeat"],
        [
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
        ],
    )
