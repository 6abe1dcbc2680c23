"""One reader of the event stream for a whole process; what it reads goes to any number of subscribers.

A subscriber gets every event that its filter lets through from its cursor on, in stream order, none twice. What
lies before the reader's place it reads by itself, page by page, as fast as it takes the pages; the latest events
are kept in memory, and there the two meet. An event that Redis has trimmed is missing: a ``stream.gap`` says so.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import msgspec
from redis.asyncio import Redis

from bridge.broker import is_away, same_place
from bridge.event_stream import END, EventFilter, EventStream
from bridge.events import Event
from bridge.shared_event import NOTHING, Batch, Place, SharedEvent, id_of, merged, place_of

__all__ = ["Broadcast", "Subscription"]

logger = logging.getLogger("aegis.events")

RECENT_MOST: Final = 4096
RECENT_MOST_BYTES: Final = 4 * 1024 * 1024
BUFFER_MOST_BYTES: Final = 4 * 1024 * 1024
"""What may wait for one subscriber. The events themselves are shared, so many slow ones take hardly more."""
PAGE_COUNT: Final = 200
PAGES_AT_ONCE: Final = 4
SLICE: Final = 64
"""Subscribers that are served in one turn of the event loop, so that requests get theirs between."""
REST: Final = 2
"""After handing on, so many times the time it took is left for everything else, and what gathers goes together."""
REST_MOST_S: Final = 0.25
LINGER_S: Final = 2.0
FIRST_RETRY_S: Final = 0.1
MOST_RETRY_S: Final = 2.0


class Recent:
    """The latest events, without a hole: all that came after the place ``start``."""

    def __init__(self, start: Place) -> None:
        self.start = start
        self.events: deque[SharedEvent] = deque()
        self.size_bytes = 0

    def append(self, shared: SharedEvent) -> None:
        """Adds the newest one; the oldest give way."""
        self.events.append(shared)
        self.size_bytes += shared.size_bytes
        while len(self.events) > RECENT_MOST or self.size_bytes > RECENT_MOST_BYTES:
            oldest = self.events.popleft()
            self.start = oldest.place
            self.size_bytes -= oldest.size_bytes

    def after(self, place: Place) -> list[SharedEvent] | None:
        """All events after a place; ``None`` if some of them are not here any more."""
        if place < self.start:
            return None
        found = []
        for shared in reversed(self.events):
            if shared.place <= place:
                break
            found.append(shared)
        return found[::-1]


class Group:
    """Subscribers who want the same: what matches is looked for, and put together, once for all of them."""

    def __init__(self, wanted: EventFilter, *, is_urgent: bool) -> None:
        self.wanted = wanted
        self.is_urgent = is_urgent
        self.subscriptions: set[Subscription] = set()
        self.pending: list[SharedEvent] = []


class Subscription:
    """What one subscriber gets.

    Attributes:
        has_ended: nothing more comes.
        is_cut: it has ended because too much waited for it. A new one can go on where this one was.
    """

    def __init__(self, broadcast: "Broadcast", wanted: EventFilter, place: Place, *, is_urgent: bool) -> None:
        self.broadcast = broadcast
        self.wanted = wanted
        self.is_urgent = is_urgent
        self.is_live = False
        self.has_ended = broadcast.is_closing
        self.is_cut = False
        self._place = place
        self._waiting: list[Batch] = []
        self._waiting_bytes = 0
        self._is_nudged = False
        self._waker: asyncio.Future[None] | None = None

    @property
    def position(self) -> str:
        """A cursor from which nothing is missed and nothing comes twice, while nothing waits here."""
        place = max(self._place, self.broadcast.place) if self.is_live and not self._waiting else self._place
        return id_of(place)

    async def next_batch(self) -> Batch:
        """The next events; none of them after a `nudge`, or when the subscription has ended."""
        while True:
            if self._waiting:
                batch = merged(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
                return batch
            if self.has_ended or self._is_nudged:
                self._is_nudged = False
                return NOTHING
            if self.is_live:
                await self._wait()
            elif batch := await self._catch_up():
                return batch

    def nudge(self) -> None:
        """Lets `next_batch` return at once."""
        self._is_nudged = True
        self._wake()

    def end(self) -> None:
        """Nothing more comes, and nothing is kept."""
        self.has_ended = True
        self._waiting.clear()
        self.broadcast.leave(self)
        self._wake()

    def push(self, batch: Batch) -> None:
        """Takes what the reader has read; of that, what is new here."""
        if self.has_ended or not (batch := batch.after(self._place)):
            return
        if self._waiting and self._waiting_bytes + batch.size_bytes > BUFFER_MOST_BYTES:
            self.is_cut = True
            self.end()
            return
        self._place = batch.events[-1].place
        self._waiting.append(batch)
        self._waiting_bytes += batch.size_bytes
        self._wake()

    async def _catch_up(self) -> Batch:
        """A page of history, or the latest events; after those what the reader reads comes by itself."""
        recent = self.broadcast.recent
        if (events := recent.after(self._place)) is not None:
            # What the reader has read and not handed on yet is among the recent events: it must not come twice.
            self._place = max(self._place, self.broadcast.place)
            self.is_live = True
            self.broadcast.join(self)
            return self._matching(events)
        reached = recent.start
        try:
            page = await self.broadcast.page_after(id_of(self._place))
        except Exception as error:
            if not is_away(error):
                raise
            await self._wait(FIRST_RETRY_S)
            return NOTHING
        # No entry after our place means that none is left before the place from which the reader has them all.
        self._place = page[-1].place if page else max(self._place, reached)
        return self._matching(page)

    def _matching(self, events: list[SharedEvent]) -> Batch:
        return Batch([shared for shared in events if self.wanted.matches(shared.event)])

    async def _wait(self, timeout_s: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._waker = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake) if timeout_s else None
        try:
            await self._waker
        finally:
            self._waker = None
            if timer:
                timer.cancel()

    def _wake(self) -> None:
        if self._waker and not self._waker.done():
            self._waker.set_result(None)


class Broadcast:
    """The reader and its subscribers. It reads while there is one, on a connection of its own.

    Args:
        redis: where the stream is.

    Attributes:
        place: how far the reader has read.
        lag_s: how old the first of the events was that it read last; ``None`` while nobody needs it.
        is_closing: `close` was called.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.stream = EventStream(redis)
        self.place: Place = (0, 0)
        self.lag_s: float | None = None
        self.recent = Recent(self.place)
        self.is_closing = False
        self._count = 0
        self._unused_since_s = 0.0
        self._subscriptions: set[Subscription] = set()
        self._groups: dict[tuple[str, str], dict[tuple[EventFilter, bool], Group]] = {}
        self._changed: list[Group] = []
        self._is_handing_on = False
        self._flushed_at_s = self._rest_until_s = 0.0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._deliveries: deque[tuple[Subscription, Batch]] = deque()
        self._pages: dict[str, asyncio.Task[list[SharedEvent]]] = {}
        self._page_places = asyncio.Semaphore(PAGES_AT_ONCE)
        self._reader: asyncio.Task[None] | None = None
        self._is_reading: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def subscribe(
        self, wanted: EventFilter, *, after: str | None = None, is_urgent: bool = False
    ) -> AsyncIterator[Subscription]:
        """A subscription for as long as the block lasts.

        Args:
            wanted: what to get.
            after: cursor to begin after; ``$`` is the end of the stream now. By default it begins where the reader
                is, which costs no command and may be some moments ago.
            is_urgent: hand on each event at once, rather than what gathers in some milliseconds.

        Raises:
            Exception: what `redis` raises when the stream cannot be read now.
        """
        wanted = msgspec.structs.replace(wanted, kinds=frozenset(wanted.kinds))
        self._count += 1
        try:
            if not self.is_closing:
                await self._start()
            if after == END:
                after = await self.stream.last_id()
            place = self.place if after is None else place_of(after)
            subscription = Subscription(self, wanted, place, is_urgent=is_urgent)
            self._subscriptions.add(subscription)
            try:
                yield subscription
            finally:
                subscription.end()
                self._subscriptions.discard(subscription)
        finally:
            self._count -= 1
            self._unused_since_s = asyncio.get_running_loop().time()

    def close(self) -> None:
        """Every subscription has ended, and new ones end at once."""
        self.is_closing = True
        for subscription in list(self._subscriptions):
            subscription.end()

    async def aclose(self) -> None:
        """The same, and the reader has ended."""
        self.close()
        while self._reader and not self._reader.done():
            self._reader.cancel()
            await asyncio.wait({self._reader}, timeout=0.1)  # a cancellation may be swallowed inside redis-py

    # --- subscribers ------------------------------------------------------------------------------

    def join(self, subscription: Subscription) -> None:
        """From now on it gets what the reader reads."""
        wanted = subscription.wanted
        group = self._groups.setdefault(index_key(wanted), {}).setdefault(
            (wanted, subscription.is_urgent), Group(wanted, is_urgent=subscription.is_urgent)
        )
        group.subscriptions.add(subscription)

    def leave(self, subscription: Subscription) -> None:
        """It gets nothing any more."""
        if not subscription.is_live:
            return
        subscription.is_live = False
        key, name = index_key(subscription.wanted), (subscription.wanted, subscription.is_urgent)
        group = self._groups[key][name]
        group.subscriptions.discard(subscription)
        if not group.subscriptions:
            del self._groups[key][name]
            if not self._groups[key]:
                del self._groups[key]

    async def page_after(self, cursor: str) -> list[SharedEvent]:
        """The events that follow a cursor; who asks for the same page at the same time shares it."""
        reading = self._pages.get(cursor)
        if reading is None:
            reading = self._pages[cursor] = asyncio.create_task(self._read_page(cursor))
            reading.add_done_callback(lambda done: self._forget_page(cursor, done))
        return await asyncio.shield(reading)

    async def _read_page(self, cursor: str) -> list[SharedEvent]:
        async with self._page_places:
            return [SharedEvent(event) for event in await self.stream.history(cursor, count=PAGE_COUNT)]

    def _forget_page(self, cursor: str, reading: "asyncio.Task[list[SharedEvent]]") -> None:
        del self._pages[cursor]
        if not reading.cancelled():
            reading.exception()  # nobody may be left to hear of it

    # --- handing on -------------------------------------------------------------------------------

    def _hand_on(self, events: list[Event]) -> None:
        for event in events:
            shared = SharedEvent(event)
            self.place = shared.place
            if event.kind == "stream.gap":
                self.recent = Recent(shared.place)
            else:
                self.recent.append(shared)
            for group in self._groups_of(event):
                if group.wanted.matches(event):
                    if not group.pending:
                        self._changed.append(group)
                    group.pending.append(shared)
        self._changed = [group for group in self._changed if not self._flush_if_urgent(group)]
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Hands on what has gathered, unless that goes on, or the time to rest is not over."""
        if not self._changed or self._is_handing_on or self._flush_timer:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._rest_until_s:
            self._flush()
        else:
            self._flush_timer = loop.call_at(self._rest_until_s, self._flush)

    def _groups_of(self, event: Event) -> Iterator[Group]:
        if event.kind == "stream.gap":
            keys = list(self._groups)
        else:
            keys = [("", ""), ("job", event.job_id), ("task", event.task), ("queue", event.queue)]
        for key in keys:
            if groups := self._groups.get(key):
                yield from groups.values()

    def _flush_if_urgent(self, group: Group) -> bool:
        if group.is_urgent:
            batch, group.pending = Batch(group.pending), []
            for subscription in list(group.subscriptions):
                subscription.push(batch)
        return group.is_urgent

    def _flush(self) -> None:
        self._flush_timer = None
        self._is_handing_on = True
        self._flushed_at_s = asyncio.get_running_loop().time()
        for group in self._changed:
            batch, group.pending = Batch(group.pending), []
            self._deliveries.extend((subscription, batch) for subscription in group.subscriptions)
        self._changed = []
        self._deliver()

    def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(min(SLICE, len(self._deliveries))):
            subscription, batch = self._deliveries.popleft()
            subscription.push(batch)
        if self._deliveries:
            loop.call_soon(self._deliver)
        else:
            loop.call_soon(self._rest)  # those of the last slice are served first

    def _rest(self) -> None:
        self._is_handing_on = False
        now_s = asyncio.get_running_loop().time()
        self._rest_until_s = now_s + min(REST * (now_s - self._flushed_at_s), REST_MOST_S)
        self._flush_soon()

    # --- reading ----------------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._is_reading is None:
            self._is_reading = asyncio.get_running_loop().create_future()
            self._is_reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._reader = asyncio.create_task(self._read(self._is_reading))
        await asyncio.shield(self._is_reading)

    async def _read(self, is_reading: "asyncio.Future[None]") -> None:
        redis = same_place(self.redis)
        stream = EventStream(redis)
        try:
            cursor = await stream.last_id()
            self.place = place_of(cursor)
            self.recent = Recent(self.place)
            self.lag_s = 0.0
            is_reading.set_result(None)
            retry_s = FIRST_RETRY_S
            while not self._is_unused():
                try:
                    async with aclosing(stream.follow_in_lists(cursor)) as lists:
                        async for events in lists:
                            retry_s = FIRST_RETRY_S
                            if events:
                                self.lag_s = max(0.0, time.time() - place_of(events[0].id)[0] / 1000)
                                cursor = events[-1].id
                                self._hand_on(events)
                            if self._is_unused():
                                break
                except Exception as error:
                    if not is_away(error):
                        logger.exception("the event stream cannot be read; trying again")
                    elif retry_s == FIRST_RETRY_S:
                        logger.warning("the event stream cannot be read: %s; trying again", error)
                    await asyncio.sleep(retry_s)
                    retry_s = min(2 * retry_s, MOST_RETRY_S)
        except Exception as error:
            if not is_reading.done():
                is_reading.set_exception(error)
        finally:
            if not is_reading.done():
                is_reading.cancel()
            self._is_reading, self.lag_s = None, None
            await redis.aclose(close_connection_pool=True)

    def _is_unused(self) -> bool:
        """Nobody subscribes, and nobody has for a moment: one request after the other keeps one reader."""
        return self._count == 0 and asyncio.get_running_loop().time() - self._unused_since_s >= LINGER_S


def index_key(wanted: EventFilter) -> tuple[str, str]:
    """Where subscribers with this filter are found: events of other jobs, tasks or queues do not touch them."""
    for name, value in (("job", wanted.job_id), ("task", wanted.task), ("queue", wanted.queue)):
        if value:
            return name, value
    return "", ""
