"""Whether the event stream and what is stored tell the same of every job, also while jobs are running.

All events are replayed (`bridge.replay`). Then the jobs are read in batches, each in one MULTI together with the id of
the newest event; the replay catches up to that event, and only then the two are compared (`bridge.stored_job`). A
state and its event change in one script, so at that very point they have to agree.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec
from arq.constants import default_queue_name
from redis.asyncio import Redis

from bridge import keys
from bridge.catalog import Catalog
from bridge.event_stream import BEGINNING, END, EventStream
from bridge.replay import Finding, Oddity, Replay, shown_state
from bridge.stored_job import BODY_TAIL_BYTES, StoredJob, disagreement

__all__ = ["Report", "Verifier"]

PAGE: Final = 2000
"""Events read at a time."""
BATCH: Final = 250
"""Jobs read in one MULTI, which holds up the server for about a millisecond."""
LOOKS: Final = 4
"""How often a job that disagrees is looked at again: events of stock workers follow the change they tell of."""

Tell = Callable[[str, int, int], None]
"""Told what is counted (``events`` or ``jobs``), how many are done, and of how many."""
Item = TypeVar("Item")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison found.

    Attributes:
        agrees: whether there is no finding.
        trimmed_from: id of the first event that was replayed, if earlier ones are missing.
        last_event_id: the latest event that counted.
        events: replayed.
        jobs: that these events tell of, by the state that they lead to.
        unseen: jobs in the queues of the catalog that no event mentions, as stock producers enqueue them.
        oddities: what is legal, but worth a count.
    """

    agrees: bool
    trimmed_from: str | None
    last_event_id: str
    events: int
    jobs: dict[str, int]
    unseen: int
    oddities: dict[str, int]
    findings: list[Finding]


