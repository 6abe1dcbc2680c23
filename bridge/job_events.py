"""Finding the events of one job in a stream that has no index of jobs: an index would cost memory for each job.

They lie between the job's enqueue and its end. Ids of ours carry the time at which they were made, and the stored job
or result tells when it was enqueued and when it ended. What is looked through is bounded: from the beginning of that
span forwards, and if that does not reach its end, from there backwards. So of a job that waited for long while very
much happened, the beginning and the end are found. Of an id of somebody else's of which nothing is stored, only the
newest part of the stream is looked through.
"""

from typing import Any, Final

from bridge import keys
from bridge.errors import JobNotFound, PayloadError
from bridge.event_stream import BEGINNING, just_before
from bridge.events import Event, decode_entry
from bridge.inspector import Inspector
from bridge.shared_event import place_of

__all__ = ["born_at_ms", "events_of_job"]

LOOK_AT_MOST: Final = 100_000
"""Entries; about a second."""
PAGE_COUNT: Final = 1000
SLACK_MS: Final = 60_000
"""How far the clocks of producers and workers may be away from that of Redis."""
VERSION_AT: Final = 12
UUID_LENGTH: Final = 32
NEWEST: Final = "+"


def born_at_ms(job_id: str) -> int | None:
    """When an id of ours was made, by the clock of its producer; ``None`` for another's."""
    if len(job_id) != UUID_LENGTH or job_id[VERSION_AT] != "7":
        return None
    try:
        return int(job_id, 16) >> 80
    except ValueError:
        return None


async def events_of_job(inspector: Inspector, job_id: str) -> list[Event]:
    """The events of a job, oldest first, as far as they are in the stream and within the bounds of this module."""
    start, end = await span_of(inspector, job_id)
    found: list[Event] = []
    left = LOOK_AT_MOST
    if start is not None:
        found, reached, left = await forwards(inspector.redis, job_id, start, end, LOOK_AT_MOST // 2)
        if reached is None:
            return found
        start = reached
    return found + await backwards(inspector.redis, job_id, start or BEGINNING, end, left)


async def span_of(inspector: Inspector, job_id: str) -> tuple[str | None, str]:
    """The cursor before the job's first event, if that is known, and the last id that its events can have."""
    start_ms, end = born_at_ms(job_id), NEWEST
    seconds, _ = await inspector.redis.time()
    if start_ms is not None and start_ms > seconds * 1000 + SLACK_MS:
        start_ms = None  # another's id, a digest perhaps, that only looks like one of ours
    try:
        status = await inspector.status(job_id)
    except (JobNotFound, PayloadError):
        status = None
    if status and start_ms is None and status.enqueue_time and status.enqueue_time.timestamp() > 0:
        start_ms = int(status.enqueue_time.timestamp() * 1000)
    if status and status.finish_time:
        end = str(int(status.finish_time.timestamp() * 1000) + SLACK_MS)
    return None if start_ms is None else just_before(start_ms - SLACK_MS), end


async def forwards(redis: Any, job_id: str, after: str, end: str, most: int) -> tuple[list[Event], str | None, int]:
    """What was found, the cursor that was reached unless it was the end, and how many entries may still be read."""
    found: list[Event] = []
    left = LOOK_AT_MOST
    while left > LOOK_AT_MOST - most:
        first = f"({after}" if after != BEGINNING else "-"
        entries = await redis.xrange(keys.EVENTS, min=first, max=end, count=PAGE_COUNT)
        found += of_job(entries, job_id)
        left -= PAGE_COUNT
        if len(entries) < PAGE_COUNT:
            return found, None, left
        after = entries[-1][0].decode()
    return found, after, left


async def backwards(redis: Any, job_id: str, after: str, end: str, most: int) -> list[Event]:
    """What was found, oldest first, of the last entries up to the end that come after the cursor."""
    found: list[Event] = []
    first = f"({after}" if after != BEGINNING else "-"
    for _ in range(most // PAGE_COUNT):
        entries = await redis.xrevrange(keys.EVENTS, min=first, max=end, count=PAGE_COUNT)
        found += of_job(entries, job_id)
        if len(entries) < PAGE_COUNT:
            break
        end = f"({entries[-1][0].decode()}"
    return sorted(found, key=lambda event: place_of(event.id))


def of_job(entries: Any, job_id: str) -> list[Event]:
    name = job_id.encode(errors="surrogatepass")
    return [decode_entry(entry_id, fields) for entry_id, fields in entries if fields.get(b"job_id") == name]
