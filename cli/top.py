"""``aegis-tasks top``: queues, workers and the latest events, live."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Final

import msgspec
import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bridge.backend import Backend, QueueList, WorkerList
from bridge.broker import is_away
from bridge.errors import Forbidden, GatewayUnreachable, RateLimited, StoreUnreachable
from bridge.event_stream import EventFilter
from bridge.events import KINDS, Event
from bridge.worker_registry import WorkerStatus
from cli.context import address_of, open_backend, run
from cli.live_counts import LiveCounts
from cli.options import Json
from cli.printing import console, event_line, print_json
from cli.queues import queue_table
from cli.screen import Screen
from cli.wait import end
from cli.workers import worker_table

__all__ = ["top"]

LOOK_EVERY_S: Final = 2.0
FRAME_S: Final = 0.25
"""Shortest time between two frames."""
TICK_S: Final = 1.0
"""Longest one, since ages grow."""
EVENTS_SHOWN: Final = 200
WATCHED: Final = tuple(kind for kind in KINDS if kind not in {"job.progressed", "stream.gap"})
SPARE_COLUMNS: Final = {
    "oldest": 100,
    "wait\np50/p95": 88,
    "failed": 68,
    "run\np50/p95": 60,
    "runner": 100,
    "retried": 88,
}
"""Columns that narrower terminals go without."""


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, as when the output is no terminal.")] = False,
    json: Json = False,
) -> None:
    """Watch queues, workers and the latest events; q or Ctrl-C ends it.

    Counts follow each event; jobs done per second are of the last five seconds.

    **Examples:** `aegis-tasks top`, `aegis-tasks top --once`
    """
    if json or once or not sys.stdout.isatty():
        run(show_once(json=json))
    else:
        run(watch())


class Picture:
    """What there is to be seen.

    Attributes:
        place: whom we ask.
        trouble: why nothing new comes; empty when all is well.
        note: what is missing in the picture.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.trouble = self.note = ""
        self.counts = LiveCounts()
        self.workers: list[WorkerStatus] = []
        self.workers_seen_s = 0.0
        self.events: deque[Event] = deque(maxlen=EVENTS_SHOWN)
        self.has_changed = asyncio.Event()

    def take_snapshot(self, queues: QueueList, workers: WorkerList) -> None:
        """It is so now."""
        self.trouble = ""
        self.counts.take_snapshot(queues)
        self.workers, self.workers_seen_s = workers.workers, time.monotonic()
        self.has_changed.set()

    def take(self, event: Event, *, is_shown: bool) -> None:
        """This has happened; the event is shown unless it is already."""
        self.counts.take(event, now_s=time.monotonic())
        if not is_shown:
            self.events.append(event)
        self.has_changed.set()

    def tell_trouble(self, reason: str) -> None:
        """Something is wrong."""
        self.trouble = reason
        self.has_changed.set()

    def workers_now(self) -> list[WorkerStatus]:
        """The workers, as old as their heartbeats are now."""
        passed_ms = round((time.monotonic() - self.workers_seen_s) * 1000)
        return [
            msgspec.structs.replace(worker, heartbeat_age_ms=worker.heartbeat_age_ms + passed_ms)
            for worker in self.workers
        ]


async def show_once(*, json: bool) -> None:
    async with open_backend() as backend:
        queues, workers = await backend.queues(), await backend.workers()
        try:
            events = await backend.latest_events(EventFilter(kinds=WATCHED), limit=20)
        except Forbidden:
            events = []
    if json:
        print_json({"event_id": queues.event_id, "queues": queues.queues, "workers": workers.workers, "events": events})
        return
    console.print(queue_table(queues.queues))
    console.print()
    console.print(worker_table(workers.workers))
    console.print()
    for event in events:
        console.print(event_line(event), no_wrap=True, overflow="ellipsis")


