"""Reading the event stream: history after a cursor, following it, and saying when entries are missing."""

import re
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from bridge import keys
from bridge.errors import InvalidRequest
from bridge.events import Event, StreamGap, decode_entry, encode_data

__all__ = ["BEGINNING", "END", "EventFilter", "EventStream", "parse_cursor"]

BEGINNING: Final = "0-0"
END: Final = "$"
READ_COUNT: Final = 500
BLOCK_MS: Final = 2_000
"""Below the socket timeout of `bridge.broker`, which would otherwise cut a quiet read."""
LARGEST_SEQUENCE: Final = 2**64 - 1
ID: Final = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a reader wants; an empty field lets all through."""

    kinds: Collection[str] = ()
    queue: str = ""
    task: str = ""
    job_id: str = ""

    def matches(self, event: Event) -> bool:
        """Whether the reader wants this event; a gap is told to every reader."""
        if event.kind == "stream.gap":
            return True
        return (
            (not self.kinds or event.kind in self.kinds)
            and self.queue in {"", event.queue}
            and self.task in {"", event.task}
            and self.job_id in {"", event.job_id}
        )


def parse_cursor(text: str) -> str:
    """The stream position that a caller means by an id, a time, ``0`` (beginning) or ``$`` (end).

    A time is RFC 3339; events of that very millisecond come after it.

    Raises:
        InvalidRequest: it is none of these.
    """
    if text == END:
        return END
    if text in {"0", BEGINNING}:
        return BEGINNING
    if ID.fullmatch(text):
        parts = [int(part) for part in text.split("-")]
        if max(parts) <= LARGEST_SEQUENCE:
            # Redis refuses to read after the largest id of all; no event has it.
            return f"{parts[0]}-{min(parts[1], LARGEST_SEQUENCE - 1)}" if len(parts) > 1 else just_before(parts[0])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = (
            f"{text!r} is no place in the event stream; give an event id, a time such as 2026-01-31T12:00:00Z, 0 or $"
        )
        raise InvalidRequest(message, path="after") from None
    return just_before(int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def just_before(at_ms: int) -> str:
    return f"{max(at_ms - 1, 0)}-{LARGEST_SEQUENCE}" if at_ms > 0 else BEGINNING


class EventStream:
    """The stream ``aegis:events``.

    Args:
        redis: where it is. `follow` keeps one of its connections busy.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def last_id(self) -> str:
        """The id of the newest event; ``0-0`` when there has been none."""
        newest = await self.redis.xrevrange(keys.EVENTS, count=1)
        return newest[0][0].decode() if newest else BEGINNING

    async def history(self, after: str = BEGINNING, *, until: str = "+", count: int = READ_COUNT) -> list[Event]:
        """Up to ``count`` events after a cursor, oldest first, led by a ``stream.gap`` if some were trimmed.

        ``until`` is the last id that may be among them.
        """
        first = f"({after}" if after != BEGINNING else "-"
        entries = await self.redis.xrange(keys.EVENTS, min=first, max=until, count=count)
        events = [decode_entry(entry_id, fields) for entry_id, fields in entries]
        return [*await self._gap(after, events), *events]

    async def backwards(self) -> AsyncGenerator[Event, None]:
        """Yields the events from the newest to the oldest."""
        before = "+"
        while entries := await self.redis.xrevrange(keys.EVENTS, max=before, count=READ_COUNT):
            for entry_id, fields in entries:
                yield decode_entry(entry_id, fields)
            before = f"({entries[-1][0].decode()}"

    async def follow(self, after: str = END) -> AsyncGenerator[Event, None]:
        """Yields every event after the cursor, then new ones as they come, for ever.

        A lost connection raises; begin again after the last event that was yielded: nothing is missed
        unless it was trimmed, and then a ``stream.gap`` comes first.
        """
        async with aclosing(self.follow_in_lists(after)) as lists:
            async for events in lists:
                for event in events:
                    yield event

    async def follow_in_lists(self, after: str = END) -> AsyncGenerator[list[Event], None]:
        """As `follow`, with what has gathered in one list; an empty list when nothing came for `BLOCK_MS`."""
        cursor = await self.last_id() if after == END else after
        behind = True  # until a read comes back short, entries ahead of us may be trimmed meanwhile
        while True:
            events = await self._read(cursor)
            gap = await self._gap(cursor, events) if behind else []
            behind = len(events) == READ_COUNT
            cursor = events[-1].id if events else cursor
            yield [*gap, *events]

    async def _read(self, cursor: str) -> list[Event]:
        reply: Any = await self.redis.xread({keys.EVENTS: cursor}, count=READ_COUNT, block=BLOCK_MS)
        return [decode_entry(entry_id, fields) for _, entries in reply for entry_id, fields in entries]

    async def _gap(self, cursor: str, events: list[Event]) -> list[Event]:
        """A ``stream.gap`` when entries between the cursor and the events may have been trimmed.

        Redis trims from the old end only, so nothing after an entry that is still there is missing.
        A trimmed cursor proves less: its successors may all be there. Then a gap is told all the same.
        """
        if not events or cursor == BEGINNING:
            return []
        if await self.redis.xrange(keys.EVENTS, min=cursor, max=cursor, count=1):
            return []
        info = await self.redis.xinfo_stream(keys.EVENTS)
        # Redis 6.2 does not tell how many there have been: then some may be missing.
        trimmed = info.get("entries-added") != info["length"]
        if not trimmed or info["first-entry"][0].decode() != events[0].id:
            return []
        kind, data = encode_data(StreamGap(from_id=cursor, to_id=events[0].id))
        return [Event(id=cursor, kind=kind, data=msgspec.Raw(data))]
