"""``aegis-tasks events``: what happened, and what happens now."""

import contextlib
from typing import Annotated, Final

import typer

from bridge.backend import Backend
from bridge.errors import InvalidRequest
from bridge.event_stream import END, EventFilter, parse_cursor
from bridge.events import KINDS, Event
from cli.completion import complete_kind
from cli.context import open_backend, run
from cli.log import show_warnings
from cli.options import JobOption, Json, QueueOption, TaskOption
from cli.printing import console, event_line, print_json, print_json_line

__all__ = ["events"]

PAGE: Final = 500


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")] = False,
    after: Annotated[
        str | None,
        typer.Option(help="Begin after this event id or time (RFC 3339); `0` is the beginning, `$` the end."),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only this kind, e.g. job.failed; may be repeated.", autocompletion=complete_kind),
    ] = None,
    queue: QueueOption = None,
    task: TaskOption = None,
    id: JobOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, without --follow.")] = 50,
    json: Json = False,
) -> None:
    """Show the events of jobs and workers: the latest ones, those after a point, or as they happen.

    After a lost connection --follow goes on where it was: nothing is missed.

    **Examples:** `aegis-tasks events --follow`, `aegis-tasks events --after 2026-01-31T12:00:00Z --kind job.failed`
    """
    for name in kind or ():
        if name.startswith(("job.", "queue.", "worker.", "subscription.", "stream.")) and name not in KINDS:
            raise InvalidRequest(f"there is no kind {name!r}; kinds: {', '.join(KINDS)}", path="kind")
    wanted = EventFilter(kinds=kind or (), queue=queue or "", task=task or "", job_id=id or "")
    start = None if after is None else parse_cursor(after)
    if follow:
        show_warnings()
        with contextlib.suppress(KeyboardInterrupt):  # that is how following ends
            run(show_as_they_come(wanted, start or END, json=json))
    else:
        show(run(read(wanted, start, limit)), json=json)


async def read(wanted: EventFilter, after: str | None, limit: int) -> list[Event]:
    async with open_backend() as backend:
        if after is None:
            return await backend.latest_events(wanted, limit=limit)
        return [] if after == END else await earliest(backend, wanted, after, limit)


async def earliest(backend: Backend, wanted: EventFilter, after: str, limit: int) -> list[Event]:
    """The first events after a cursor that match, up to the limit."""
    found: list[Event] = []
    while len(found) < limit:
        page = await backend.events(wanted, after=after, limit=min(limit - len(found), PAGE))
        found += page.events
        if page.next_after == after:
            break
        after = page.next_after
    return found


async def show_as_they_come(wanted: EventFilter, after: str, *, json: bool) -> None:
    """Prints events for ever; begins again after the last one when the connection was lost."""
    async with open_backend() as backend:
        async for event in backend.follow(wanted, after=after):
            show_one(event, json=json)


def show(found: list[Event], *, json: bool) -> None:
    if json:
        print_json(found)
    else:
        for event in found:
            console.print(event_line(event), no_wrap=True, overflow="ellipsis")
        if not found:
            console.print("no events yet", style="dim")


def show_one(event: Event, *, json: bool) -> None:
    if json:
        print_json_line(event)
    else:
        console.print(event_line(event), no_wrap=True, overflow="ellipsis")