async def watch() -> None:
    async with open_backend() as backend:
        picture = Picture(address_of(backend))
        queues, workers = await backend.queues(), await backend.workers()
        picture.take_snapshot(queues, workers)
        screen = Screen(sys.stdout)
        with screen.open(on_change=picture.has_changed.set) as stop:
            running = [
                asyncio.create_task(stop.wait()),
                asyncio.create_task(look(backend, picture)),
                asyncio.create_task(follow(backend, picture, queues.event_id)),
                asyncio.create_task(paint(screen, picture)),
            ]
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await end(running)
    for task in done:
        task.result()  # or what was wrong


async def look(backend: Backend, picture: Picture) -> None:
    """Takes a snapshot every two seconds, for what no event tells."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            picture.take_snapshot(await backend.queues(), await backend.workers())
        except Exception as error:
            if not may_come_back(error):
                raise
            picture.tell_trouble(f"away, waiting for it ({error})")


async def follow(backend: Backend, picture: Picture, after: str) -> None:
    """Takes each event after the first snapshot."""
    wanted = EventFilter(kinds=WATCHED)
    while True:
        try:
            if not picture.events:
                picture.events.extend(await backend.latest_events(wanted, limit=EVENTS_SHOWN))
            shown = {event.id for event in picture.events}
            async with aclosing(backend.follow(wanted, after=after)) as events:
                async for event in events:
                    after = event.id
                    if event.kind != "stream.gap":
                        picture.take(event, is_shown=event.id in shown)
        except Forbidden:
            picture.note = "(no events: the token lacks events:read)"
            await asyncio.Event().wait()
        except Exception as error:  # the first connection must succeed, later ones mend themselves
            if not may_come_back(error):
                raise
        await asyncio.sleep(LOOK_EVERY_S)


def may_come_back(error: Exception) -> bool:
    """Whether Redis or the gateway is only away for now."""
    return is_away(error) or isinstance(error, StoreUnreachable | GatewayUnreachable | RateLimited)


async def paint(screen: Screen, picture: Picture) -> None:
    """Draws what has changed, four times a second at most."""
    while True:
        picture.has_changed.clear()
        size = console.size
        screen.draw(list(frame(picture, size.width - 1, size.height)))
        await asyncio.sleep(FRAME_S)
        try:
            async with asyncio.timeout(TICK_S - FRAME_S):
                await picture.has_changed.wait()
        except TimeoutError:
            pass


def frame(picture: Picture, width: int, height: int) -> Iterator[str]:
    """The lines of the picture, cut to the size of the terminal: first the queues, then workers, then events."""
    head = Text(f"aegis-tasks  {picture.place} {picture.note}", style="bold", no_wrap=True, overflow="ellipsis")
    clock = Text(f"{datetime.now():%H:%M:%S}  q quits", style="dim")
    if picture.trouble:
        head = Text(f"{picture.place}: {picture.trouble}", style="bold red", no_wrap=True, overflow="ellipsis")
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True)
    line.add_column(no_wrap=True)
    line.add_row(head, clock)
    queues = lines_of([line, "", narrowed(queue_table(picture.counts.queues(now_s=time.monotonic())), width)], width)
    workers = lines_of(["", narrowed(worker_table(picture.workers_now()), width)], width)
    left = max(height - len(queues), 0)
    most_workers = max(left // 2, min(left, 4))
    if len(workers) > most_workers:
        hidden = len(workers) - most_workers + 1
        workers = [*workers[: most_workers - 1], *lines_of([Text(f"… {hidden} more workers", style="dim")], width)]
    left = max(left - len(workers) - 1, 0)
    latest = list(picture.events)[-left:] if left else []
    yield from [*queues, *workers, "", *lines_of([event_line(event) for event in latest], width)][:height]


def narrowed(table: Table, width: int) -> Table:
    """The table without the columns that there is no room for, each line on one line."""
    table.columns = [column for column in table.columns if SPARE_COLUMNS.get(str(column.header), 0) <= width]
    for column in table.columns:
        column.no_wrap = True
        column.overflow = "ellipsis"
    return table


def lines_of(parts: Sequence[RenderableType], width: int) -> list[str]:
    """What a terminal is sent to show them, line by line."""
    with console.capture() as captured:
        for part in parts:
            console.print(part, width=width, no_wrap=True, overflow="ellipsis")
    return captured.get().splitlines()
