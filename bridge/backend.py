"""Everything that a caller can ask for, in one interface: on Redis, or through a gateway.

`bridge.redis_backend.RedisBackend` answers from Redis; the gateway's routes and the CLI call it.
`bridge.gateway_client.GatewayClient` asks a gateway, whose JSON is that of the Structs here. Both raise
the errors of `bridge.errors`, with the same facts.
"""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from bridge.batch import BatchAnswer, BatchVerdict
from bridge.catalog import TaskDescription
from bridge.dead_letters import DeadFilter, DeadLetter, Step
from bridge.enqueue import Enqueued, TaskRequest
from bridge.event_stream import BEGINNING, END, EventFilter
from bridge.events import Event
from bridge.inspector import JobResult, JobStatus, QueueStatus, State
from bridge.worker_registry import WorkerStatus

__all__ = [
    "AbortAnswer",
    "Backend",
    "BatchAnswer",
    "BatchVerdict",
    "DeadPage",
    "EventPage",
    "JobPage",
    "JobSummary",
    "PauseAnswer",
    "QueueList",
    "RetryAnswer",
    "TaskList",
    "WorkerList",
]


class TaskList(msgspec.Struct, frozen=True, kw_only=True):
    """Every task, by name, by queue, and in full."""

    available_tasks: list[str]
    total_count: int
    queues: dict[str, list[str]]
    tasks: list[TaskDescription]


class AbortAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an abort did: the job is ``aborted``; or its worker is ``asked`` to end it; or it had ``ended`` before."""

    task_id: str
    outcome: Literal["aborted", "asked", "ended"]


class RetryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A failed job that is back on its queue."""

    task_id: str
    queue_type: str


class PauseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a queue is paused now, and whether that is new."""

    queue: str
    paused: bool
    changed: bool


class QueueList(msgspec.Struct, frozen=True, kw_only=True):
    """Every queue, and the newest event that is counted in: following from here neither misses nor counts twice."""

    queues: list[QueueStatus]
    event_id: str


class WorkerList(msgspec.Struct, frozen=True, kw_only=True):
    """Every registered worker, and the newest event before they were read."""

    workers: list[WorkerStatus]
    event_id: str


class JobSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A job of a queue, as a list shows it.

    Attributes:
        due_at: when it is or was due; of a running job ``None``.
        finished_at: its end, of one that has ended.
    """

    task_id: str
    status: State
    task_name: str | None
    attempt: int
    enqueue_time: datetime | None = None
    due_at: datetime | None = None
    finished_at: datetime | None = None


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some jobs of a queue; ``next_cursor`` asks for those that follow, ``None`` when these were the last."""

    jobs: list[JobSummary]
    next_cursor: str | None


class DeadPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some dead letters, newest first; ``next_cursor`` as in `JobPage`."""

    letters: list[DeadLetter]
    next_cursor: str | None


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some events, oldest first. ``next_after``: ask for what follows with it, also when ``events`` is empty."""

    events: list[Event]
    next_after: str


class Backend(Protocol):
    """What the CLI calls; see the module."""

    async def tasks(self) -> TaskList:
        """Every task."""
        ...

    async def enqueue(
        self, request: TaskRequest, *, strict: bool = True, idempotency_key: str | None = None
    ) -> Enqueued:
        """Stores one job. ``strict``: false also takes numbers and booleans that are written as text.

        Raises:
            DuplicateJob: the chosen id is taken.
            RequestError: as `bridge.enqueue.Enqueuer.prepare`.
        """
        ...

    async def enqueue_batch(self, items: Sequence[Any]) -> BatchAnswer:
        """Stores the valid ones of up to 10 000 requests, each a `TaskRequest` as plain data or as ``msgspec.Raw``."""
        ...

    async def status(self, task_id: str) -> JobStatus:
        """What is known of a job now.

        Raises:
            JobNotFound: nothing is.
        """
        ...

    async def result(self, task_id: str, *, wait_s: float = 0) -> JobResult:
        """A job's result as soon as it has ended, or its state when ``wait_s`` is over.

        Raises:
            JobNotFound: nothing is known of it.
        """
        ...

    async def abort(self, task_id: str, *, reason: str | None = None) -> AbortAnswer:
        """Aborts a job, waiting or running.

        Raises:
            JobNotFound: nothing is known of it.
        """
        ...

    async def retry(self, task_id: str) -> RetryAnswer:
        """Puts a failed job back into its queue.

        Raises:
            RetryRefused: it has not failed, or cannot be run again.
            JobNotFound: nothing is known of it.
        """
        ...

    async def job_events(self, task_id: str) -> list[Event]:
        """The events of one job that the stream still has, oldest first."""
        ...

    async def queues(self) -> QueueList:
        """Every queue now."""
        ...

    async def queue(self, name: str) -> QueueStatus:
        """One queue now.

        Raises:
            InvalidQueueType: there is no such queue.
        """
        ...

    async def jobs(self, queue: str, *, state: State | None = None, cursor: str = "", limit: int = 50) -> JobPage:
        """Jobs of a queue, by state; without one, those that wait or run.

        Raises:
            InvalidQueueType: there is no such queue.
            InvalidRequest: the cursor is none of ours.
        """
        ...

    async def pause(self, queue: str) -> PauseAnswer:
        """Workers start no more jobs of the queue."""
        ...

    async def resume(self, queue: str) -> PauseAnswer:
        """Workers start jobs of the queue again."""
        ...

    async def dead_letters(
        self, wanted: DeadFilter, *, cursor: str = "", limit: int = 50, with_traceback: bool = False
    ) -> DeadPage:
        """The dead letters that are meant, newest first."""
        ...

    def retry_dead(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """Puts every job that is meant back into its queue, and tells how far it is."""
        ...

    def purge_dead(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """Removes every letter that is meant, and tells how far it is."""
        ...

    async def workers(self) -> WorkerList:
        """Every registered worker."""
        ...

    async def events(
        self, wanted: EventFilter, *, after: str = BEGINNING, limit: int = 100, wait_s: float = 0
    ) -> EventPage:
        """The first events after a cursor that match; waits up to ``wait_s`` for one if there is none yet."""
        ...

    async def latest_events(self, wanted: EventFilter, *, limit: int = 50) -> list[Event]:
        """The newest events that match, oldest first."""
        ...

    def follow(self, wanted: EventFilter, *, after: str = END) -> AsyncGenerator[Event, None]:
        """Every event after the cursor that matches, then new ones as they come, for ever, lost connections mended."""
        ...
