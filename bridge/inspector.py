"""The read side: a job's status and result, a queue's depth, and whether its workers are alive."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from redis.asyncio import Redis

from bridge import keys
from bridge.catalog import Catalog, Queue
from bridge.codec import Failure, JobPayload, ResultPayload, decode_job, decode_result
from bridge.errors import JobNotFound, UndecodablePayload
from bridge.events import ErrorSummary
from bridge.queue_stats import QueueStats, read_stats
from bridge.scripts import Depth, Scripts
from bridge.worker_registry import WorkerStatus, read_worker_snapshot, read_workers

__all__ = ["Inspector", "JobResult", "JobStatus", "QueueStatus", "State"]

State = Literal["deferred", "queued", "in_progress", "succeeded", "failed", "aborted"]
TERMINAL: frozenset[State] = frozenset({"succeeded", "failed", "aborted"})


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job now.

    Attributes:
        attempt: the latest attempt, 0 before the first.
        result_available: whether its result can be read.
        progress: while it runs, what this attempt reported last: ``current``, and ``total`` and ``message`` if it
            told them.
        event_id: the newest event of the stream at this moment: following from here misses nothing.
    """

    task_id: str
    status: State
    task_name: str | None
    queue_type: str | None
    attempt: int
    result_available: bool
    error: ErrorSummary | None
    progress: dict[str, Any] | None
    enqueue_time: datetime | None
    start_time: datetime | None
    finish_time: datetime | None
    event_id: str


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """A job's result: ``result`` once it succeeded, ``error`` once it failed or was aborted, neither before."""

    task_id: str
    status: State
    result: Any = UNSET
    error: ErrorSummary | UnsetType = UNSET

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in TERMINAL


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A queue now.

    Attributes:
        message: ``ready``, ``paused``, ``worker offline`` or ``no tasks defined``.
        dead: jobs that have failed for good, and are kept to be run again.
        oldest_age_ms: how long the oldest queued job has been due; 0 when none is.
        workers: registered ones that are not silent.
        worker_health: what the latest worker wrote of itself, as arq writes it.
        recent: what came of its jobs in the last five minutes, as far as `BatchWorker` ran them.
    """

    name: str
    message: Literal["ready", "paused", "worker offline", "no tasks defined"]
    tasks: list[str]
    queued: int
    in_progress: int
    deferred: int
    dead: int
    oldest_age_ms: int
    workers: int
    worker_health: str | None
    recent: QueueStats


class Inspector:
    """Reads what is stored; changes nothing.

    Args:
        redis: the store.
        catalog: the queues to look in.
        scripts: for the counts.
        accept_pickle: read pickled payloads of trusted producers and workers too.
    """

    def __init__(self, redis: Redis, catalog: Catalog, scripts: Scripts, *, accept_pickle: bool = False) -> None:
        self.redis = redis
        self.catalog = catalog
        self.scripts = scripts
        self.accept_pickle = accept_pickle

    async def status(self, job_id: str) -> JobStatus:
        """What is known of a job, read in one step.

        Raises:
            JobNotFound: nothing is.
            UndecodablePayload: its result was not written by our codec.
        """
        queues = list(self.catalog.queues.values())
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.get(keys.result(job_id))
            pipe.get(keys.job(job_id))
            pipe.get(keys.in_progress(job_id))
            pipe.get(keys.retry(job_id))
            pipe.get(keys.progress(job_id))
            pipe.xrevrange(keys.EVENTS, count=1)
            pipe.time()
            for queue in queues:
                pipe.zscore(queue.key, job_id)
            raw_result, raw_job, token, tries, raw_progress, newest, time, *scores = await pipe.execute()
        event_id = newest[0][0].decode() if newest else "0-0"
        if raw_result is not None:
            return finished(job_id, decode_result(raw_result, accept_pickle=self.accept_pickle), event_id)
        found = [(queue.name, score) for queue, score in zip(queues, scores, strict=True) if score is not None]
        if raw_job is None and not found:
            raise JobNotFound(job_id)
        job = decode_job(raw_job, accept_pickle=self.accept_pickle) if raw_job is not None else None
        queue_name, score = found[0] if found else (None, 0.0)
        is_deferred = score > time[0] * 1000 + time[1] // 1000
        state: State = "in_progress" if token is not None else "deferred" if is_deferred else "queued"
        return unfinished(
            job_id,
            job,
            state=state,
            queue_name=queue_name,
            attempt=int(tries or 0),
            progress=read_progress(raw_progress, token),
            event_id=event_id,
        )

    async def result(self, job_id: str) -> JobResult:
        """A job's result, or its state while it has none.

        Raises:
            JobNotFound: nothing is known of it.
            UndecodablePayload: its result was not written by our codec.
        """
        raw = await self.redis.get(keys.result(job_id))
        if raw is None:
            status = await self.status(job_id)
            if not status.result_available:
                return JobResult(task_id=job_id, status=status.status)
            raw = await self.redis.get(keys.result(job_id))  # it ended between the two reads
        if raw is None:
            raise JobNotFound(job_id)
        payload = decode_result(raw, accept_pickle=self.accept_pickle)
        if payload.s:
            return JobResult(task_id=job_id, status="succeeded", result=payload.r)
        return JobResult(task_id=job_id, status=state_of(payload), error=summary(payload.r))

    async def queue(self, queue: Queue) -> QueueStatus:
        """A queue's depth, whether its workers are alive, and what came of its latest jobs."""
        _, (status,) = await self._look_at([queue])
        return status

    async def queues(self) -> list[QueueStatus]:
        """Every queue, in the order of the settings."""
        return (await self.snapshot())[1]

    async def snapshot(self) -> tuple[str, list[QueueStatus]]:
        """Every queue at one instant, and the newest event then: these events are counted in, later ones are not."""
        return await self._look_at(list(self.catalog.queues.values()))

    async def _look_at(self, queues: Sequence[Queue]) -> tuple[str, list[QueueStatus]]:
        stats = await read_stats(self.redis, [queue.name for queue in queues])
        event_id, depths = await self.scripts.depths([(queue.name, queue.key) for queue in queues])
        return event_id, [
            QueueStatus(
                name=queue.name,
                message=message(queue, depth),
                tasks=list(queue.tasks),
                queued=depth.queued,
                in_progress=depth.in_progress,
                deferred=depth.deferred,
                dead=depth.dead,
                oldest_age_ms=depth.oldest_age_ms,
                workers=depth.workers,
                worker_health=depth.health,
                recent=recent,
            )
            for queue, depth, recent in zip(queues, depths, stats, strict=True)
        ]

    async def workers(self) -> list[WorkerStatus]:
        """Every registered worker, by queue and id."""
        return await read_workers(self.redis)

    async def worker_snapshot(self) -> tuple[str, list[WorkerStatus]]:
        """The same, and the newest event when it was read who is registered."""
        return await read_worker_snapshot(self.redis)


