"""How many requests the gateway has answered and how long that took, also of several processes behind one port.

Each process counts in its own memory. Where there are several, each writes its counts to a file of a folder that they
share, every second and when it is asked for all of them, and what is told is always the sum of the files: so one answer
never tells less than an earlier one, whichever processes gave them. A process that is started anew goes on from the
counts in its file.
"""

import asyncio
import contextlib
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil

__all__ = [
    "BOUNDS_S",
    "METHODS",
    "OTHER",
    "HttpCounts",
    "ProcessFacts",
    "ProcessSlot",
    "RequestCount",
    "merge",
    "publish_every_second",
]

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the buckets of a request's duration; one more is for what takes longer."""
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
OTHER: Final = "other"
"""Callers may make up methods and paths: all of those count as one."""

Key = tuple[str, str, int]


class ProcessSlot(msgspec.Struct, frozen=True):
    """The place of one of several gateway processes: the folder that they share, and its number."""

    folder: Path
    number: int


class RequestCount(msgspec.Struct):
    """Requests of one method, route and status: how many in each bucket of `BOUNDS_S`, and their time together."""

    method: str
    route: str
    status: int
    buckets: list[int]
    total_s: float = 0.0


class ProcessFacts(msgspec.Struct, kw_only=True):
    """What one process tells of itself and of the requests it has answered."""

    number: int
    requests: list[RequestCount] = []
    in_flight: int = 0
    started_at_s: float = 0.0
    cpu_s: float = 0.0
    resident_bytes: int = 0
    threads: int = 0
    open_files: int = 0
    reader_lag_s: float | None = None


facts_decoder: Final = msgspec.msgpack.Decoder(ProcessFacts)


class HttpCounts:
    """The counts of this process.

    Args:
        slot: its place among several processes; ``None`` when it is the only one.

    Attributes:
        in_flight: requests that are being answered.
        reader_lag_s: tells how far this process's reader of the event stream is behind, ``None`` while it has none.
    """

    def __init__(self, slot: ProcessSlot | None = None) -> None:
        self.slot = slot
        self.in_flight = 0
        self.reader_lag_s: Callable[[], float | None] = lambda: None
        self._process = psutil.Process()
        self._counts: dict[Key, RequestCount] = {}
        if slot is not None and (before := read_facts(self._file(slot))) is not None:
            self._counts = {(one.method, one.route, one.status): one for one in before.requests}

    def count(self, method: str, route: str, status: int, duration_s: float) -> None:
        """One more request has been answered."""
        found = self._counts.get((method, route, status))
        if found is None:
            found = self._first(method, route, status)
        found.buckets[bisect_left(BOUNDS_S, duration_s)] += 1
        found.total_s += duration_s

    def _first(self, method: str, route: str, status: int) -> RequestCount:
        known = (method if method in METHODS else OTHER, route, status)
        return self._counts.setdefault(known, RequestCount(*known, [0] * (len(BOUNDS_S) + 1)))

    def facts(self) -> list[ProcessFacts]:
        """Those of every process, this one's as they are now."""
        if self.slot is None:
            return [self._own(0)]
        self.publish()
        files = sorted(self.slot.folder.glob("*.counts"))
        return [facts for file in files if (facts := read_facts(file)) is not None]

    def publish(self) -> None:
        """The other processes can tell what this one has counted so far; without others nothing happens."""
        if self.slot is None:
            return
        file = self._file(self.slot)
        new = file.with_suffix(".new")
        new.write_bytes(msgspec.msgpack.encode(self._own(self.slot.number)))
        new.replace(file)

    def _own(self, number: int) -> ProcessFacts:
        with self._process.oneshot():
            cpu = self._process.cpu_times()
            return ProcessFacts(
                number=number,
                requests=list(self._counts.values()),
                in_flight=self.in_flight,
                started_at_s=self._process.create_time(),
                cpu_s=cpu.user + cpu.system,
                resident_bytes=self._process.memory_info().rss,
                threads=self._process.num_threads(),
                open_files=self._process.num_fds() if sys.platform != "win32" else 0,
                reader_lag_s=self.reader_lag_s(),
            )

    @staticmethod
    def _file(slot: ProcessSlot) -> Path:
        return slot.folder / f"{slot.number}.counts"


@contextlib.asynccontextmanager
async def publish_every_second(counts: HttpCounts) -> AsyncIterator[None]:
    """While inside, and once more at the end, the other processes are told what this one has counted."""
    if counts.slot is None:
        yield
        return

    async def publish() -> None:
        while True:
            counts.publish()
            await asyncio.sleep(1)

    publishing = asyncio.create_task(publish())
    try:
        yield
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        counts.publish()


def read_facts(file: Path) -> ProcessFacts | None:
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        return facts_decoder.decode(file.read_bytes())
    return None


def merge(facts: Sequence[ProcessFacts]) -> list[RequestCount]:
    """The requests of all these processes."""
    sums: dict[Key, RequestCount] = {}
    for one in facts:
        for counted in one.requests:
            key = (counted.method, counted.route, counted.status)
            total = sums.setdefault(key, RequestCount(*key, [0] * (len(BOUNDS_S) + 1)))
            total.buckets = [ours + theirs for ours, theirs in zip(total.buckets, counted.buckets, strict=True)]
            total.total_s += counted.total_s
    return [sums[key] for key in sorted(sums)]
