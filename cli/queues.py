"""``aegis-tasks queues``: how every queue is doing."""

from bridge.inspector import QueueStatus
from cli.context import open_backend, run
from cli.options import Json
from cli.printing import print_json, print_table, since

__all__ = ["print_queues", "queues"]


def queues(json: Json = False) -> None:
    """Show each queue: whether its workers are there, and how many jobs it holds.

    **Example:** `aegis-tasks queues`
    """
    found = run(read_queues())
    if json:
        print_json(found)
    else:
        print_queues(found)


async def read_queues() -> list[QueueStatus]:
    async with open_backend() as backend:
        return await backend.inspector.queues()


def print_queues(found: list[QueueStatus]) -> None:
    """The queues as a table."""
    print_table(
        ["queue", "state", "tasks", "queued", "running", "deferred", "oldest"],
        [(q.name, q.message, len(q.tasks), q.queued, q.in_progress, q.deferred, since(q.oldest_age_ms)) for q in found],
    )
