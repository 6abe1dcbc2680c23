"""What callers read of the event stream: pages, the latest ones, those of one job, new ones, and a job's end."""

import itertools
from collections.abc import AsyncGenerator
from typing import Final

from redis.asyncio import Redis

from bridge.backend import EventPage
from bridge.event_stream import BEGINNING, END, EventFilter, EventStream
from bridge.events import Event
from bridge.inspector import Inspector, JobResult

__all__ = ["EventFeed"]

MOST: Final = 100


class EventFeed:
    """A stand-in without a shared reader: nothing waits."""

    def __init__(self, redis: Redis, inspector: Inspector) -> None:
        self.stream = EventStream(redis)
        self.inspector = inspector

    async def events(
        self, wanted: EventFilter, *, after: str = BEGINNING, limit: int = MOST, wait_s: float = 0
    ) -> EventPage:
        """As `bridge.backend.Backend.events`."""
        found = [event for event in await self.stream.history(after) if wanted.matches(event)][:limit]
        return EventPage(events=found, next_after=found[-1].id if found else after)

    async def latest_events(self, wanted: EventFilter, *, limit: int = 50) -> list[Event]:
        """As `bridge.backend.Backend.latest_events`."""
        found = [event async for event in self.stream.backwards() if wanted.matches(event)]
        return list(itertools.islice(found, limit))[::-1]

    async def job_events(self, task_id: str) -> list[Event]:
        """As `bridge.backend.Backend.job_events`."""
        return await self.latest_events(EventFilter(job_id=task_id), limit=1000)

    async def follow(self, wanted: EventFilter, *, after: str = END) -> AsyncGenerator[Event, None]:
        """As `bridge.backend.Backend.follow`."""
        async for event in self.stream.follow(after):
            if wanted.matches(event):
                yield event

    async def wait_for_result(self, task_id: str, *, wait_s: float) -> JobResult:
        """As `bridge.backend.Backend.result`."""
        return await self.inspector.result(task_id)

    async def aclose(self) -> None:
        """Nothing is open."""
