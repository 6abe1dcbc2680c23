"""Everything that a caller can ask for, answered from Redis: what the gateway's routes and the CLI call."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from bridge.aegis_redis import AegisRedis
from bridge.backend import (
    AbortAnswer,
    BatchAnswer,
    DeadPage,
    DeadStep,
    EventPage,
    JobPage,
    PauseAnswer,
    QueueList,
    RetryAnswer,
    TaskList,
    WorkerList,
)
from bridge.catalog import Catalog
from bridge.control import Control
from bridge.dead_letters import DeadFilter, DeadLetters, Step
from bridge.enqueue import Enqueued, Enqueuer, TaskRequest
from bridge.event_feed import EventFeed
from bridge.event_stream import BEGINNING, END, EventFilter, EventStream
from bridge.events import Event
from bridge.inspector import Inspector, JobResult, JobStatus, QueueStatus, State
from bridge.job_list import JobList
from bridge.scripts import Scripts
from bridge.settings import Settings

__all__ = ["RedisBackend"]


class RedisBackend:
    """`bridge.backend.Backend` on Redis.

    Args:
        settings: limits, and how long results are kept.
        catalog: the queues and tasks there are.
        redis: the store; whoever opened it closes it, after `aclose`.
        by: who aborts, pauses and resumes, as events tell it, where the call does not say.
    """

    def __init__(self, settings: Settings, catalog: Catalog, redis: AegisRedis, *, by: str = "cli") -> None:
        self.settings = settings
        self.catalog = catalog
        self.redis = redis
        self.by = by
        self.scripts = Scripts(redis, events_max_len=settings.events_max_len)
        self.enqueuer = Enqueuer(catalog, self.scripts)
        self.inspector = Inspector(redis, catalog, self.scripts, accept_pickle=settings.accept_pickle)
        self.control = Control(redis, catalog, self.scripts, keep_result_s=settings.keep_result_s)
        self.letters = DeadLetters(redis, catalog, self.scripts, accept_pickle=settings.accept_pickle)
        self.job_list = JobList(self.scripts, self.letters)
        self.stream = EventStream(redis)
        self.feed = EventFeed(redis, self.inspector)

    async def aclose(self) -> None:
        """Nobody follows or waits any more; ``redis`` stays open."""
        await self.feed.aclose()

    async def tasks(self) -> TaskList:
        """As the interface says."""
        names = self.catalog.task_names()
        queues = self.catalog.queues.values()
        return TaskList(
            available_tasks=names,
            total_count=len(names),
            queues={queue.name: list(queue.tasks) for queue in queues},
            tasks=[task.describe() for queue in queues for task in queue.tasks.values()],
        )

    async def enqueue(
        self, request: TaskRequest, *, strict: bool = True, idempotency_key: str | None = None, caller: str = ""
    ) -> Enqueued:
        """As the interface says. ``caller``: whose idempotency key it is; another's equal key is another key."""
        return await self.enqueuer.enqueue(request, strict=strict, idempotency_key=idempotency_key, caller=caller)

    async def enqueue_batch(self, items: Sequence[Any], *, caller: str = "") -> BatchAnswer:
        """As the interface says."""
        answer: BatchAnswer = await self.enqueuer.enqueue_batch(items, caller=caller)
        return answer

    async def status(self, task_id: str) -> JobStatus:
        """As the interface says."""
        return await self.inspector.status(task_id)

    async def result(self, task_id: str, *, wait_s: float = 0) -> JobResult:
        """As the interface says."""
        if wait_s > 0:
            return await self.feed.wait_for_result(task_id, wait_s=wait_s)
        return await self.inspector.result(task_id)

    async def abort(self, task_id: str, *, reason: str | None = None, by: str | None = None) -> AbortAnswer:
        """As the interface says."""
        outcome = await self.control.abort(task_id, by=by or self.by, reason=reason)
        return AbortAnswer(task_id=task_id, outcome=outcome)

    async def retry(self, task_id: str) -> RetryAnswer:
        """As the interface says."""
        return RetryAnswer(task_id=task_id, queue_type=await self.letters.retry_one(task_id))

    async def job_events(self, task_id: str) -> list[Event]:
        """As the interface says."""
        return await self.feed.job_events(task_id)

    async def queues(self) -> QueueList:
        """As the interface says."""
        event_id, queues = await self.inspector.snapshot()
        return QueueList(queues=queues, event_id=event_id)

    async def queue(self, name: str) -> QueueStatus:
        """As the interface says."""
        return await self.inspector.queue(self.catalog.queue(name))

    async def jobs(self, queue: str, *, state: State | None = None, cursor: str = "", limit: int = 50) -> JobPage:
        """As the interface says."""
        return await self.job_list.page(self.catalog.queue(queue), state=state, cursor=cursor, limit=limit)

    async def pause(self, queue: str, *, by: str | None = None) -> PauseAnswer:
        """As the interface says."""
        return PauseAnswer(queue=queue, paused=True, changed=await self.control.pause(queue, by=by or self.by))

    async def resume(self, queue: str, *, by: str | None = None) -> PauseAnswer:
        """As the interface says."""
        return PauseAnswer(queue=queue, paused=False, changed=await self.control.resume(queue, by=by or self.by))

    async def dead_letters(
        self, wanted: DeadFilter, *, cursor: str = "", limit: int = 50, with_traceback: bool = False
    ) -> DeadPage:
        """As the interface says."""
        letters, next_cursor = await self.letters.page(
            wanted, cursor=cursor, limit=limit, with_traceback=with_traceback
        )
        return DeadPage(letters=letters, next_cursor=next_cursor)

    def retry_dead(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """As the interface says."""
        return self.letters.retry(wanted)

    def purge_dead(self, wanted: DeadFilter) -> AsyncGenerator[Step, None]:
        """As the interface says."""
        return self.letters.purge(wanted)

    async def retry_some_dead(self, wanted: DeadFilter, *, cursor: str = "") -> DeadStep:
        """One bounded step of `retry_dead`: ``cursor`` is what the step before gave."""
        return dead_step(*await self.letters.retry_some(wanted, cursor=cursor))

    async def purge_some_dead(self, wanted: DeadFilter, *, cursor: str = "") -> DeadStep:
        """One bounded step of `purge_dead`."""
        return dead_step(*await self.letters.purge_some(wanted, cursor=cursor))

    async def workers(self) -> WorkerList:
        """As the interface says."""
        event_id, workers = await self.inspector.worker_snapshot()
        return WorkerList(workers=workers, event_id=event_id)

    async def events(
        self, wanted: EventFilter, *, after: str = BEGINNING, limit: int = 100, wait_s: float = 0
    ) -> EventPage:
        """As the interface says."""
        return await self.feed.events(wanted, after=after, limit=limit, wait_s=wait_s)

    async def latest_events(self, wanted: EventFilter, *, limit: int = 50) -> list[Event]:
        """As the interface says."""
        return await self.feed.latest_events(wanted, limit=limit)

    def follow(self, wanted: EventFilter, *, after: str = END) -> AsyncGenerator[Event, None]:
        """As the interface says."""
        return self.feed.follow(wanted, after=after)


def dead_step(step: Step, next_cursor: str | None) -> DeadStep:
    return DeadStep(
        handled=step.handled,
        done=step.done,
        total=step.total,
        complete=next_cursor is None,
        next_cursor=next_cursor,
    )
