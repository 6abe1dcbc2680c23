"""`LiveCounts`: a snapshot, and the events after it, each counted once."""

from typing import Any

import msgspec
import pytest

from bridge.backend import QueueList
from bridge.events import Event
from bridge.inspector import QueueStatus
from bridge.queue_stats import QueueStats
from cli.live_counts import LiveCounts

STATS = QueueStats(
    seconds=300,
    succeeded=0,
    failed=0,
    aborted=0,
    retried=0,
    per_second=0,
    failure_rate=None,
    wait_p50_ms=None,
    wait_p95_ms=None,
    run_p50_ms=None,
    run_p95_ms=None,
)


def snapshot(event_id: str, *, queued: int = 0, running: int = 0, deferred: int = 0, dead: int = 0) -> QueueList:
    status = QueueStatus(
        name="mail",
        message="ready",
        tasks=[],
        queued=queued,
        in_progress=running,
        deferred=deferred,
        dead=dead,
        oldest_age_ms=0,
        workers=1,
        worker_health="alive",
        recent=STATS,
    )
    return QueueList(queues=[status], event_id=event_id)


def event(event_id: str, kind: str, *, queue: str = "mail", **data: Any) -> Event:
    return Event(id=event_id, kind=kind, queue=queue, at_ms=1000, data=msgspec.Raw(msgspec.json.encode(data)))


def counted(live: LiveCounts) -> tuple[int, int, int, int]:
    (queue,) = live.queues(now_s=0)
    return queue.queued, queue.in_progress, queue.deferred, queue.dead


@pytest.mark.parametrize(
    ("kind", "data", "after"),
    [
        ("job.enqueued", {}, (6, 5, 5, 5)),
        ("job.enqueued", {"reason": "requeued"}, (6, 5, 5, 4)),
        ("job.deferred", {}, (5, 5, 6, 5)),
        ("job.started", {}, (4, 6, 5, 5)),
        ("job.retrying", {"due_at_ms": 1000}, (6, 4, 5, 5)),
        ("job.retrying", {"due_at_ms": 1001}, (5, 4, 6, 5)),
        ("job.succeeded", {}, (5, 4, 5, 5)),
        ("job.failed", {}, (5, 4, 5, 6)),
        ("job.aborted", {"was": "in_progress"}, (5, 4, 5, 5)),
        ("job.aborted", {"was": "queued"}, (4, 5, 5, 5)),
        ("job.aborted", {"was": "deferred"}, (5, 5, 4, 5)),
        ("job.progressed", {}, (5, 5, 5, 5)),
        ("worker.started", {}, (5, 5, 5, 5)),
        ("somebody.elses", {}, (5, 5, 5, 5)),
    ],
)
def test_event_changes_the_counts(kind: str, data: dict[str, Any], after: tuple[int, ...]) -> None:
    live = LiveCounts()
    live.take_snapshot(snapshot("1-0", queued=5, running=5, deferred=5, dead=5))
    live.take(event("2-0", kind, **data), now_s=0)
    assert counted(live) == after


def test_event_that_a_snapshot_has_counted_in_is_not_counted_again() -> None:
    live = LiveCounts()
    live.take_snapshot(snapshot("9-9", queued=1))
    for event_id in ("9-8", "9-9", "9-10"):
        live.take(event(event_id, "job.enqueued"), now_s=0)
    assert counted(live)[0] == 2
    live.take(event("10-0", "job.enqueued"), now_s=0)
    live.take_snapshot(snapshot("9-10", queued=2))
    assert counted(live)[0] == 3
    live.take_snapshot(snapshot("10-0", queued=3))
    assert counted(live)[0] == 3


def test_deferred_job_that_starts_is_deferred_no_more() -> None:
    live = LiveCounts()
    live.take_snapshot(snapshot("1-0", deferred=1))
    live.take(event("2-0", "job.started"), now_s=0)
    assert counted(live) == (0, 1, 0, 0)


def test_queue_that_is_paused_shows_so_at_once() -> None:
    live = LiveCounts()
    live.take_snapshot(snapshot("1-0"))
    live.take(event("2-0", "queue.paused"), now_s=0)
    assert live.queues(now_s=0)[0].message == "paused"
    live.take(event("3-0", "queue.resumed"), now_s=0)
    assert live.queues(now_s=0)[0].message == "ready"


def test_counts_are_never_below_nothing_and_other_queues_do_no_harm() -> None:
    live = LiveCounts()
    live.take_snapshot(snapshot("1-0"))
    live.take(event("2-0", "job.failed"), now_s=0)
    live.take(event("3-0", "job.failed", queue="unknown"), now_s=0)
    assert counted(live) == (0, 0, 0, 1)


def test_rate_is_that_of_the_last_seconds() -> None:
    live = LiveCounts()
    live.take_snapshot(snapshot("1-0"))
    for number in range(20):
        live.take(event(f"{number + 2}-0", "job.succeeded"), now_s=100 + number / 4)
    assert live.queues(now_s=105)[0].recent.per_second == 4
    assert live.queues(now_s=112)[0].recent.per_second == 0
