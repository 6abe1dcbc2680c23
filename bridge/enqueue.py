"""From a request to a stored job: look the task up, check the arguments, call the enqueue script."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from redis.exceptions import ResponseError

from bridge import keys, tracing
from bridge.batch import MOST_ITEMS, BatchAnswer, BatchVerdict, ItemProblem, problem_of
from bridge.broker import is_away
from bridge.catalog import Catalog
from bridge.coalescer import Coalescer
from bridge.errors import DuplicateJob, IdempotencyKeyReused, InvalidArguments, InvalidRequest, RequestError
from bridge.new_job import job_body, new_job_id
from bridge.scripts import NewJob, Scripts

__all__ = ["Enqueued", "Enqueuer", "Replayed", "TaskRequest", "parse_request"]

ONE_YEAR_S: Final = 366 * 24 * 3600
MOST_TRIES: Final = 1000
STORE_UNREACHABLE: Final = "store_unreachable"
JOBS_IN_ONE_CALL: Final = 200
"""A script blocks the server: so many jobs take it about three milliseconds."""
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
        timeout_seconds: a run that takes longer is cancelled, as one is that takes longer than its task may.
        max_tries: attempts, the first included.
    """

    task_name: str
    queue_type: str | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    delay_seconds: Seconds | None = None
    run_at: Annotated[datetime, Meta(tz=True)] | None = None
    expires_seconds: Annotated[float, Meta(gt=0, le=ONE_YEAR_S)] | None = None
    task_id: TaskId | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=ONE_YEAR_S)] | None = None
    max_tries: Annotated[int, Meta(ge=1, le=MOST_TRIES)] | None = None


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


class Replayed(Enqueued, frozen=True, kw_only=True):
    """The same answer again: the caller's request with this idempotency key has been answered before."""


request_decoder: Final = msgspec.json.Decoder(TaskRequest)
canonical_encoder: Final = msgspec.json.Encoder(order="deterministic")


