"""Running one attempt: decode, resolve, call under a timeout, classify.

Each step is a method of a few lines over one `Run`; the last returns one of the outcomes of
`workers.outcome`, a closed set.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec
from arq.cron import CronJob
from arq.jobs import DeserializationError
from arq.typing import StartupShutdown
from arq.utils import ms_to_datetime
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from bridge import tracing
from bridge.codec import job_deserializer, job_deserializer_accepting_pickle
from bridge.errors import InvalidArguments, UndecodablePayload
from workers.asked import ASKED, Asked, read_asked
from workers.claim import Run
from workers.outcome import Aborted, Failed, Outcome, Retrying, Succeeded
from workers.retry import RetryLater, has_expired, runner_timeout_s

__all__ = ["ATTEMPT", "Execution"]

logger = logging.getLogger("aegis.workers")

Context = dict[Any, Any]
ATTEMPT: Final = "aegis_attempt"
"""The entry of a ``ctx`` that holds the token: it tells the attempt from others of the same job."""
moment: Final = lru_cache(1024)(ms_to_datetime)
"""Jobs that are enqueued together have the same."""
OURS: Final = (job_deserializer, job_deserializer_accepting_pickle)


class Body(msgspec.Struct):
    """A job's body, as the hot path decodes it."""

    f: str
    a: list[Any]
    k: dict[str, Any]
    et: int
    timeout_s: Any = None
    max_tries: Any = None
    trace: Any = None


decode_body: Final = msgspec.json.Decoder(Body).decode