def message(queue: Queue, depth: Depth) -> Literal["ready", "paused", "worker offline", "no tasks defined"]:
    if not queue.has_work:
        return "no tasks defined"
    if depth.is_paused:
        return "paused"
    return "worker offline" if depth.health is None else "ready"


def finished(job_id: str, payload: ResultPayload, event_id: str) -> JobStatus:
    return JobStatus(
        task_id=job_id,
        status=state_of(payload),
        task_name=payload.f,
        queue_type=keys.queue_name(payload.q) if payload.q else None,
        attempt=payload.t or 0,
        result_available=True,
        error=None if payload.s else summary(payload.r),
        progress=None,
        enqueue_time=instant(payload.et),
        start_time=instant(payload.st),
        finish_time=instant(payload.ft),
        event_id=event_id,
    )


def unfinished(
    job_id: str,
    job: JobPayload | None,
    *,
    state: State,
    queue_name: str | None,
    attempt: int,
    progress: dict[str, Any] | None,
    event_id: str,
) -> JobStatus:
    return JobStatus(
        task_id=job_id,
        status=state,
        task_name=job.f if job else None,
        queue_type=queue_name,
        attempt=attempt,
        result_available=False,
        error=None,
        progress=progress,
        enqueue_time=instant(job.et) if job else None,
        start_time=None,
        finish_time=None,
        event_id=event_id,
    )


def read_progress(raw: bytes | None, token: bytes | None) -> dict[str, Any] | None:
    """What the run with this token has reported; what is left of an earlier one does not count."""
    try:
        stored = msgspec.json.decode(raw or b"{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    if token is None or stored.pop("token", None) != token.decode(errors="replace"):
        return None
    stored.pop("at_ms", None)
    return stored


def state_of(payload: ResultPayload) -> State:
    """arq stores an abort as a failure with a CancelledError."""
    if payload.s:
        return "succeeded"
    return "aborted" if payload.r.type == "CancelledError" else "failed"


def summary(failure: Failure) -> ErrorSummary:
    return ErrorSummary(type=failure.type, message=failure.message)


def instant(unix_ms: int) -> datetime:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise UndecodablePayload(f"{unix_ms} is not a time in ms") from None
