"""Events for callers: pages with a cursor, the latest, following, one job's, and waiting for the end of a job."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from redis.asyncio import Redis

from bridge.backend import EventPage
from bridge.broadcast import Broadcast
from bridge.broker import is_away
from bridge.event_stream import BEGINNING, END, READ_COUNT, EventFilter, EventStream
from bridge.events import Event
from bridge.inspector import Inspector, JobResult
from bridge.job_events import events_of_job
from bridge.result_waiters import ResultWaiters

__all__ = ["EventFeed"]

SCAN_MOST: Final = 10_000
"""Entries that one page is looked for in."""
LATEST_SCAN_MOST: Final = 100_000
PAGE_MOST_BYTES: Final = 4 * 1024 * 1024
RETRY_S: Final = 1.0


class EventFeed:
    """The event stream for any number of readers in this process, who share one connection that waits.

    Args:
        redis: where the stream is.
        inspector: reads results.
    """

    def __init__(self, redis: Redis, inspector: Inspector) -> None:
        self.inspector = inspector
        self.stream = EventStream(redis)
        self.broadcast = Broadcast(redis)
        self.waiters = ResultWaiters(redis, inspector, self.broadcast)

    async def events(
        self, wanted: EventFilter, *, after: str = BEGINNING, limit: int = 100, wait_s: float = 0
    ) -> EventPage:
        """The first events after a cursor that match; waits up to ``wait_s`` for one if there is none yet.

        It looks through 10 000 entries at most and gives up to 4 MiB, so a page may have fewer events, or none,
        although more follow: ``next_after`` is where to go on. A ``stream.gap`` does not count for ``limit``.
        """
        if after == END:
            after = await self.stream.last_id()
        else:
            page, is_whole = await self._scan(wanted, after, limit)
            if page.events or not is_whole:
                return page
            after = page.next_after
        if wait_s <= 0:
            return EventPage(events=[], next_after=after)
        return await self._next_events(wanted, after, limit, wait_s)

    async def _scan(self, wanted: EventFilter, after: str, limit: int) -> tuple[EventPage, bool]:
        """A page of what is there, and whether all there is has been looked through."""
        is_filtered = wanted.kinds or wanted.queue or wanted.task or wanted.job_id
        count = READ_COUNT if is_filtered else min(READ_COUNT, limit)
        found: list[Event] = []
        size_bytes = wanted_there = 0
        for _ in range(0, SCAN_MOST, count):
            read = await self.stream.history(after, count=count)
            for event in read:
                if not wanted.matches(event):
                    after = event.id
                    continue
                found.append(event)
                if event.kind == "stream.gap":
                    continue
                after = event.id
                wanted_there += 1
                size_bytes += len(memoryview(event.data))
                if wanted_there == limit or size_bytes >= PAGE_MOST_BYTES:
                    return EventPage(events=found, next_after=after), False
            if len(read) < count:
                return EventPage(events=found, next_after=after), True
        return EventPage(events=found, next_after=after), False

    async def _next_events(self, wanted: EventFilter, after: str, limit: int, wait_s: float) -> EventPage:
        async with self.broadcast.subscribe(wanted, after=after, is_urgent=True) as subscription:
            timer = asyncio.get_running_loop().call_later(wait_s, subscription.nudge)
            batch = await subscription.next_batch()
            timer.cancel()
            if not batch:
                return EventPage(events=[], next_after=subscription.position)
            events = [shared.event for shared in batch.events]
            page = events[: limit + (events[0].kind == "stream.gap")]
            is_all = len(page) == len(events)
            return EventPage(events=page, next_after=subscription.position if is_all else page[-1].id)

    async def latest_events(self, wanted: EventFilter, *, limit: int = 50) -> list[Event]:
        """The newest events that match, oldest first; of the newest 100 000 entries."""
        found: list[Event] = []
        looked_at = 0
        async for event in self.stream.backwards():
            looked_at += 1
            if wanted.matches(event):
                found.append(event)
            if len(found) == limit or looked_at == LATEST_SCAN_MOST:
                break
        return found[::-1]

    async def follow(self, wanted: EventFilter, *, after: str = END) -> AsyncGenerator[Event, None]:
        """Every event after the cursor that matches, then new ones as they come, until `close`.

        Lost connections are mended, except that the first one must succeed. A reader that is slow misses nothing.
        """
        if after == END:
            after = await self.stream.last_id()
        has_begun = False
        while not self.broadcast.is_closing:
            try:
                async with self.broadcast.subscribe(wanted, after=after, is_urgent=True) as subscription:
                    has_begun = True
                    while not subscription.has_ended:
                        for shared in (await subscription.next_batch()).events:
                            after = shared.event.id
                            yield shared.event
            except Exception as error:
                if not has_begun or not is_away(error):
                    raise
                await asyncio.sleep(RETRY_S)

    async def job_events(self, task_id: str) -> list[Event]:
        """The events of one job that the stream still has, oldest first, within the bounds of `bridge.job_events`."""
        return await events_of_job(self.inspector, task_id)

    async def wait_for_result(self, task_id: str, *, wait_s: float) -> JobResult:
        """A job's result as soon as it has ended, or its state when ``wait_s`` is over; see `ResultWaiters`.

        Raises:
            JobNotFound: nothing is known of it.
        """
        return await self.waiters.wait(task_id, wait_s=wait_s)

    def close(self) -> None:
        """Whoever waits or follows gets what there is, and no more."""
        self.broadcast.close()

    async def aclose(self) -> None:
        """The same, and nothing of it runs any more."""
        await self.broadcast.aclose()
