"""Dead letters: the jobs that have failed for good, kept to be looked at, run again, or forgotten."""

import itertools
import math
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType
from redis.asyncio import Redis

from bridge import keys
from bridge.catalog import Catalog, Queue
from bridge.codec import Failure, JobPayload, job_serializer
from bridge.errors import RetryRefused
from bridge.events import ErrorSummary
from bridge.inspector import Inspector, instant, summary
from bridge.new_job import ASKED, body_tail
from bridge.page_cursor import read_cursor, write_cursor
from bridge.scripts import DeadJob, Scripts

__all__ = ["DeadFilter", "DeadLetter", "DeadLetters", "Handled", "Step", "Verdict"]

BATCH: Final = 100
"""Letters read, and moved by one call: a script blocks the server."""
BATCHES_A_STEP: Final = 10
UNKNOWN_TASK: Final = "<unknown>"
"""What a worker writes as the task of a job that it could not read."""
OF_A_RESULT: Final = ("st", "ft", "q", "id")
NOT_OF_A_JOB: Final = {"t", "et", "s", "r", "lossy", *OF_A_RESULT}

Verdict = Literal["requeued", "purged", "gone", "alive", "superseded", "unreadable"]


class DeadFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters are meant; ``None`` lets all through, and an empty text or list none.

    Attributes:
        queue: short name.
        task: its name.
        error_type: class name of the exception.
        older_than_s: failed at least so long ago.
        newer_than_s: failed at most so long ago.
        ids: of jobs.
    """

    queue: str | None = None
    task: str | None = None
    error_type: str | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None
    ids: Collection[str] | None = None

    def takes(self, letter: "DeadLetter") -> bool:
        """Whether this letter is meant, once its queue, age and id are."""
        return self.task in {None, letter.task_name} and self.error_type in {None, letter.error.type}


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has failed for good.

    Attributes:
        attempts: how many it has had.
        reason: as in its ``job.failed``, if that is known.
        obstacle: why it cannot be run again; ``None`` when it can.
        traceback: the worker's, only where it was asked for.
    """

    task_id: str
    queue_type: str
    task_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    attempts: int
    failed_at: datetime
    reason: str | None
    error: ErrorSummary
    obstacle: str | None
    traceback: str | UnsetType = UNSET