@dataclass(kw_only=True)
class Execution:
    """Runs attempts of one worker.

    Attributes:
        queue: short name of the queue.
        functions: registered name -> function.
        deserializer: of job bodies.
        ctx: what every job's context holds.
        timeout_s: of functions that have none of their own.
        max_tries: of functions that have none of their own.
        retries: whether Retry and cancellation lead to another attempt (arq's ``retry_jobs``).
        on_job_start, on_job_end: arq's hooks.
        now_ms: Redis' clock.
        watch: told of a run whose deadline has been set.
    """

    queue: str
    functions: Mapping[str, Function | CronJob]
    deserializer: Callable[[bytes], dict[str, Any]]
    ctx: Context
    timeout_s: float | None
    max_tries: int
    retries: bool
    on_job_start: StartupShutdown | None
    on_job_end: StartupShutdown | None
    now_ms: Callable[[], int]
    clock_s: Callable[[], float]
    watch: Callable[[Run], None]

    async def run(self, run: Run) -> Outcome:
        """How the attempt ended."""
        outcome = self.decode(run) or self.resolve(run)
        if outcome is not None:
            return outcome
        ctx = run.ctx = self.context(run)
        outcome = await self.call(run, ctx)
        if self.on_job_end is not None and run.stop_reason != "lost":
            await self.tell_end(ctx, self.on_job_end)
        return outcome

    def decode(self, run: Run) -> Outcome | None:
        """The body is read, or the attempt has ended: there is none, or not one that we read."""
        if run.verdict == "expired":
            return Failed("expired", JobExecutionFailed("job expired"))
        body = run.body
        try:
            if self.deserializer in OURS and body[:1] == b"{":
                job = decode_body(body)
                run.task, run.args, run.kwargs, run.enqueued_at_ms = job.f, job.a, job.k, job.et
                run.is_spliceable = body[:5] == b'{"t":' and body[-1:] == b"}"
                if job.timeout_s is not None or job.max_tries is not None or job.trace is not None:
                    run.timeout_s, run.max_tries, run.trace = read_asked(job.timeout_s, job.max_tries, job.trace)
            else:
                data = self.deserializer(body)
                run.task, run.args, run.kwargs, run.enqueued_at_ms = data["f"], data["a"], data["k"], data["et"]
        except Exception as error:  # the deserializer may be the user's
            return Failed("undecodable", undecodable(error))
        return None

    def resolve(self, run: Run) -> Outcome | None:
        """The function is known, or the attempt has ended before it could run."""
        if run.verdict == "aborted":
            return Aborted("queued", asyncio.CancelledError())
        run.function = self.functions.get(run.task)
        if run.function is None:
            return Failed("unknown_task", JobExecutionFailed(f"function {run.task!r} not found"))
        if run.verdict == "exhausted" or run.attempt > self.tries_of(run):
            run.attempt = min(run.attempt, self.tries_of(run))
            return self.exhausted(run)
        return None

    def tries_of(self, run: Run) -> int:
        """Most attempts of this job."""
        if run.max_tries is not None:
            return run.max_tries
        own = run.function.max_tries if run.function is not None else None
        return self.max_tries if own is None else own

    def exhausted(self, run: Run) -> Failed:
        """The end of a job that may not be tried again."""
        return Failed("tries_exhausted", JobExecutionFailed(f"max {self.tries_of(run)} retries exceeded"))

    def context(self, run: Run) -> Context:
        """The ``ctx`` of arq."""
        ctx = {
            **self.ctx,
            ATTEMPT: run.token,
            "job_id": run.job_id,
            "job_try": run.attempt,
            "enqueue_time": moment(run.enqueued_at_ms),
            "score": run.due_ms,
        }
        if run.timeout_s is not None or run.max_tries is not None:
            ctx[ASKED] = Asked(run.timeout_s, run.max_tries, run.trace)
        return ctx

    async def call(self, run: Run, ctx: Context) -> Outcome:
        """The function has been called, and ended in its way or was made to."""
        function = run.function
        assert function is not None  # noqa: S101 - resolve() saw to it
        timeout_s = self.timeout_s if function.timeout_s is None else function.timeout_s
        if run.timeout_s is not None:
            timeout_s = runner_timeout_s(function.coroutine, run.timeout_s)
        try:
            if self.on_job_start is not None:
                await self.on_job_start(ctx)
            run.started_ms = self.now_ms()
            if run.stop_reason is not None:
                raise asyncio.CancelledError
            if timeout_s is not None:
                run.deadline_s = self.clock_s() + timeout_s
                self.watch(run)
            run.is_calling = True
            if tracing.spans is None:
                result = await function.coroutine(ctx, *run.args, **run.kwargs)
            else:
                with tracing.spans.run(run.task, self.queue, run.job_id, run.attempt, run.trace):
                    result = await function.coroutine(ctx, *run.args, **run.kwargs)
        except BaseException as error:
            run.is_calling = False
            run.ended_ms = self.now_ms()
            return self.classify(run, error)
        run.is_calling = False
        run.ended_ms = self.now_ms()
        return Succeeded(result)

    def classify(self, run: Run, error: BaseException) -> Outcome:
        """What an exception means."""
        if isinstance(error, asyncio.CancelledError):
            return self.classify_cancellation(run, error)
        if isinstance(error, InvalidArguments):
            return Failed("invalid_arguments", error)
        if self.retries and isinstance(error, Retry):
            if run.attempt >= self.tries_of(run):
                return self.exhausted(run)
            if isinstance(error, RetryLater):
                return Retrying(error.reason, delay_ms=error.defer_score or 0, error=error.error)
            return Retrying("retry", delay_ms=error.defer_score or 0)
        if self.retries and isinstance(error, RetryJob):
            return Retrying("retry") if run.attempt < self.tries_of(run) else self.exhausted(run)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            error = RuntimeError(f"the task raised {type(error).__name__}").with_traceback(error.__traceback__)
        return Failed("timeout" if has_expired(error) else "error", error)

    def classify_cancellation(self, run: Run, error: asyncio.CancelledError) -> Outcome:
        """Who cancelled it decides: an abort, the timeout, a worker that stops, or the task itself."""
        match run.stop_reason:
            case "abort":
                return Aborted("in_progress", error)
            case "timeout":
                return Failed("timeout", TimeoutError("the job ran longer than its timeout"))
            case "stop" | "lost":
                return Retrying("interrupted") if self.retries else Failed("error", error)
            case None:
                if not self.retries:
                    return Failed("error", error)
                return Retrying("retry") if run.attempt < self.tries_of(run) else self.exhausted(run)

    async def tell_end(self, ctx: Context, hook: StartupShutdown) -> None:
        """The hook has run; what it raises is logged, for the outcome stands."""
        try:
            await hook(ctx)
        except Exception:
            logger.exception("a hook raised; the job's outcome stands")
        except asyncio.CancelledError:
            logger.warning("a hook was cancelled; the job's outcome stands")


def undecodable(error: Exception) -> BaseException:
    """As arq reports it, in words that say what to do."""
    if isinstance(error, UndecodablePayload):
        return DeserializationError(str(error))
    if isinstance(error, msgspec.MsgspecError):
        return DeserializationError(f"the payload is not a job as arq writes them: {error}")
    return DeserializationError("unable to deserialize job")
