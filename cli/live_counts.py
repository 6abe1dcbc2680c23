"""How the queues are doing right now: the latest snapshot, and the events after it."""

from collections import Counter, deque
from typing import Any, Final

import msgspec

from bridge.backend import QueueList
from bridge.events import Event
from bridge.inspector import QueueStatus

__all__ = ["LiveCounts"]

RATE_WINDOW_S: Final = 5
MOST_EVENTS_SINCE: Final = 50_000
"""Memory for what happens between two snapshots; beyond it, counts are those of the latest one."""
ENDS: Final = {"job.succeeded", "job.failed", "job.aborted"}


class LiveCounts:
    """Counts that neither miss an event nor count one twice.

    A snapshot has an event id: the events up to it are counted in. Events arrive while a snapshot is on its way, so
    those after the latest one are kept, to be counted again on top of the next.
    """

    def __init__(self) -> None:
        self.snapshot: dict[str, QueueStatus] = {}
        self._after: tuple[int, int] = (0, 0)
        self._since: deque[Event] = deque(maxlen=MOST_EVENTS_SINCE)
        self._counts: dict[str, Counter[str]] = {}
        self._paused: dict[str, bool] = {}
        self._ended: dict[str, Counter[int]] = {}
        self._following_since_s: float | None = None

    def take_snapshot(self, found: QueueList) -> None:
        """The counts are those of the snapshot and of the events after it that we have seen."""
        self.snapshot = {queue.name: queue for queue in found.queues}
        self._after = place(found.event_id)
        while self._since and place(self._since[0].id) <= self._after:
            self._since.popleft()
        self._counts = {
            queue.name: Counter(
                queued=queue.queued, running=queue.in_progress, deferred=queue.deferred, dead=queue.dead
            )
            for queue in found.queues
        }
        self._paused = {}
        for event in self._since:
            self._count(event)

    def take(self, event: Event, *, now_s: float) -> None:
        """One more event, in the order of the stream; ``now_s`` is monotonic."""
        if self._following_since_s is None:
            self._following_since_s = now_s
        if event.kind in ENDS:
            self._ended.setdefault(event.queue, Counter())[int(now_s)] += 1
        if place(event.id) > self._after:
            self._since.append(event)
            self._count(event)

    def queues(self, *, now_s: float) -> list[QueueStatus]:
        """Each queue now; jobs done per second are of the last few seconds."""
        return [self._live(queue, now_s) for queue in self.snapshot.values()]

    def _live(self, queue: QueueStatus, now_s: float) -> QueueStatus:
        counts = self._counts[queue.name]
        message: Any = queue.message
        if queue.name in self._paused and message != "no tasks defined":
            message = "paused" if self._paused[queue.name] else "ready" if queue.worker_health else "worker offline"
        return msgspec.structs.replace(
            queue,
            message=message,
            queued=max(counts["queued"], 0),
            in_progress=max(counts["running"], 0),
            deferred=max(counts["deferred"], 0),
            dead=max(counts["dead"], 0),
            recent=msgspec.structs.replace(queue.recent, per_second=self._per_second(queue.name, now_s)),
        )

    def _per_second(self, queue_name: str, now_s: float) -> float:
        ended = self._ended.get(queue_name)
        if not ended or self._following_since_s is None:
            return 0.0
        this_second = int(now_s)
        for second in [second for second in ended if second < this_second - RATE_WINDOW_S]:
            del ended[second]
        window_s = min(max(now_s - self._following_since_s, 1.0), RATE_WINDOW_S + now_s % 1)
        return round(sum(ended.values()) / window_s, 2)

    def _count(self, event: Event) -> None:
        counts = self._counts.get(event.queue)
        if counts is None:
            return
        match event.kind:
            case "job.enqueued":
                counts["queued"] += 1
                if field(event, "reason") == "requeued":
                    counts["dead"] -= 1
            case "job.deferred":
                counts["deferred"] += 1
            case "job.started":  # of those that were deferred, nothing tells when they are due
                counts["queued" if counts["queued"] > 0 else "deferred"] -= 1
                counts["running"] += 1
            case "job.retrying":
                counts["running"] -= 1
                counts["deferred" if (field(event, "due_at_ms") or 0) > event.at_ms else "queued"] += 1
            case "job.succeeded":
                counts["running"] -= 1
            case "job.failed":
                counts["running"] -= 1
                counts["dead"] += 1
            case "job.aborted":
                was = str(field(event, "was"))
                counts["running" if was == "in_progress" else was] -= 1
            case "queue.paused" | "queue.resumed":
                self._paused[event.queue] = event.kind == "queue.paused"


def place(event_id: str) -> tuple[int, int]:
    """The stream id as numbers, which can be compared."""
    at_ms, _, sequence = event_id.partition("-")
    return int(at_ms), int(sequence or 0)


def field(event: Event, name: str) -> Any:
    return msgspec.json.decode(event.data, type=dict[str, Any]).get(name)