def parse_request(body: bytes | msgspec.Raw) -> TaskRequest:
    """The request in a JSON document.

    Raises:
        InvalidRequest: it is not JSON, or not of the shape of `TaskRequest`; ``path`` names the field.
    """
    try:
        return request_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise misshapen(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def misshapen(error: msgspec.ValidationError) -> InvalidRequest:
    message, _, path = str(error).partition(" - at `")
    return InvalidRequest(message, path=path.rstrip("`") or "$")


class Enqueuer:
    """Validates requests against the catalog and stores their jobs; requests that come at the same time share a call.

    Args:
        catalog: the queues and tasks there are.
        scripts: the store.
    """

    def __init__(self, catalog: Catalog, scripts: Scripts) -> None:
        self.catalog = catalog
        self.scripts = scripts
        self._stores = Coalescer(self._store, most=JOBS_IN_ONE_CALL)

    async def enqueue(
        self,
        request: TaskRequest,
        *,
        strict: bool = True,
        idempotency_key: str | None = None,
        caller: str = "",
        trace: str = "",
    ) -> Enqueued:
        """Stores one job: body, queue entry, wake-up and event appear together or not at all.

        Args:
            request: what the caller wants.
            strict: as for `prepare`.
            idempotency_key: the same request with the same key stores nothing within a day of the first, and is
                answered as that one was, with `Replayed`. Requests are the same when their fields are, in whatever
                order and with or without those that have their defaults.
            caller: whose key it is: callers do not see one another's.
            trace: a W3C traceparent, which the job and its events carry.

        Raises:
            DuplicateJob: the caller's id is taken.
            IdempotencyKeyReused: another request of the caller had the key.
            RequestError: as `prepare`.
        """
        job = self.prepare(request, strict=strict, trace=trace)
        if idempotency_key is not None:
            record_key = keys.idempotency(caller, idempotency_key)
            job = msgspec.structs.replace(job, record_key=record_key, fingerprint=fingerprint(request))
        now_ms, told = await self._stores.submit(job)
        if not told:
            raise DuplicateJob(job.job_id)
        if job.record_key:
            if told == "reused":
                raise IdempotencyKeyReused
            word, _, record = told.partition(" ")
            if word == "again":
                at_ms, event_id, job_id = record.split(" ", 2)
                return describe(msgspec.structs.replace(job, job_id=job_id), int(at_ms), event_id, Replayed)
        return describe(job, now_ms, told)

    async def _store(self, jobs: Sequence[NewJob]) -> list[tuple[int, str] | Exception]:
        """When each job was stored and what the script tells of it; what is wrong with one job harms no other."""
        try:
            now_ms, told = await self.scripts.enqueue(jobs)
        except ResponseError as error:
            if len(jobs) == 1 or is_away(error):
                raise
            # The script checks everything before it writes, so nothing is stored yet.
            return [await self._store_alone(job) for job in jobs]
        return [(now_ms, one) for one in told]

    async def _store_alone(self, job: NewJob) -> tuple[int, str] | Exception:
        try:
            now_ms, (told,) = await self.scripts.enqueue([job])
        except Exception as error:
            return error
        return now_ms, told

    async def enqueue_batch(self, items: Sequence[Any], *, caller: str = "", trace: str = "") -> BatchAnswer:
        """Stores the jobs of the valid items, `JOBS_IN_ONE_CALL` at a time, and tells what became of each.

        When Redis goes away on the way, what was stored before stays, and the verdicts say so; when it was away from
        the beginning, that is raised.

        Args:
            items: requests, each as plain data or as ``msgspec.Raw``.
            caller: as for `enqueue`; nothing depends on it, since items have no idempotency keys.
            trace: as for `enqueue`, of all jobs.

        Raises:
            InvalidRequest: there are more than `MOST_ITEMS`.
        """
        if len(items) > MOST_ITEMS:
            raise InvalidRequest(f"a batch has at most {MOST_ITEMS} items, and this one has {len(items)}")
        verdicts: list[BatchVerdict] = []
        has_answered = is_away_now = False
        for start in range(0, len(items), JOBS_IN_ONE_CALL):
            prepared = [
                self._prepare_item(index, item, trace)
                for index, item in enumerate(items[start : start + JOBS_IN_ONE_CALL], start)
            ]
            jobs = [one for one in prepared if isinstance(one, NewJob)]
            tell = untried if is_away_now else unknown
            told: Sequence[str | None] = [None] * len(jobs)
            try:
                if jobs and not is_away_now:
                    _, told = await self.scripts.enqueue(jobs)
                    has_answered = True
                else:
                    await asyncio.sleep(0)  # others have their turn
            except Exception as error:
                if not has_answered or not is_away(error):
                    raise
                is_away_now = True
            of_jobs = iter(told)
            for index, one in enumerate(prepared, start):
                if isinstance(one, NewJob):
                    event_id = next(of_jobs)
                    one = tell(index, one) if event_id is None else stored_or_taken(index, one, event_id)
                verdicts.append(one)
        return summed_up(verdicts)

    def _prepare_item(self, index: int, item: Any, trace: str) -> NewJob | BatchVerdict:
        try:
            request = parse_request(item) if isinstance(item, msgspec.Raw) else read_request(item)
            return self.prepare(request, trace=trace)
        except RequestError as error:
            return BatchVerdict(index=index, status="refused", error=problem_of(error))

    def prepare(self, request: TaskRequest, *, strict: bool = True, trace: str = "") -> NewJob:
        """The job that a request asks for, checked; nothing is stored.

        Args:
            request: what the caller wants.
            strict: false also takes numbers and booleans written as strings, as a command line has them.
            trace: a W3C traceparent.

        Raises:
            InvalidRequest: ``run_at`` is more than a year ahead.
            InvalidQueueType: there is no such queue.
            InvalidTaskName: the queue, or every queue, lacks the task.
            InvalidArguments: the task's signature does not accept the arguments.
        """
        task = self.catalog.task(request.task_name, request.queue_type)
        args, kwargs = task.signature.convert(request.args, request.kwargs, strict=strict)
        job_id = request.task_id or new_job_id()
        trace = tracing.trace_of_enqueue(task.name, task.queue, job_id, trace)
        try:
            body = job_body(task.name, args, kwargs, asked=asked_for(request, trace))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidArguments(f"{task.name}: {error}", task_name=task.name, path="$.kwargs") from None
        return NewJob(
            job_id=job_id,
            task=task.name,
            queue=task.queue,
            queue_key=self.catalog.queue(task.queue).key,
            body=body,
            delay_ms=round((request.delay_seconds or 0) * 1000),
            due_at_ms=read_instant_ms(request.run_at) if request.run_at else 0,
            expires_ms=round((request.expires_seconds or 0) * 1000),
        )


def read_request(data: Any) -> TaskRequest:
    """The request in plain data.

    Raises:
        InvalidRequest: it is not of the shape of `TaskRequest`; ``path`` names the field.
    """
    try:
        return msgspec.convert(data, TaskRequest)
    except msgspec.ValidationError as error:
        raise misshapen(error) from None


def asked_for(request: TaskRequest, trace: str) -> dict[str, Any] | None:
    """What the body tells of this job alone, by the names of `bridge.new_job.ASKED`."""
    if request.timeout_seconds is None and request.max_tries is None and not trace:
        return None
    return {"timeout_s": request.timeout_seconds, "max_tries": request.max_tries, "trace": trace or None}


def fingerprint(request: TaskRequest) -> str:
    """The same for the same request, however it was written; as good as never for two others."""
    return hashlib.blake2b(canonical_encoder.encode(request), digest_size=16).hexdigest()


def stored_or_taken(index: int, job: NewJob, event_id: str) -> BatchVerdict:
    if event_id:
        return BatchVerdict(index=index, status="enqueued", task_id=job.job_id, event_id=event_id)
    error = problem_of(DuplicateJob(job.job_id))
    return BatchVerdict(index=index, status="duplicate", task_id=job.job_id, error=error)


def unknown(index: int, job: NewJob) -> BatchVerdict:
    detail = "Redis went away before it said whether this job is stored: ask for its status before you send it again"
    error = ItemProblem(code=STORE_UNREACHABLE, detail=detail)
    return BatchVerdict(index=index, status="unknown", task_id=job.job_id, error=error)


def untried(index: int, _: NewJob) -> BatchVerdict:
    error = ItemProblem(code=STORE_UNREACHABLE, detail="Redis had gone away: send it again")
    return BatchVerdict(index=index, status="untried", error=error)


def summed_up(verdicts: list[BatchVerdict]) -> BatchAnswer:
    counts = Counter(verdict.status for verdict in verdicts)
    return BatchAnswer(
        enqueued=counts["enqueued"],
        duplicates=counts["duplicate"],
        refused=counts["refused"],
        unknown=counts["unknown"],
        untried=counts["untried"],
        items=verdicts,
    )


def read_instant_ms(run_at: datetime) -> int:
    due_at_s = run_at.timestamp()
    if due_at_s > time.time() + ONE_YEAR_S:
        raise InvalidRequest("run_at is more than a year ahead", path="$.run_at")
    return round(due_at_s * 1000)


def describe(job: NewJob, now_ms: int, event_id: str, answer: type[Enqueued] = Enqueued) -> Enqueued:
    """The answer to a request whose job was stored then."""
    due_at_ms = max(now_ms + job.delay_ms, job.due_at_ms)
    when = f"; it starts in {timedelta(milliseconds=due_at_ms - now_ms)}" if due_at_ms > now_ms else ""
    queued_at = datetime.fromtimestamp(now_ms / 1000, UTC)
    return answer(
        task_id=job.job_id,
        task_name=job.task,
        queue_type=job.queue,
        queued_at=queued_at,
        estimated_start=datetime.fromtimestamp(due_at_ms / 1000, UTC) if when else queued_at,
        message=f"Task {job.task} is on queue {job.queue}{when}",
        event_id=event_id,
    )
