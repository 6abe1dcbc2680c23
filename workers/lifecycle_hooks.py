"""Events for queues that run under the stock ``arq`` command: written after the fact, best effort.

arq's job context has neither the task's name nor the outcome, and some endings call no hook at all
(``docs/reference/guarantees.md`` lists them). So each function is wrapped: the wrapper reports the
start and keeps what happened, and the hook that arq calls after the job looks whether the job is
still in its queue. It is: another attempt follows. It is not: what the wrapper kept is the outcome.

No hook of ours stops a worker, as an exception in a hook would: it is logged and swallowed.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any, Final, ParamSpec

import msgspec
from arq.utils import to_unix_ms
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from bridge import keys
from bridge.codec import describe_exception, encode_value
from bridge.errors import InvalidArguments
from bridge.events import (
    RESULT_LIMIT_BYTES,
    STOCK_WORKER_MARK,
    ErrorSummary,
    EventData,
    JobAborted,
    JobFailed,
    JobRetrying,
    JobStarted,
    JobSucceeded,
)
from bridge.new_job import ASKED as KEYS_OF_ASKED
from bridge.scripts import NewEvent, Scripts
from workers.asked import ASKED, ASKED_OF_STOCK, Asked, read_asked
from workers.duties import repeat
from workers.heartbeat import Heart, new_worker_id
from workers.outcome import FailureReason
from workers.progress import PROGRESS
from workers.progress_writer import ProgressWriter
from workers.retry import RetryLater, has_expired, runner_timeout_s

__all__ = ["Reporter", "noting_what_is_asked", "observe"]

logger = logging.getLogger("aegis.workers")

REPORTER: Final = "aegis_reporter"
RUN: Final = "aegis_run"
IN_PROGRESS_VALUE: Final = "1"
"""What arq writes as the value of ``arq:in-progress:<id>``."""
ARQ_TIMEOUT_MARGIN_S: Final = 5
"""How much later arq's own timeout comes: ours must come first, because only ours tells a timeout from an abort."""

Context = dict[Any, Any]
Deserializer = Callable[[bytes], dict[str, Any]]
P = ParamSpec("P")


@dataclass(eq=False)
class Run:
    """One attempt of a job, as its wrapper saw it."""

    job_id: str
    attempt: int
    task: str
    queued_ms: int
    token: str = IN_PROGRESS_VALUE
    trace: str = ""
    has_reported: bool = False
    started_at_ms: int = field(default_factory=lambda: round(time() * 1000))
    error: BaseException | None = None
    timed_out: bool = False
    is_exhausted: bool = False
    result: bytes = b"null"

    @property
    def ran_ms(self) -> int:
        return round(time() * 1000) - self.started_at_ms


