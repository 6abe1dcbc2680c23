"""What many readers get at once: each event decoded once, and its bytes for the wire written once."""

from collections.abc import Sequence
from typing import Final

import msgspec

from bridge.events import Event, StreamGap

__all__ = ["NOTHING", "Batch", "Place", "SharedEvent", "id_of", "merged", "place_of"]

Place = tuple[int, int]
"""A stream id as two numbers, so that places can be compared."""

FIELDS_BYTES: Final = 300
"""About what an event takes besides its data."""

encoder: Final = msgspec.json.Encoder()


def place_of(event_id: str) -> Place:
    """The place of a stream id."""
    at_ms, _, sequence = event_id.partition("-")
    return int(at_ms), int(sequence)


def id_of(place: Place) -> str:
    """The stream id of a place."""
    return f"{place[0]}-{place[1]}"


class SharedEvent:
    """An event and its place in the stream; of a gap, the place just before the entry that follows it."""

    __slots__ = ("event", "frames_bytes", "place", "size_bytes")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.place = place_of(event.id)
        if event.kind == "stream.gap":
            at_ms, sequence = place_of(msgspec.json.decode(event.data, type=StreamGap).to_id)
            self.place = (at_ms, sequence - 1)
        self.size_bytes = FIELDS_BYTES + len(memoryview(event.data))
        self.frames_bytes: bytes | None = None

    @property
    def frames(self) -> bytes:
        """The event as Server-Sent Events write it."""
        if self.frames_bytes is None:
            event = self.event
            kind = event.kind if event.kind.isprintable() else "".join(filter(str.isprintable, event.kind))
            head = f"id: {event.id}\nevent: {kind}\ndata: ".encode()
            self.frames_bytes = b"%b%b\n\n" % (head, encoder.encode(event))
        return self.frames_bytes


class Batch:
    """Events in stream order; true if there are any."""

    __slots__ = ("events", "frames_bytes", "parts", "size_bytes")

    def __init__(self, events: Sequence[SharedEvent], parts: "Sequence[Batch]" = ()) -> None:
        self.events = events
        self.parts = parts
        self.size_bytes = sum(shared.size_bytes for shared in events)
        self.frames_bytes: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self.events)

    @property
    def frames(self) -> bytes:
        """All of them as Server-Sent Events write them."""
        if self.frames_bytes is None:
            whole: Sequence[Batch | SharedEvent] = self.parts or self.events
            self.frames_bytes = b"".join([part.frames for part in whole])
        return self.frames_bytes

    def after(self, place: Place) -> "Batch":
        """Those of them that come after this place."""
        if not self.events or self.events[0].place > place:
            return self
        return Batch([shared for shared in self.events if shared.place > place])


def merged(batches: Sequence[Batch]) -> Batch:
    """All events of several batches in a row."""
    if len(batches) == 1:
        return batches[0]
    return Batch([shared for batch in batches for shared in batch.events], list(batches))


NOTHING: Final = Batch(())
