"""Dead letters: the jobs that have failed for good, kept to be looked at, run again, or forgotten."""

import math
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
from msgspec import UNSET, UnsetType
from redis.asyncio import Redis

from bridge import keys
from bridge.catalog import Catalog, Queue
from bridge.codec import Failure, JobPayload, job_serializer
from bridge.errors import RetryRefused
from bridge.events import ErrorSummary
from bridge.inspector import Inspector, instant, summary
from bridge.new_job import ASKED, body_tail
from bridge.scripts import DeadJob, Scripts

__all__ = ["DeadFilter", "DeadLetter", "DeadLetters", "Handled", "Step", "Verdict"]

BATCH: Final = 100
"""Letters read, and moved by one call: a script blocks the server."""
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


class Entry(NamedTuple):
    """A letter where it is stored; ``failed_at_ms`` is 0 for a result that stands in for one."""

    queue: Queue
    job_id: str
    failed_at_ms: int
    raw: bytes = b""


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
        for batch in batches(await self._entries(wanted)):
            for entry in await self._read(batch):
                if wanted.takes(letter := describe(entry, with_traceback=with_traceback)):
                    yield letter

    async def retry(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """Puts every job that is meant back into its queue: same id, same arguments, first attempt.

        Only letters that are there at the beginning count, so a job that soon fails again is left. Several callers
        may do this at the same time: each job is requeued once.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        async for done, total, entries in self._steps(wanted):
            yield Step(done, total, await self._requeue(entries))

    async def purge(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """Removes every letter that is meant; results stay, and so does a letter that comes meanwhile.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        async for done, total, entries in self._steps(wanted):
            handled: list[Handled] = []
            for queue, group in by_queue(entries):
                purged = await self.scripts.purge(queue.name, [(entry.job_id, entry.failed_at_ms) for entry in group])
                handled += [
                    tell(e, "purged" if was_there else "gone") for e, was_there in zip(group, purged, strict=True)
                ]
            yield Step(done, total, handled)

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

    async def _entries(self, wanted: DeadFilter) -> list[Entry]:
        """The entries of the wanted queues, ages and ids, newest first."""
        queues = list(self.catalog.queues.values()) if wanted.queue is None else [self.catalog.queue(wanted.queue)]
        ids: Any = [job_id.encode() for job_id in dict.fromkeys(wanted.ids or ())]
        if wanted.ids is not None and not ids:
            return []
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for queue in queues:
                if ids:
                    pipe.zmscore(keys.dead(queue.name), ids)
                else:
                    pipe.zrange(keys.dead(queue.name), 0, -1, withscores=True)
            (seconds, microseconds), *sets = await pipe.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        oldest_ms = 0 if wanted.newer_than_s is None else now_ms - wanted.newer_than_s * 1000
        newest_ms = math.inf if wanted.older_than_s is None else now_ms - wanted.older_than_s * 1000
        found = []
        for queue, scored in zip(queues, sets, strict=True):
            for job_id, at_ms in zip(ids, scored, strict=True) if ids else scored:
                if at_ms is not None and oldest_ms <= at_ms <= newest_ms:
                    found.append(Entry(queue, job_id.decode(errors="replace"), int(at_ms)))
        return sorted(found, key=attrgetter("failed_at_ms"), reverse=True)

    async def _read(self, entries: Sequence[Entry]) -> list[Entry]:
        """The letters themselves, of those that have not expired."""
        if not entries:
            return []
        raws = await self.redis.mget([keys.dead_letter(entry.queue.name, entry.job_id) for entry in entries])
        return [entry._replace(raw=raw) for entry, raw in zip(entries, raws, strict=True) if raw is not None]

    async def _steps(self, wanted: DeadFilter) -> AsyncGenerator[tuple[int, int, list[Entry]], None]:
        """How many entries have been looked at, of how many, and the letters of the latest ones; oldest first."""
        entries = (await self._entries(wanted))[::-1]
        done = 0
        for batch in batches(entries):
            done += len(batch)
            yield done, len(entries), [entry for entry in await self._read(batch) if wanted.takes(describe(entry))]

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
        return await self._read((await self._entries(DeadFilter(ids=[job_id])))[:1])

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


def batches(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    return (entries[start : start + BATCH] for start in range(0, len(entries), BATCH))


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
