"""How an attempt of a job can end: a closed set, and what each end writes."""

import logging
from collections.abc import Callable
from typing import Any, Final, Literal, assert_never

import msgspec
from arq.jobs import SerializationError

from bridge.codec import describe_exception, encode_value, job_serializer
from bridge.errors import ResultNotEncodable
from bridge.events import RESULT_LIMIT_BYTES, ErrorSummary
from bridge.scripts import Ending
from bridge.time_buckets import bucket
from workers.claim import Run

__all__ = ["Aborted", "Failed", "FailureReason", "Outcome", "Recorder", "Retrying", "Succeeded"]

FailureReason = Literal[
    "error", "timeout", "tries_exhausted", "expired", "unknown_task", "undecodable", "invalid_arguments"
]
FOREVER_MS: Final = 0
UNSERIALIZABLE: Final = "unable to serialize result"


class Succeeded:
    """The task returned."""

    __slots__ = ("result",)

    def __init__(self, result: Any) -> None:
        self.result = result


class Failed:
    """No attempt is left."""

    __slots__ = ("error", "reason")

    def __init__(self, reason: FailureReason, error: BaseException) -> None:
        self.reason = reason
        self.error = error


class Retrying:
    """Another attempt follows: after ``delay_ms``, or if it was ``interrupted``, in the place it had in the queue."""

    __slots__ = ("delay_ms", "error", "reason")

    def __init__(
        self,
        reason: Literal["error", "retry", "timeout", "interrupted"],
        *,
        delay_ms: int = 0,
        error: BaseException | None = None,
    ) -> None:
        self.reason = reason
        self.delay_ms = delay_ms
        self.error = error


class Aborted:
    """An abort took effect; ``was`` is the state before it."""

    __slots__ = ("error", "was")

    def __init__(self, was: Literal["queued", "in_progress"], error: BaseException) -> None:
        self.was = was
        self.error = error


Outcome = Succeeded | Failed | Retrying | Aborted

logger = logging.getLogger("aegis.workers")
encode: Final = msgspec.json.Encoder().encode


