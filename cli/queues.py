"""``aegis-tasks queues``, ``pause`` and ``resume``: how every queue is doing, and whether it starts jobs."""

from typing import Annotated

import typer

from bridge.inspector import QueueStatus
from cli.context import open_backend, run
from cli.options import Json
from cli.printing import console, print_json, print_table, since

__all__ = ["pause", "print_queues", "queues", "resume"]

QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")]


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


def pause(queue: QueueName, json: Json = False) -> None:
    """Let workers start no more jobs of a queue; those that run go on. Workers of the stock arq command do not heed it.

    **Example:** `aegis-tasks pause load_test`
    """
    print_paused(queue, is_paused=True, has_changed=run(set_paused(queue, True)), json=json)


def resume(queue: QueueName, json: Json = False) -> None:
    """Let workers start jobs of a paused queue again.

    **Example:** `aegis-tasks resume load_test`
    """
    print_paused(queue, is_paused=False, has_changed=run(set_paused(queue, False)), json=json)


async def set_paused(queue_name: str, is_paused: bool) -> bool:
    async with open_backend() as backend:
        change = backend.control.pause if is_paused else backend.control.resume
        return await change(queue_name, by="cli")


def print_paused(queue_name: str, *, is_paused: bool, has_changed: bool, json: bool) -> None:
    if json:
        print_json({"queue": queue_name, "paused": is_paused, "changed": has_changed})
        return
    state = "paused" if is_paused else "running"
    console.print(f"{queue_name}: {state}" if has_changed else f"{queue_name}: {state} already", markup=False)
