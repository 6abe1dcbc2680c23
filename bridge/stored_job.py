"""What is stored of a job, and whether that agrees with what its events say."""

import re
from typing import Final

import msgspec

from bridge import keys
from bridge.replay import ENDED, Job, Oddity

__all__ = ["BODY_TAIL_BYTES", "StoredJob", "disagreement"]

BODY_TAIL_BYTES: Final = 200
"""The end of a body is read, not all of it: the enqueue time is there, as arq and we write it."""
ENQUEUED_AT: Final = re.compile(rb'"et":(\d+)[^{}]*}$')


class StoredResult(msgspec.Struct, frozen=True):
    """The fields of a result that matter here."""

    t: int | None
    s: bool
    r: msgspec.Raw


class StoredFailure(msgspec.Struct, frozen=True):
    """The field of a failure that matters here."""

    type: str = ""


result_decoder: Final = msgspec.json.Decoder(StoredResult)
failure_decoder: Final = msgspec.json.Decoder(StoredFailure)


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one job, read in one step.

    Attributes:
        scores: of each queue that it is in, by the queue's key.
        token: value of its in-progress key.
        tries: attempts so far; 0 when there is no such key, or no number in it.
        body_tail: the end of its body, ``None`` when it has none.
        has_abort: whether it is in arq's abort set.
    """

    scores: dict[str, float]
    token: bytes | None
    tries: int
    body_tail: bytes | None
    result: bytes | None
    has_abort: bool

    @property
    def outcome(self) -> tuple[str, int | None] | None:
        """State and attempt in the stored result; ``None`` without one that our codec wrote."""
        try:
            result = result_decoder.decode(self.result or b"")
            if result.s:
                return "succeeded", result.t
            is_abort = failure_decoder.decode(result.r).type == "CancelledError"
        except msgspec.MsgspecError:
            return None
        return "aborted" if is_abort else "failed", result.t

    def state(self, now_ms: int) -> str:
        """The state as `bridge.inspector` tells it, or how little there is."""
        if self.result is not None:
            return self.outcome[0] if self.outcome else "ended"
        if not self.scores:
            return "not queued" if self.body_tail is not None or self.token is not None else "nothing stored"
        score = max(self.scores.values())
        if self.token is not None or is_leased(score):
            return "in_progress"
        return "deferred" if score > now_ms else "queued"


def disagreement(job: Job, stored: StoredJob, *, in_stock_queue: bool) -> Oddity | str | None:
    """What is wrong, an oddity that explains it, or `None`.

    What may be legal is not told: a body or a result may have expired, and what a stock worker does has its event
    later or never.

    Args:
        job: what the events say, up to the moment in which the rest was read.
        stored: what was read.
        in_stock_queue: whether a stock worker works the job's queue.
    """
    if job.state in ENDED:
        return after_the_end(job, stored, in_stock_queue=in_stock_queue)
    if not stored.scores:
        if in_stock_queue:
            return Oddity.UNTOLD_END
        return "it is in no queue" if stored.result is None else "it has ended, and no event tells of it"
    if len(stored.scores) > 1:
        return f"it is in several queues: {', '.join(map(keys.queue_name, stored.scores))}"
    ((key, score),) = stored.scores.items()
    if keys.queue_name(key) != job.queue:
        return f"it is in the queue {keys.queue_name(key)}"
    if stored.result is not None:
        return "it has a result, though it is in its queue"
    # A claim that only ends a job counts, and writes no start.
    if in_stock_queue or stored.tries > job.tries:
        return None
    if stored.tries < job.tries:
        return f"{stored.tries} attempts are counted, though there were {job.tries}"
    if job.state == "running":
        return while_running(job, stored, score)
    return while_waiting(job, stored, score)


def while_running(job: Job, stored: StoredJob, score: float) -> str | None:
    if stored.token is None:
        # Its worker is lost, which the lease in its score still tells; a request to abort overwrites the score.
        return None if is_leased(score) or stored.has_abort else "no worker has it"
    holder = stored.token.decode(errors="replace").rpartition(":")[0]
    return None if holder == job.worker else f"another claim holds it: {stored.token.decode(errors='replace')}"


def while_waiting(job: Job, stored: StoredJob, score: float) -> str | None:
    if stored.token is not None:
        return f"a claim holds it: {stored.token.decode(errors='replace')}"
    if is_leased(score):
        return "it is leased"
    if score > job.due_at_ms or (score < job.due_at_ms and not stored.has_abort):
        return f"it is due at {score:.0f}, by its events at {job.due_at_ms}"
    return None


def after_the_end(job: Job, stored: StoredJob, *, in_stock_queue: bool) -> Oddity | str | None:
    if stored.scores and stored.result is None and is_younger(stored.body_tail, job.event_id):
        return Oddity.REENQUEUED
    if stored.scores:
        return f"it is still in the queue {', '.join(map(keys.queue_name, stored.scores))}"
    if stored.body_tail is not None:
        return "its body is still there"
    if in_stock_queue:
        return None
    if stored.token is not None:
        return f"a claim still holds it: {stored.token.decode(errors='replace')}"
    if stored.tries:
        return "its attempts are still counted"
    if stored.outcome is None:
        return None
    state, attempt = stored.outcome
    # A cancellation that nobody asked for is a failure of that type.
    if state != job.state and (state, job.state) != ("aborted", "failed"):
        return f"its result says {state}"
    if attempt != job.attempt:
        return f"its result is of attempt {attempt}, its end of attempt {job.attempt}"
    return None


def is_younger(body_tail: bytes | None, event_id: str) -> bool:
    """Whether a body may have been enqueued after an event: in the same ms, or its enqueue time cannot be read."""
    if body_tail is None:
        return False
    found = ENQUEUED_AT.search(body_tail)
    return found is None or int(found[1]) >= int(event_id.partition("-")[0])


def is_leased(score: float) -> bool:
    return score != int(score)