class Recorder:
    """Turns outcomes into what ``finish.lua`` writes.

    Args:
        queue_key: the queue's zset.
        serializer: of results; ours writes JSON.
        keep_result_ms: how long a task's result is kept: ``None`` not at all, 0 for ever.
    """

    def __init__(
        self,
        *,
        queue_key: str,
        serializer: Callable[[dict[str, Any]], bytes],
        keep_result_ms: Callable[[Run], int | None],
    ) -> None:
        self.queue_key = queue_key
        self.serializer = serializer
        self.keep_result_ms = keep_result_ms
        self.tail = b',"q":%b,"id":' % encode(queue_key)

    def record(self, run: Run, outcome: Outcome) -> Ending:
        """The end of this attempt, ready to be written."""
        match outcome:
            case Succeeded():
                return self._succeeded(run, outcome.result)
            case Failed():
                return self._failed(run, outcome)
            case Retrying():
                return self._retrying(run, outcome)
            case Aborted():
                rest = b"}" if run.note == b"{}" else b"," + run.note[1:]
                data = b'{"was":"%b"%b' % (outcome.was.encode(), rest)
                return self._ending(run, "job.aborted", data, False, outcome.error)
            case _:
                assert_never(outcome)

    def _succeeded(self, run: Run, result: Any) -> Ending:
        try:
            encoded = encode_value(result)
        except ResultNotEncodable as error:
            if self.serializer is job_serializer:
                return self._failed(run, Failed("error", error))
            encoded = b"null"  # another serializer may hold it: then only the event lacks it
        if len(encoded) > RESULT_LIMIT_BYTES:
            shown = b'"result_url":%b' % encode(f"/api/v1/tasks/result/{run.job_id}")
        else:
            shown = b'"result":%b' % encoded
        data = b'{"ran_ms":%d,"queued_ms":%d,%b}' % (run.ran_ms, run.queued_ms, shown)
        try:
            return self._ending(run, "job.succeeded", data, True, result, encoded)
        except Exception:  # the caller's serializer
            return self._failed(run, Failed("error", SerializationError(UNSERIALIZABLE)))

    def _failed(self, run: Run, failed: Failed) -> Ending:
        failure = describe_exception(failed.error)
        summary = ErrorSummary(type=failure.type, message=failure.message)
        data = b'{"reason":"%b","error":%b,"ran_ms":%d}' % (failed.reason.encode(), encode(summary), run.ran_ms)
        encoded = encode(failure)
        ending = self._ending(run, "job.failed", data, False, failed.error, encoded)
        if failed.reason == "expired":  # its arguments are gone: there is nothing to run again
            return ending
        return ending._replace(extra=self._dead_letter(run, failed.reason, encoded))

    def _retrying(self, run: Run, retrying: Retrying) -> Ending:
        data = b'{"reason":"%b"' % retrying.reason.encode()
        if retrying.error is not None:
            failure = describe_exception(retrying.error)
            data += b',"error":%b' % encode(ErrorSummary(type=failure.type, message=failure.message))
        is_interrupted = retrying.reason == "interrupted"
        return Ending(
            job_id=run.job_id,
            token=run.token,
            kind="job.retrying",
            task=run.task,
            attempt=run.attempt,
            data=data,
            result=b"",
            number=max(0, run.due_ms if is_interrupted else retrying.delay_ms),
            extra=b"interrupted" if is_interrupted else b"",
            wait_bucket=bucket(run.queued_ms),
            run_bucket=bucket(run.ran_ms),
        )

    def _ending(
        self, run: Run, kind: str, data: bytes, is_success: bool, result: Any, encoded: bytes | None = None
    ) -> Ending:
        keep_ms = self.keep_result_ms(run)
        stored = b""
        if keep_ms is not None:
            stored = self._result(run, is_success, result, encoded)
        has_run = run.started_ms > 0
        return Ending(
            run.job_id,
            run.token,
            kind,
            run.task,
            run.attempt,
            data,
            stored,
            keep_ms or FOREVER_MS,
            b"",
            bucket(run.queued_ms) if has_run else "",
            bucket(run.ran_ms) if has_run else "",
        )

    def _result(self, run: Run, is_success: bool, result: Any, encoded: bytes | None) -> bytes:
        if self.serializer is job_serializer:
            return self._json_result(run, is_success, encoded or encode(describe_exception(result)))
        return self._serialized(run, is_success, result)

    def _serialized(self, run: Run, is_success: bool, result: Any) -> bytes:
        """arq's result dict by the caller's serializer; arq's own text where it cannot hold the result."""
        values = {
            "t": run.attempt,
            "f": run.task or "<unknown>",
            "a": run.args,
            "k": run.kwargs,
            "et": run.enqueued_at_ms,
            "s": is_success,
            "r": result,
            "st": run.started_ms or run.claimed_at_ms,
            "ft": run.ended_ms or run.claimed_at_ms,
            "q": self.queue_key,
            "id": run.job_id,
        }
        try:
            return self.serializer(values)
        except Exception:
            if is_success:
                raise
        try:
            return self.serializer({**values, "r": UNSERIALIZABLE})
        except Exception:
            logger.critical("the failure of job %s cannot be serialized and is not kept", run.job_id, exc_info=True)
            return b""

    def _json_result(self, run: Run, is_success: bool, encoded: bytes) -> bytes:
        """arq's result dict: the job's body as the producer wrote it, spliced with what came of it."""
        body = run.body
        if run.is_spliceable:
            job = b'{"t":%d%b' % (run.attempt, body[body.index(b",") : -1])
        else:
            values = {"t": run.attempt, "f": run.task or "<unknown>", "a": run.args, "k": run.kwargs}
            try:
                job = encode({**values, "et": run.enqueued_at_ms})[:-1]
            except Exception:  # the arguments came from another serializer
                job = encode({**values, "a": [], "k": {}, "et": run.enqueued_at_ms, "lossy": True})[:-1]
        return b'%b,"s":%b,"r":%b,"st":%d,"ft":%d%b%b}' % (
            job,
            b"true" if is_success else b"false",
            encoded,
            run.started_ms or run.claimed_at_ms,
            run.ended_ms or run.claimed_at_ms,
            self.tail,
            encode(run.job_id),
        )

    def _dead_letter(self, run: Run, reason: FailureReason, encoded: bytes) -> bytes:
        return self._json_result(run, False, b'%b,"reason":"%b"}' % (encoded[:-1], reason.encode()))
