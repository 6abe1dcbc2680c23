"""From a request to a stored job: look the task up, check the arguments, call the enqueue script."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from bridge.catalog import Catalog
from bridge.errors import DuplicateJob, InvalidArguments, InvalidRequest
from bridge.new_job import job_body, new_job_id
from bridge.scripts import NewJob, Scripts

__all__ = ["Enqueued", "Enqueuer", "TaskRequest", "parse_request"]

ONE_YEAR_S: Final = 366 * 24 * 3600
# No slash and no dot segment, since the id is part of addresses. The second look-ahead is there because
# Python's $ also matches before a final line feed.
TaskId = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^(?!\.{1,2}$)[!-.0-~]+(?!\n)$")]
Seconds = Annotated[float, Meta(ge=0, le=ONE_YEAR_S)]


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to run a task.

    Attributes:
        task_name: a registered task.
        queue_type: its queue; may be left out when one queue has the task.
        args: positional arguments.
        kwargs: keyword arguments.
        delay_seconds: start no earlier than this from now.
        run_at: start no earlier than this instant, at most a year ahead.
        expires_seconds: drop the job unless it starts within this time.
        task_id: an id of the caller's choice, printable ASCII without ``/``, since it is part of addresses; a second
            job with it is refused.
    """

    task_name: str
    queue_type: str | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    delay_seconds: Seconds | None = None
    run_at: Annotated[datetime, Meta(tz=True)] | None = None
    expires_seconds: Annotated[float, Meta(gt=0, le=ONE_YEAR_S)] | None = None
    task_id: TaskId | None = None


class Enqueued(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request whose job is stored.

    Attributes:
        estimated_start: when it is due; it starts then if a worker is free.
        event_id: stream id of the event that the enqueue wrote: follow the stream from here.
    """

    task_id: str
    task_name: str
    queue_type: str
    queued_at: datetime
    estimated_start: datetime
    message: str
    event_id: str


request_decoder: Final = msgspec.json.Decoder(TaskRequest)


def parse_request(body: bytes) -> TaskRequest:
    """The request in a JSON document.

    Raises:
        InvalidRequest: it is not JSON, or not of the shape of `TaskRequest`; ``path`` names the field.
    """
    try:
        return request_decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise InvalidRequest(message, path=path.rstrip("`") or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


class Enqueuer:
    """Validates requests against the catalog and stores their jobs.

    Args:
        catalog: the queues and tasks there are.
        scripts: the store.
    """

    def __init__(self, catalog: Catalog, scripts: Scripts) -> None:
        self.catalog = catalog
        self.scripts = scripts

    async def enqueue(
        self, request: TaskRequest, *, strict: bool = True, idempotency_key: str | None = None, caller: str = ""
    ) -> Enqueued:
        """Stores one job; see `enqueue_many`.

        Raises:
            DuplicateJob: the caller's id is taken.
            RequestError: as `prepare`.
        """
        job = self.prepare(request, strict=strict)
        (enqueued,) = await self.enqueue_many([job])
        if enqueued is None:
            raise DuplicateJob(job.job_id)
        return enqueued

    async def enqueue_batch(self, items: Sequence[Any], *, caller: str = "") -> Any:
        """To come."""
        raise NotImplementedError

    async def enqueue_many(self, jobs: Sequence[NewJob]) -> list[Enqueued | None]:
        """Stores prepared jobs in one call; ``None`` stands for one whose id is taken.

        Body, queue entry, wake-up and event of a job appear together or not at all.
        """
        now_ms, event_ids = await self.scripts.enqueue(jobs)
        return [
            describe(job, now_ms, event_id) if event_id else None for job, event_id in zip(jobs, event_ids, strict=True)
        ]

    def prepare(self, request: TaskRequest, *, strict: bool = True) -> NewJob:
        """The job that a request asks for, checked; nothing is stored.

        Args:
            request: what the caller wants.
            strict: false also takes numbers and booleans written as strings, as a command line has them.

        Raises:
            InvalidRequest: ``run_at`` is more than a year ahead.
            InvalidQueueType: there is no such queue.
            InvalidTaskName: the queue, or every queue, lacks the task.
            InvalidArguments: the task's signature does not accept the arguments.
        """
        task = self.catalog.task(request.task_name, request.queue_type)
        args, kwargs = task.signature.convert(request.args, request.kwargs, strict=strict)
        try:
            body = job_body(task.name, args, kwargs)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArguments(f"{task.name}: {error}", task_name=task.name, path="$.kwargs") from None
        return NewJob(
            job_id=request.task_id or new_job_id(),
            task=task.name,
            queue=task.queue,
            queue_key=self.catalog.queue(task.queue).key,
            body=body,
            delay_ms=round((request.delay_seconds or 0) * 1000),
            due_at_ms=read_instant_ms(request.run_at) if request.run_at else 0,
            expires_ms=round((request.expires_seconds or 0) * 1000),
        )


def read_instant_ms(run_at: datetime) -> int:
    due_at_s = run_at.timestamp()
    if due_at_s > time.time() + ONE_YEAR_S:
        raise InvalidRequest("run_at is more than a year ahead", path="$.run_at")
    return round(due_at_s * 1000)


def describe(job: NewJob, now_ms: int, event_id: str) -> Enqueued:
    due_at_ms = max(now_ms + job.delay_ms, job.due_at_ms)
    when = f"; it starts in {timedelta(milliseconds=due_at_ms - now_ms)}" if due_at_ms > now_ms else ""
    return Enqueued(
        task_id=job.job_id,
        task_name=job.task,
        queue_type=job.queue,
        queued_at=datetime.fromtimestamp(now_ms / 1000, UTC),
        estimated_start=datetime.fromtimestamp(due_at_ms / 1000, UTC),
        message=f"Task {job.task} is on queue {job.queue}{when}",
        event_id=event_id,
    )
