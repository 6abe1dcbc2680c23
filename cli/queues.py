"""``aegis-tasks queues``, ``pause`` and ``resume``: how every queue is doing, and whether it starts jobs."""

from rich.table import Table

from bridge.backend import PauseAnswer
from bridge.inspector import QueueStatus
from cli.context import open_backend, run
from cli.options import Json, QueueName
from cli.printing import console, make_table, print_json

__all__ = ["pause", "print_queues", "queue_table", "queues", "resume"]


def queues(json: Json = False) -> None:
    """Show each queue: whether its workers are there, how many jobs it holds, and what came of its latest ones.

    Jobs done per second, failed ones, and how long jobs waited and ran (median and 95 %) are of the last five
    minutes.

    **Example:** `aegis-tasks queues`
    """
    found = run(read_queues())
    if json:
        print_json(found)
    else:
        print_queues(found)


async def read_queues() -> list[QueueStatus]:
    async with open_backend() as backend:
        return (await backend.queues()).queues


def print_queues(found: list[QueueStatus]) -> None:
    """The queues as a table, at most 100 columns wide as long as no number is huge."""
    console.print(queue_table(found))


def queue_table(found: list[QueueStatus]) -> Table:
    """A line for each queue."""
    columns = ["queue", "state", "queued", "running", "deferred", "dead", "oldest", "done/s", "failed"]
    rows = [
        (
            queue.name,
            queue.message.removesuffix(" defined").removeprefix("worker "),
            queue.queued,
            queue.in_progress,
            queue.deferred,
            queue.dead,
            briefly(queue.oldest_age_ms) if queue.oldest_age_ms else None,
            round(queue.recent.per_second, 2 if queue.recent.per_second < 10 else None),
            None if queue.recent.failure_rate is None else f"{queue.recent.failure_rate:.1%}",
            two(queue.recent.wait_p50_ms, queue.recent.wait_p95_ms),
            two(queue.recent.run_p50_ms, queue.recent.run_p95_ms),
        )
        for queue in found
    ]
    return make_table([*columns, "wait\np50/p95", "run\np50/p95"], rows)


def two(median_ms: int | None, p95_ms: int | None) -> str | None:
    return None if median_ms is None or p95_ms is None else f"{briefly(median_ms)}/{briefly(p95_ms)}"


def briefly(milliseconds: int) -> str:
    """A length of time in at most five characters: ``870ms``, ``1.2s``, ``45s``, ``12m``, ``30h``, ``40d``."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = milliseconds / 1000
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for unit, length_s, limit in (("s", 1, 60), ("m", 60, 60), ("h", 3600, 48)):
        if seconds < length_s * limit:
            return f"{int(seconds / length_s)}{unit}"
    return f"{int(seconds / 86400)}d"


def pause(queue: QueueName, json: Json = False) -> None:
    """Let workers start no more jobs of a queue; those that run go on, and new ones are accepted.

    Workers of the stock arq command do not heed it.

    **Example:** `aegis-tasks pause load_test`
    """
    print_paused(run(set_paused(queue, True)), json=json)


def resume(queue: QueueName, json: Json = False) -> None:
    """Let workers start jobs of a paused queue again.

    **Example:** `aegis-tasks resume load_test`
    """
    print_paused(run(set_paused(queue, False)), json=json)


async def set_paused(queue_name: str, is_paused: bool) -> PauseAnswer:
    async with open_backend() as backend:
        return await (backend.pause(queue_name) if is_paused else backend.resume(queue_name))


def print_paused(answer: PauseAnswer, *, json: bool) -> None:
    if json:
        print_json(answer)
        return
    state = "paused" if answer.paused else "running"
    console.print(f"{answer.queue}: {state}{'' if answer.changed else ' already'}", markup=False)