class Reporter:
    """Writes the events of one worker.

    Args:
        scripts: the event stream.
        queue_key: the queue's zset.
        max_jobs: jobs the worker runs at a time.
    """

    def __init__(self, scripts: Scripts, *, queue_key: str, max_jobs: int) -> None:
        self.scripts = scripts
        self.queue_key = queue_key
        self.queue = keys.queue_name(queue_key)
        self.worker_id = new_worker_id(STOCK_WORKER_MARK)
        self.running = self.done = self.failed = self.retried = 0
        self.progress = ProgressWriter(scripts, queue=self.queue, worker=self.worker_id, attempt_of=reporting_run)
        self._heart = Heart(self.worker_id, queue=self.queue, max_jobs=max_jobs, runner="arq", counts=self._counts)
        self._stopping: asyncio.Future[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._writing_progress = asyncio.create_task(self.progress.run())

    async def worker_started(self) -> None:
        """The worker is registered, and tells that it lives while the task that calls this one goes on."""
        self._stopping = asyncio.get_running_loop().create_future()
        self._beating = asyncio.create_task(repeat(self._heart, self.scripts, self._stopping))
        if main := asyncio.current_task():  # a worker whose loop has ended must not look alive
            main.add_done_callback(lambda _: self._stop_beating())
        await self._heart.do(self.scripts)

    async def worker_stopped(self) -> None:
        """The worker is registered no more."""
        while not self._writing_progress.done():
            self._writing_progress.cancel()  # again and again: on 3.11 redis-py may swallow a cancellation
            await asyncio.wait({self._writing_progress}, timeout=0.1)
        self._stop_beating()
        if self._beating:
            await self._beating
        await self._heart.stop(self.scripts)

    def _stop_beating(self) -> None:
        if self._stopping and not self._stopping.done():
            self._stopping.set_result(None)

    def _counts(self) -> tuple[int, int, int, int]:
        return self.running, self.done, self.failed, self.retried

    async def job_started(self, ctx: Context, run: Run) -> None:
        """The worker runs this attempt."""
        enqueued_at_ms = to_unix_ms(ctx["enqueue_time"])
        await self._report(JobStarted(enqueued_at_ms=enqueued_at_ms, queued_ms=run.queued_ms), ctx, run)

    async def job_ended(self, ctx: Context, run: Run) -> None:
        """arq has recorded the end of this attempt: tell which end it was."""
        score = await ctx["redis"].zscore(self.queue_key, ctx["job_id"])
        data = outcome(run, ctx["job_id"], due_at_ms=None if score is None else int(score))
        if isinstance(data, JobSucceeded):
            self.done += 1
        elif isinstance(data, JobRetrying):
            self.retried += 1
        else:
            self.failed += 1
        await self._report(data, ctx, run)
        if run.has_reported:
            await ctx["redis"].delete(keys.progress(run.job_id))

    async def _report(self, data: EventData, ctx: Context, run: Run) -> None:
        await self.scripts.report(
            [
                NewEvent(
                    data=data,
                    queue=self.queue,
                    worker=self.worker_id,
                    job_id=ctx["job_id"],
                    attempt=ctx["job_try"],
                    task=run.task,
                    trace=run.trace,
                )
            ]
        )


def reporting_run(ctx: Mapping[Any, Any]) -> Run | None:
    run: Run | None = ctx.get(RUN)
    if run is None or not run.token:
        return None
    run.has_reported = True
    return run


def outcome(run: Run, job_id: str, *, due_at_ms: int | None) -> EventData:
    """The event of an attempt that ended.

    Args:
        run: what the wrapper saw.
        job_id: whose attempt it was.
        due_at_ms: when the job is due again; ``None`` when it has left its queue.
    """
    error = run.error
    if due_at_ms is not None:
        if isinstance(error, RetryLater):
            return JobRetrying(reason=error.reason, due_at_ms=due_at_ms, error=summary(error.error))
        is_interrupted = isinstance(error, asyncio.CancelledError)
        return JobRetrying(reason="interrupted" if is_interrupted else "retry", due_at_ms=due_at_ms)
    if error is None:
        if len(run.result) > RESULT_LIMIT_BYTES:
            url = f"/api/v1/tasks/result/{job_id}"
            return JobSucceeded(ran_ms=run.ran_ms, queued_ms=run.queued_ms, result_url=url)
        return JobSucceeded(ran_ms=run.ran_ms, queued_ms=run.queued_ms, result=msgspec.Raw(run.result))
    if isinstance(error, asyncio.CancelledError):
        return JobAborted(was="in_progress")
    reason: FailureReason = "error"
    if run.is_exhausted:
        reason = "tries_exhausted"
    elif run.timed_out or has_expired(error):
        reason = "timeout"
    elif isinstance(error, InvalidArguments):
        reason = "invalid_arguments"
    return JobFailed(reason=reason, error=summary(error), ran_ms=run.ran_ms)


def summary(error: BaseException) -> ErrorSummary:
    failure = describe_exception(error)
    return ErrorSummary(type=failure.type, message=failure.message)


def observe(function: Function, *, default_timeout_s: float | None) -> Function:
    """The same arq function, which also reports its start.

    Args:
        function: what arq would run.
        default_timeout_s: the timeout where the function has none of its own.
    """
    timeout_s = function.timeout_s if function.timeout_s is not None else default_timeout_s

    @functools.wraps(function.coroutine)
    async def run_task(ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        queued_ms = max(0, round(time() * 1000) - max(ctx["score"], to_unix_ms(ctx["enqueue_time"])))
        asked = ASKED_OF_STOCK.get()
        run = ctx[RUN] = Run(ctx["job_id"], ctx["job_try"], function.name, queued_ms, trace=asked.trace)
        limit_s = timeout_s
        if asked.timeout_s is not None or asked.max_tries is not None:
            asked = ctx[ASKED] = no_more_than(asked, timeout_s, function.max_tries)
            if asked.timeout_s is not None:
                limit_s = runner_timeout_s(function.coroutine, asked.timeout_s)
        timeout = asyncio.timeout(limit_s)
        reporter: Reporter | None = ctx.get(REPORTER)
        try:
            if reporter:
                reporter.running += 1
                await quietly(reporter.job_started)(ctx, run)
            try:
                async with timeout:
                    with tries_counted(run, asked.max_tries):
                        result = await function.coroutine(ctx, *args, **kwargs)
            finally:
                if run.has_reported:
                    await ctx[PROGRESS].settle([run])
            run.result = encode_value(result)
        except BaseException as error:
            run.error = error
            run.timed_out = timeout.expired()
            raise
        finally:
            if reporter:
                reporter.running -= 1
            run.token = ""  # an abandoned thread may go on reporting, and every attempt's token is the same
        return result

    return Function(
        name=function.name,
        coroutine=run_task,  # type: ignore[arg-type]  # ctx by position only: a task may have an argument named ctx
        timeout_s=None if timeout_s is None else timeout_s + ARQ_TIMEOUT_MARGIN_S,
        keep_result_s=function.keep_result_s,
        keep_result_forever=function.keep_result_forever,
        max_tries=function.max_tries,
    )


def no_more_than(asked: Asked, timeout_s: float | None, max_tries: int | None) -> Asked:
    """What of it can be done here: arq itself ends a job when the task's own timeout is over or its tries are made."""
    keeps_timeout = asked.timeout_s is not None and (timeout_s is None or asked.timeout_s < timeout_s)
    keeps_tries = asked.max_tries is not None and (max_tries is None or asked.max_tries < max_tries)
    return Asked(asked.timeout_s if keeps_timeout else None, asked.max_tries if keeps_tries else None, asked.trace)


@contextmanager
def tries_counted(run: Run, max_tries: int | None) -> Iterator[None]:
    """Inside, no attempt is made or asked for that would be one too many."""
    try:
        if max_tries is not None and run.attempt > max_tries:
            raise RetryJob
        yield
    except (Retry, RetryJob):
        if max_tries is None or run.attempt < max_tries:
            raise
        run.is_exhausted = True
        raise JobExecutionFailed(f"max {max_tries} retries exceeded") from None


def noting_what_is_asked(deserializer: Deserializer) -> Deserializer:
    """The same deserializer, after which the functions of `observe` know what the body asks for."""

    @functools.wraps(deserializer)
    def deserialize(raw: bytes) -> dict[str, Any]:
        data = deserializer(raw)
        if "s" not in data:  # not a result
            ASKED_OF_STOCK.set(read_asked(*map(data.get, KEYS_OF_ASKED)))
        return data

    return deserialize


def quietly(hook: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """The hook, except that its exceptions are logged and swallowed."""

    @functools.wraps(hook)
    async def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await hook(*args, **kwargs)
        except Exception:
            logger.exception("an event could not be written; the worker goes on")

    return call