class Verifier:
    """Compares the stream with the store; changes nothing.

    Args:
        redis: the store.
        catalog: the queues to look in, besides those that events name.
        pause_s: between two looks at a job that disagrees.
    """

    def __init__(self, redis: Redis, catalog: Catalog, *, pause_s: float = 0.5) -> None:
        self.redis = redis
        self.catalog = catalog
        self.pause_s = pause_s
        self.stream = EventStream(redis)
        self._cursor = BEGINNING
        self._trimmed_from: str | None = None
        self._replay = Replay()
        self._queue_keys: list[str] = []

    async def verify(self, after: str = BEGINNING, *, tell: Tell = lambda what, done, total: None) -> Report:
        """Every job that events mention has been compared.

        Args:
            after: replay only the events after this one.
            tell: for a progress bar.
        """
        newest = await self.stream.last_id()
        self._cursor = newest if after == END else after
        total, is_trimmed = await self._look_at_the_stream()
        self._replay = Replay(is_trimmed=is_trimmed or self._cursor != BEGINNING)
        self._trimmed_from = None
        await self._catch_up(newest, lambda done: tell("events", done, max(done, total)))
        tell("events", self._replay.events, self._replay.events)
        self._queue_keys = await self._queues()
        disagreeing, oddities = await self._compare_all(tell)
        unseen = await self._count_unseen()
        findings = [*self._replay.findings, *disagreeing]
        seconds, microseconds = await self.redis.time()
        now_ms = seconds * 1000 + microseconds // 1000
        return Report(
            agrees=not findings,
            trimmed_from=self._trimmed_from,
            last_event_id=self._cursor,
            events=self._replay.events,
            jobs=dict(Counter(shown_state(job, now_ms) for job in self._replay.jobs.values()).most_common()),
            unseen=unseen,
            oddities={str(oddity): number for oddity, number in (self._replay.oddities + oddities).items()},
            findings=findings,
        )

    # --- events -----------------------------------------------------------------------------------

    async def _look_at_the_stream(self) -> tuple[int, bool]:
        """How many events there are, and whether earlier ones may be missing. Redis 6.2 cannot tell: then they may."""
        if not await self.redis.exists(keys.EVENTS):
            return 0, False
        info = await self.redis.xinfo_stream(keys.EVENTS)
        return info["length"], info.get("entries-added") != info["length"]

    async def _catch_up(self, until: str, tell: Callable[[int], None] = lambda done: None) -> None:
        """All events up to this one are replayed."""
        while position(self._cursor) < position(until):
            events = await self.stream.history(self._cursor, until=until, count=PAGE)
            if not events:
                break
            if events[0].kind == "stream.gap":  # the stream was trimmed faster than it is read
                self._replay.forget()
                self._trimmed_from = None
                del events[0]
            if self._replay.is_trimmed and self._trimmed_from is None:
                self._trimmed_from = events[0].id
            for event in events:
                self._replay.apply(event)
            self._cursor = events[-1].id
            tell(self._replay.events)

    # --- jobs -------------------------------------------------------------------------------------

    async def _queues(self) -> list[str]:
        """Keys of the queues: those of the catalog, and what the other names in events may stand for."""
        found = {queue.key: None for queue in self.catalog.queues.values()}
        names = {job.queue for job in self._replay.jobs.values()} - set(self.catalog.queues)
        for name in sorted(names):
            for key in (keys.queue(name), default_queue_name if name == "default" else name):
                if await self.redis.type(key) in {b"zset", b"none"}:
                    found[key] = None
        return list(found)

    async def _compare_all(self, tell: Tell) -> tuple[list[Finding], Counter[Oddity]]:
        """What disagrees: of jobs that went on meanwhile, only what is wrong in the end."""
        job_ids = list(self._replay.jobs)
        suspects, oddities = await self._compare(job_ids, lambda done: tell("jobs", done, len(job_ids)))
        settled = suspects
        for _ in range(LOOKS):
            if not suspects:
                break
            await asyncio.sleep(self.pause_s)
            self._queue_keys = await self._queues()
            before, (suspects, _) = suspects, await self._compare(list(suspects))
            settled = {i: finding for i, finding in suspects.items() if finding.event_id == before[i].event_id}
        return list(settled.values()), oddities

    async def _compare(
        self, job_ids: Sequence[str], tell: Callable[[int], None] = lambda done: None
    ) -> tuple[dict[str, Finding], Counter[Oddity]]:
        found: dict[str, Finding] = {}
        oddities: Counter[Oddity] = Counter()
        done = 0
        for batch in batches(job_ids, BATCH):
            newest, now_ms, stored = await self._read(batch)
            await self._catch_up(newest)
            for job_id, what_is_stored in zip(batch, stored, strict=True):
                job = self._replay.jobs.get(job_id)
                if job is None:  # events were missed meanwhile
                    continue
                wrong = disagreement(job, what_is_stored, in_stock_queue=job.queue in self._replay.stock_queues)
                if isinstance(wrong, Oddity):
                    oddities[wrong] += 1
                elif wrong is not None:
                    found[job_id] = Finding(
                        job_id=job_id,
                        queue=job.queue,
                        task=job.task,
                        derived=shown_state(job, now_ms),
                        stored=what_is_stored.state(now_ms),
                        what=wrong,
                        event_id=job.event_id,
                    )
            tell(done := done + len(batch))
        return found, oddities

    async def _read(self, job_ids: Sequence[str]) -> tuple[str, int, list[StoredJob]]:
        """The newest event's id, the time in ms, and what is stored of each job, in one step."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.xrevrange(keys.EVENTS, count=1)
            pipe.time()
            pipe.mget([keys.in_progress(job_id) for job_id in job_ids])
            pipe.mget([keys.retry(job_id) for job_id in job_ids])
            pipe.mget([keys.result(job_id) for job_id in job_ids])
            for key in (keys.ABORT, *self._queue_keys):
                pipe.zmscore(key, list(job_ids))
            for job_id in job_ids:
                pipe.getrange(keys.job(job_id), -BODY_TAIL_BYTES, -1)
            # A body of another type is an error, and there all the same.
            replies = await pipe.execute(raise_on_error=False)
        rows, tails = replies[: -len(job_ids)], replies[-len(job_ids) :]
        for reply in rows:
            if isinstance(reply, Exception):
                raise reply
        newest, (seconds, microseconds), tokens, tries, results, aborts, *scores = rows
        stored = [
            StoredJob(
                scores={key: row[at] for key, row in zip(self._queue_keys, scores, strict=True) if row[at] is not None},
                token=tokens[at],
                tries=int(tries[at]) if (tries[at] or b"").isdigit() else 0,
                body_tail=as_tail(tails[at]),
                result=results[at],
                has_abort=aborts[at] is not None,
            )
            for at in range(len(job_ids))
        ]
        return newest[0][0].decode() if newest else BEGINNING, seconds * 1000 + microseconds // 1000, stored

    async def _count_unseen(self) -> int:
        """How many jobs the queues of the catalog hold of which no event tells."""
        unseen: set[str] = set()
        for queue in self.catalog.queues.values():
            place: Any = 0
            while True:
                async with self.redis.pipeline(transaction=True) as pipe:
                    pipe.zscan(queue.key, place, count=PAGE)
                    pipe.xrevrange(keys.EVENTS, count=1)
                    (place, members), newest = await pipe.execute()
                await self._catch_up(newest[0][0].decode() if newest else BEGINNING)
                job_ids = (member.decode(errors="replace") for member, _ in members)
                unseen.update(job_id for job_id in job_ids if job_id not in self._replay.jobs)
                if not int(place):
                    break
        return len(unseen)


def as_tail(reply: Any) -> bytes | None:
    """An empty string is what Redis says of a body that is not there."""
    if isinstance(reply, Exception):
        return b"?"
    tail: bytes = reply
    return tail or None


def position(event_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
