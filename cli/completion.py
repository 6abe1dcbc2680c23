"""What a shell offers after Tab: tasks, queues, ids. Quick, and silent when it cannot be found out.

Nothing heavy is imported before Tab is pressed, and no server is ever started for it.
"""

import asyncio
import contextlib
import functools
import io
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, ParamSpec

import msgspec
import typer

from cli import gateway_options

if TYPE_CHECKING:
    from bridge.backend import Backend
    from bridge.events import Event
    from bridge.settings import Settings

__all__ = [
    "complete_dead_job",
    "complete_job",
    "complete_kind",
    "complete_queue",
    "complete_task",
    "complete_unfinished_job",
]

PATIENCE_S: Final = 0.8
LATEST_EVENTS: Final = 200
MOST_IDS: Final = 50

P = ParamSpec("P")
Offer = list[tuple[str, str]]
"""What can be typed, and what it is."""


def silent(complete: Callable[P, Offer]) -> Callable[P, Offer]:
    """What goes wrong is not told: then there is nothing to offer."""

    @functools.wraps(complete)
    def try_to(*args: P.args, **kwargs: P.kwargs) -> Offer:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # a queue's module may print
                return complete(*args, **kwargs)
        except Exception:
            return []

    return try_to


@silent
def complete_task(ctx: typer.Context, incomplete: str) -> Offer:
    """The tasks, of the queue that has been named if one has."""
    queue = ctx.params.get("queue")
    offer = [(name, summary) for name, of_queue, summary in tasks_and_queues() if queue in {None, of_queue}]
    return begun_with(incomplete, offer)


@silent
def complete_queue(ctx: typer.Context, incomplete: str) -> Offer:
    """The queues that have not been named yet."""
    named = ctx.params.get("queues") or ()
    return begun_with(incomplete, [(name, "") for name in queue_names() if name not in named])


@silent
def complete_kind(incomplete: str) -> Offer:
    """The kinds of events."""
    from bridge.events import KINDS

    return begun_with(incomplete, [(kind, (one.__doc__ or "").strip()) for kind, one in KINDS.items()])


@silent
def complete_job(incomplete: str) -> Offer:
    """Jobs that something happened to lately."""
    return latest_jobs(incomplete, lambda kind: True)


@silent
def complete_unfinished_job(incomplete: str) -> Offer:
    """Those of them that have not ended."""
    from bridge.events import TERMINAL_KINDS

    return latest_jobs(incomplete, lambda kind: kind not in TERMINAL_KINDS)


@silent
def complete_dead_job(incomplete: str) -> Offer:
    """Those of them that have failed."""
    return latest_jobs(incomplete, lambda kind: kind == "job.failed")


def latest_jobs(incomplete: str, takes: Callable[[str], bool]) -> Offer:
    """The jobs of the latest events, newest first, whose latest event is of such a kind."""
    latest: dict[str, Event] = {}
    for event in reversed(latest_events()):
        if event.job_id:
            latest.setdefault(event.job_id, event)
    offer = [(job_id, f"{one.task} {one.kind}") for job_id, one in latest.items() if takes(one.kind)]
    return begun_with(incomplete, offer)[:MOST_IDS]


def begun_with(incomplete: str, offer: Offer) -> Offer:
    return [(value, meaning) for value, meaning in offer if value.startswith(incomplete)]


def tasks_and_queues() -> list[tuple[str, str, str]]:
    """Name, queue and summary of every task."""
    from bridge.catalog import load_catalog
    from bridge.settings import read_settings

    settings = read_settings()
    if gateway_options.chosen(settings)[0]:
        return [(task.name, task.queue, task.summary) for task in ask(settings, lambda backend: backend.tasks()).tasks]
    queues = load_catalog(settings.queues).queues.values()
    return [(task.name, queue.name, task.summary) for queue in queues for task in queue.tasks.values()]


def queue_names() -> list[str]:
    from bridge.catalog import load_catalog
    from bridge.settings import read_settings

    settings = read_settings()
    if gateway_options.chosen(settings)[0]:
        return list(ask(settings, lambda backend: backend.tasks()).queues)
    return list(load_catalog(settings.queues).queues)


def latest_events() -> "list[Event]":
    from bridge.event_stream import EventFilter
    from bridge.settings import read_settings

    found: list[Event] = ask(read_settings(), lambda backend: backend.latest_events(EventFilter(), limit=LATEST_EVENTS))
    return found


def ask(settings: "Settings", question: "Callable[[Backend], Awaitable[Any]]") -> Any:
    """The answer of the gateway, or of Redis if it runs already; loading what asks takes no part of the patience.

    Raises:
        LookupError: the embedded Valkey does not run.
        TimeoutError: nobody answers in time.
    """
    from bridge.broker import is_embedded
    from cli.context import open_backend, open_store

    if gateway_options.chosen(settings)[0]:
        import httpx  # noqa: F401

        from bridge import gateway_client  # noqa: F401

        opening: Any = open_backend()
    elif is_embedded(settings):
        from bridge.embedded_valkey import find_running

        url = find_running(settings.data_dir)
        if url is None:
            raise LookupError
        opening = open_store(msgspec.structs.replace(settings, redis_url=url))
    else:
        opening = open_store(settings)

    async def answer() -> Any:
        async with opening as backend:
            return await question(backend)

    return asyncio.run(asyncio.wait_for(answer(), PATIENCE_S))