class Handled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one letter.

    Attributes:
        verdict: ``requeued`` or ``purged``; or why nothing was done: ``gone`` (the letter was handled or has expired
            meanwhile), ``alive`` (its id was enqueued again, and that job waits or runs), ``superseded`` (its id was
            enqueued again, and the result of that job is kept), ``unreadable`` (see `DeadLetter.obstacle`).
        message: the same for people; ``""`` when it was done.
    """

    task_id: str
    verdict: Verdict
    message: str = ""


class Step(NamedTuple):
    """How far a retry or a purge has come: ``done`` of ``total`` letters looked at, and what became of the latest."""

    done: int
    total: int
    handled: list[Handled]


class Place(NamedTuple):
    """Where a letter is among those of all queues."""

    failed_at_ms: Annotated[int, Meta(ge=-(2**53), le=2**53)]
    queue: str
    job_id: str


class Course(msgspec.Struct, frozen=True, array_like=True):
    """How far a retry or a purge is: what it looks at, how many that are, of how many, and the last one."""

    oldest_ms: float
    newest_ms: float
    total: int
    done: int
    after: Place | None
    is_complete: bool


class Entry(NamedTuple):
    """A letter where it is stored; ``failed_at_ms`` is 0 for a result that stands in for one."""

    queue: Queue
    job_id: str
    failed_at_ms: int
    raw: bytes = b""

    @property
    def place(self) -> Place:
        """Where it is among all."""
        return Place(self.failed_at_ms, self.queue.name, self.job_id)


class StoredFailure(Failure, frozen=True, kw_only=True):
    """The failure in a letter."""

    reason: str | None = None


class StoredLetter(JobPayload, frozen=True, kw_only=True):
    """What of a stored letter is shown. ``lossy``: its arguments were no JSON and are not kept."""

    r: StoredFailure
    lossy: bool = False


letter_decoder: Final = msgspec.json.Decoder(StoredLetter)
fields_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
encoder: Final = msgspec.json.Encoder()


class DeadLetters:
    """The dead letters of all queues. Stock arq workers write none.

    Args:
        redis: the store.
        catalog: the queues to look in.
        scripts: on the same store.
        accept_pickle: tell the state of jobs with pickled payloads too.
    """

    def __init__(self, redis: Redis, catalog: Catalog, scripts: Scripts, *, accept_pickle: bool = False) -> None:
        self.redis = redis
        self.catalog = catalog
        self.scripts = scripts
        self.inspector = Inspector(redis, catalog, scripts, accept_pickle=accept_pickle)

    async def letters(self, wanted: DeadFilter, *, with_traceback: bool = False) -> AsyncGenerator[DeadLetter, None]:
        """Yields the letters that are meant, newest first.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        cursor: str | None = ""
        while cursor is not None:
            letters, cursor = await self.page(wanted, cursor=cursor, limit=BATCH, with_traceback=with_traceback)
            for letter in letters:
                yield letter

    async def page(
        self, wanted: DeadFilter, *, cursor: str = "", limit: int, with_traceback: bool = False
    ) -> tuple[list[DeadLetter], str | None]:
        """Some of the letters that are meant, newest first, and the cursor of those that follow, ``None`` without any.

        A letter that stays is in one page only. A page may be short, even empty, before the last one.

        Raises:
            InvalidQueueType: there is no such queue.
            InvalidRequest: the cursor is none of ours.
        """
        after = read_cursor(cursor, Place) if cursor else None
        oldest_ms, newest_ms = await self._ages(wanted)
        letters: list[DeadLetter] = []
        for _ in range(BATCHES_A_STEP):
            entries = await self._entries(wanted, oldest_ms, newest_ms, after=after, count=BATCH + 1)
            batch, are_more = entries[:BATCH], len(entries) > BATCH
            for entry in await self._read(batch):
                if wanted.takes(letter := describe(entry, with_traceback=with_traceback)):
                    letters.append(letter)
                    if len(letters) == limit:
                        is_last = entry.place == batch[-1].place and not are_more
                        return letters, None if is_last else write_cursor(entry.place)
            if not are_more:
                return letters, None
            after = batch[-1].place
        return letters, write_cursor(after)

    async def retry(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """Puts every job that is meant back into its queue: same id, same arguments, first attempt.

        Only letters that are there at the beginning count, so a job that soon fails again is left. Several callers
        may do this at the same time: each job is requeued once.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        async for course, entries in self._steps(wanted):
            yield Step(course.done, course.total, await self._requeue(entries))

    async def purge(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """Removes every letter that is meant; results stay, and so does a letter that comes meanwhile.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        async for course, entries in self._steps(wanted):
            yield Step(course.done, course.total, await self._purge(entries))

    async def retry_some(self, wanted: DeadFilter, *, cursor: str = "") -> tuple[Step, str | None]:
        """Like `retry`, but looks at most at 1000 letters; and the cursor of the rest, ``None`` without any.

        Raises:
            InvalidQueueType: there is no such queue.
            InvalidRequest: the cursor is none of ours.
        """
        return await self._some(wanted, cursor, self._requeue)

    async def purge_some(self, wanted: DeadFilter, *, cursor: str = "") -> tuple[Step, str | None]:
        """Like `purge`, as `retry_some` is like `retry`."""
        return await self._some(wanted, cursor, self._purge)

    async def retry_one(self, job_id: str) -> str:
        """Puts a failed job back into its queue, from its dead letter or else from its result; the queue's name.

        Raises:
            RetryRefused: it has not failed, or it cannot be run again; the message says what is so.
            JobNotFound: nothing is known of it.
        """
        for find in (self._newest_letter, self._failed_result):
            for handled in await self._requeue(found := await find(job_id)):
                if handled.verdict == "requeued":
                    return found[0].queue.name
                if handled.verdict == "unreadable":
                    raise RetryRefused(f"job {job_id!r} cannot be run again: {handled.message}", task_id=job_id)
        status = await self.inspector.status(job_id)
        raise RetryRefused(f"job {job_id!r} {NOT_DEAD[status.status]}", task_id=job_id)

    async def _ages(self, wanted: DeadFilter) -> tuple[float, float]:
        """When the letters that are meant failed: not before the one instant, ms, and not after the other."""
        seconds, microseconds = await self.redis.time()
        now_ms = seconds * 1000 + microseconds // 1000
        return (
            0 if wanted.newer_than_s is None else now_ms - wanted.newer_than_s * 1000,
            now_ms - (wanted.older_than_s or 0) * 1000,
        )

    async def _entries(
        self,
        wanted: DeadFilter,
        oldest_ms: float,
        newest_ms: float,
        *,
        after: Place | None = None,
        count: int,
        newest_first: bool = True,
    ) -> list[Entry]:
        """The first ``count`` entries of the wanted queues, ages and ids that come after that place."""
        queues = list(self.catalog.queues.values()) if wanted.queue is None else [self.catalog.queue(wanted.queue)]

        def comes(entry: Entry) -> bool:
            if after is None:
                return True
            return entry.place < after if newest_first else entry.place > after

        bounds = (oldest_ms, newest_ms)
        if after is not None:
            bounds = (oldest_ms, after.failed_at_ms) if newest_first else (after.failed_at_ms, newest_ms)
        found: list[Entry] = []
        for queue in queues:
            if wanted.ids is None:
                found += await self._range(queue, bounds, comes, count, newest_first=newest_first)
            elif wanted.ids:
                ids = list(dict.fromkeys(wanted.ids))
                scores = await self.redis.zmscore(keys.dead(queue.name), ids)
                entries = [Entry(queue, i, int(s)) for i, s in zip(ids, scores, strict=True) if s is not None]
                found += [e for e in entries if bounds[0] <= e.failed_at_ms <= bounds[1] and comes(e)]
        return sorted(found, key=attrgetter("place"), reverse=newest_first)[:count]

    async def _range(
        self,
        queue: Queue,
        bounds: tuple[float, float],
        comes: Callable[[Entry], bool],
        count: int,
        *,
        newest_first: bool,
    ) -> list[Entry]:
        """The first entries of a queue, of this age; of those that failed in the same ms some may have been before."""
        found: list[Entry] = []
        first, last = bounds[::-1] if newest_first else bounds
        for offset in itertools.count(0, count):
            scored = await self.redis.zrange(
                keys.dead(queue.name),
                first,  # type: ignore[arg-type]  # a score, since it is by score
                last,  # type: ignore[arg-type]
                desc=newest_first,
                withscores=True,
                byscore=True,
                offset=offset,
                num=count,
            )
            entries = [Entry(queue, job_id.decode(errors="replace"), int(at_ms)) for job_id, at_ms in scored]
            found += filter(comes, entries)
            if len(found) >= count or len(scored) < count:
                break
        return found

    async def _read(self, entries: Sequence[Entry]) -> list[Entry]:
        """The letters themselves, of those that have not expired."""
        if not entries:
            return []
        raws = await self.redis.mget([keys.dead_letter(entry.queue.name, entry.job_id) for entry in entries])
        return [entry._replace(raw=raw) for entry, raw in zip(entries, raws, strict=True) if raw is not None]

    async def _begin(self, wanted: DeadFilter) -> Course:
        oldest_ms, newest_ms = await self._ages(wanted)
        if wanted.ids is not None:
            total = len(await self._entries(wanted, oldest_ms, newest_ms, count=sys.maxsize))
        else:
            names = list(self.catalog.queues) if wanted.queue is None else [self.catalog.queue(wanted.queue).name]
            total = sum([await self.redis.zcount(keys.dead(name), oldest_ms, newest_ms) for name in names])
        return Course(oldest_ms=oldest_ms, newest_ms=newest_ms, total=total, done=0, after=None, is_complete=False)

    async def _next(self, wanted: DeadFilter, course: Course) -> tuple[Course, list[Entry]]:
        """How far it is after the next entries, and the letters of those that are meant; oldest first."""
        entries = await self._entries(
            wanted, course.oldest_ms, course.newest_ms, after=course.after, count=BATCH + 1, newest_first=False
        )
        batch = entries[:BATCH]
        course = msgspec.structs.replace(
            course,
            done=course.done + len(batch),
            after=batch[-1].place if batch else course.after,
            is_complete=len(entries) == len(batch),
        )
        return course, [entry for entry in await self._read(batch) if wanted.takes(describe(entry))]

    async def _steps(self, wanted: DeadFilter) -> AsyncGenerator[tuple[Course, list[Entry]], None]:
        course = await self._begin(wanted)
        while not course.is_complete:
            course, entries = await self._next(wanted, course)
            if course.done:
                yield course, entries

    async def _some(
        self, wanted: DeadFilter, cursor: str, handle: Callable[[Sequence[Entry]], Awaitable[list[Handled]]]
    ) -> tuple[Step, str | None]:
        course = read_cursor(cursor, Course) if cursor else await self._begin(wanted)
        handled: list[Handled] = []
        for _ in range(BATCHES_A_STEP):
            course, entries = await self._next(wanted, course)
            handled += await handle(entries)
            if course.is_complete:
                break
        step = Step(course.done, course.total, handled)
        return step, None if course.is_complete else write_cursor(course)

    async def _purge(self, entries: Iterable[Entry]) -> list[Handled]:
        handled: list[Handled] = []
        for queue, group in by_queue(entries):
            purged = await self.scripts.purge(queue.name, [(entry.job_id, entry.failed_at_ms) for entry in group])
            handled += [tell(e, "purged" if was_there else "gone") for e, was_there in zip(group, purged, strict=True)]
        return handled

    async def _requeue(self, entries: Iterable[Entry]) -> list[Handled]:
        handled: list[Handled] = []
        for queue, group in by_queue(entries):
            obstacles = [describe(entry).obstacle for entry in group]
            runnable = [entry for entry, obstacle in zip(group, obstacles, strict=True) if obstacle is None]
            verdicts = await self.scripts.requeue(queue.name, queue.key, [dead_job(entry) for entry in runnable])
            handled += [tell(entry, cast(Verdict, verdict)) for entry, verdict in zip(runnable, verdicts, strict=True)]
            handled += [tell(entry, "unreadable", why) for entry, why in zip(group, obstacles, strict=True) if why]
        return handled

    async def _newest_letter(self, job_id: str) -> list[Entry]:
        return await self._read(await self._entries(DeadFilter(ids=[job_id]), 0, math.inf, count=1))

    async def _failed_result(self, job_id: str) -> list[Entry]:
        """The result of a failed job without a letter: a stock arq worker ran it, or the letter was purged."""
        raw = await self.redis.get(keys.result(job_id))
        status = await self.inspector.status(job_id)
        if raw is None or status.status != "failed" or status.queue_type not in self.catalog.queues:
            return []
        return [Entry(self.catalog.queue(status.queue_type), job_id, 0, raw)]


NOT_DEAD: Final = {
    "succeeded": "has succeeded: there is nothing to retry; to run its task again, enqueue it under another id",
    "aborted": "was aborted, and aborted jobs are not kept to be run again: enqueue its task under another id",
    "in_progress": "is running: wait for its end, or abort it",
    "queued": "is queued already: a worker of its queue will run it",
    "deferred": "is deferred: it starts when it is due",
    "failed": "has failed and changed meanwhile, or its queue is not among AEGIS_QUEUES: look at its status",
}
"""State of a job that was to be retried -> what to say of it."""

MESSAGES: Final[dict[Verdict, str]] = {
    "gone": "its letter is not there any more",
    "alive": "its id was enqueued again, and that job waits or runs",
    "superseded": "its id was enqueued again, and the result of that job is kept",
}


def tell(entry: Entry, verdict: Verdict, message: str = "") -> Handled:
    return Handled(task_id=entry.job_id, verdict=verdict, message=message or MESSAGES.get(verdict, ""))


def by_queue(entries: Iterable[Entry]) -> Iterator[tuple[Queue, list[Entry]]]:
    """The entries of each queue, in the order they have."""
    for _, group in groupby(sorted(entries, key=attrgetter("queue.name")), attrgetter("queue.name")):
        of_queue = list(group)
        yield of_queue[0].queue, of_queue


def describe(entry: Entry, *, with_traceback: bool = False) -> DeadLetter:
    """The letter as people and programs see it; also one that cannot be read."""
    obstacle = None
    try:
        stored = letter_decoder.decode(entry.raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        failure = StoredFailure(type="UndecodablePayload", message=f"the letter cannot be read: {error}")
        stored = StoredLetter(t=0, f=UNKNOWN_TASK, a=[], k={}, et=0, r=failure)
    if stored.f == UNKNOWN_TASK or stored.r.reason == "undecodable":
        obstacle = "its payload could not be read, so its task and arguments are not known"
    elif stored.lossy:
        obstacle = "its arguments were not JSON, so they are not kept"
    elif vars(entry.queue.settings_class).get("job_serializer", job_serializer) is not job_serializer:
        obstacle = f"the workers of queue {entry.queue.name!r} have a serializer of their own; enqueue its task anew"
    return DeadLetter(
        task_id=entry.job_id,
        queue_type=entry.queue.name,
        task_name=stored.f,
        args=stored.a,
        kwargs=stored.k,
        attempts=stored.t or 0,
        failed_at=instant(entry.failed_at_ms),
        reason=stored.r.reason,
        error=summary(stored.r),
        obstacle=obstacle,
        traceback=stored.r.traceback if with_traceback else UNSET,
    )


def dead_job(entry: Entry) -> DeadJob:
    """What makes it a job again: the fields of its body as they were, further ones too, but for the attempt."""
    fields = fields_decoder.decode(entry.raw)
    kept = {name: value for name, value in fields.items() if name not in NOT_OF_A_JOB and name not in ASKED}
    body = encoder.encode({"t": None, **kept, "et": 0})
    return DeadJob(
        job_id=entry.job_id,
        task=msgspec.json.decode(fields["f"], type=str),
        head=body[: -len(b"0}")],
        tail=body_tail(fields),
        failed_at_ms=entry.failed_at_ms or "",
        ending=b',"st":%b,"ft":%b,"q":%b,"id":%b}' % tuple(bytes(fields.get(name, b"null")) for name in OF_A_RESULT),
    )
