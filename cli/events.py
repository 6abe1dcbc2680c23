"""``aegis-tasks events``: what happened, and what happens now."""

import asyncio
import contextlib
from typing import Annotated

import typer

from bridge.broker import STORE_AWAY
from bridge.errors import InvalidRequest
from bridge.event_stream import END, EventFilter, EventStream, parse_cursor
from bridge.events import KINDS, Event
from cli.context import open_backend, run
from cli.options import Json, QueueOption
from cli.printing import console, error_console, event_line, print_json, print_json_line

__all__ = ["events"]

RECONNECT_EVERY_S = 1.0


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")] = False,
    after: Annotated[
        str | None,
        typer.Option(help="Begin after this event id or time; `0` is the beginning, `$` the end."),
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind, e.g. job.failed; may be repeated.")] = None,
    queue: QueueOption = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    id: Annotated[str | None, typer.Option("--id", help="Only this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, without --follow.")] = 50,
    json: Json = False,
) -> None:
    """Show the events of jobs and workers: the latest ones, those after a point, or as they happen.

    **Examples:** `aegis-tasks events --follow`, `aegis-tasks events --after 2026-01-31T12:00:00Z --kind job.failed`
    """
    for name in kind or ():
        if name.startswith(("job.", "queue.", "worker.", "subscription.", "stream.")) and name not in KINDS:
            raise InvalidRequest(f"there is no kind {name!r}; kinds: {', '.join(KINDS)}", path="kind")
    wanted = EventFilter(kinds=kind or (), queue=queue or "", task=task or "", job_id=id or "")
    start = None if after is None else parse_cursor(after)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # that is how following ends
            run(show_as_they_come(wanted, start or END, json=json))
    else:
        show(run(read(wanted, start, limit)), json=json)


async def read(wanted: EventFilter, after: str | None, limit: int) -> list[Event]:
    async with open_backend() as backend:
        if after == END:
            return []
        if after is None:
            return await latest(backend.stream, wanted, limit)
        return await earliest(backend.stream, wanted, after, limit)


async def latest(stream: EventStream, wanted: EventFilter, limit: int) -> list[Event]:
    """The newest events that match, oldest first."""
    found: list[Event] = []
    async for event in stream.backwards():
        if wanted.matches(event):
            found.append(event)
            if len(found) == limit:
                break
    return found[::-1]


async def earliest(stream: EventStream, wanted: EventFilter, after: str, limit: int) -> list[Event]:
    """The first events after a cursor that match."""
    found: list[Event] = []
    while len(found) < limit and (page := await stream.history(after)):
        found += [event for event in page if wanted.matches(event)]
        after = page[-1].id
    return found[:limit]


async def show_as_they_come(wanted: EventFilter, after: str, *, json: bool) -> None:
    """Prints events for ever; begins again after the last one when the connection was lost."""
    async with open_backend() as backend:
        cursor = await backend.stream.last_id() if after == END else after
        is_connected = True
        while True:
            try:
                async for event in backend.stream.follow(cursor):
                    is_connected = True
                    cursor = event.id
                    if wanted.matches(event):
                        show_one(event, json=json)
            except STORE_AWAY as error:
                if is_connected:
                    error_console.print(f"Redis went away ({error}); waiting for it …", style="yellow", markup=False)
                is_connected = False
                await asyncio.sleep(RECONNECT_EVERY_S)


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
