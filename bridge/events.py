"""What can happen to a job, and how each happening is written into the stream ``aegis:events``.

A stream entry is flat, every value a string: ``kind``, ``job_id``, ``queue``, ``task``, ``attempt``,
``at_ms``, ``data`` (a JSON object) always; ``worker`` and ``trace`` where they are known. The entry's
stream id is the event's id everywhere. ``data`` is one of the Structs below, chosen by the kind.
Consumers ignore kinds and fields they do not know. ``docs/reference/events.md`` is the table for
people; a test compares the two.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from bridge.errors import UndecodablePayload

__all__ = [
    "KINDS",
    "RESULT_LIMIT_BYTES",
    "STOCK_WORKER_MARK",
    "TERMINAL_KINDS",
    "ErrorSummary",
    "Event",
    "JobAborted",
    "JobDeferred",
    "JobEnqueued",
    "JobFailed",
    "JobProgressed",
    "JobRetrying",
    "JobStarted",
    "JobSucceeded",
    "QueuePaused",
    "QueueResumed",
    "StreamGap",
    "SubscriptionDisabled",
    "SubscriptionExhausted",
    "WorkerLost",
    "WorkerStarted",
    "WorkerStopped",
    "decode_entry",
    "encode_data",
]

RESULT_LIMIT_BYTES: Final = 64 * 1024
"""Larger results are not repeated in the event; it carries ``result_url`` instead."""
STOCK_WORKER_MARK: Final = "arq-"
"""Begins the random part of the id of a worker that runs under the stock ``arq`` command."""


class ErrorSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An exception without its traceback: what consumers outside may see."""

    type: str
    message: str


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The ``data`` of an event. A field that may be missing is declared with `UNSET`."""


class JobEnqueued(EventData, frozen=True, kw_only=True):
    """A job is ready to run."""

    due_at_ms: int
    reason: str | UnsetType = UNSET


class JobDeferred(EventData, frozen=True, kw_only=True):
    """A job is stored for later."""

    due_at_ms: int


class JobStarted(EventData, frozen=True, kw_only=True):
    """A worker owns this attempt."""

    enqueued_at_ms: int
    queued_ms: int


class JobProgressed(EventData, frozen=True, kw_only=True):
    """The task reported progress."""

    current: float
    total: float | UnsetType = UNSET
    message: str | UnsetType = UNSET


class JobRetrying(EventData, frozen=True, kw_only=True):
    """This attempt ended; another will follow."""

    reason: Literal["error", "retry", "timeout", "interrupted", "stalled"]
    due_at_ms: int
    error: ErrorSummary | UnsetType = UNSET


class JobSucceeded(EventData, frozen=True, kw_only=True):
    """The result is stored."""

    ran_ms: int
    queued_ms: int
    result: Any = UNSET
    result_url: str | UnsetType = UNSET


class JobFailed(EventData, frozen=True, kw_only=True):
    """No attempt is left."""

    reason: Literal[
        "error", "timeout", "tries_exhausted", "expired", "unknown_task", "undecodable", "invalid_arguments"
    ]
    error: ErrorSummary
    ran_ms: int


class JobAborted(EventData, frozen=True, kw_only=True):
    """An abort took effect."""

    was: str
    by: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class QueuePaused(EventData, frozen=True, kw_only=True):
    """An operator stopped new jobs of a queue from starting."""

    by: str | UnsetType = UNSET


class QueueResumed(EventData, frozen=True, kw_only=True):
    """An operator let a paused queue go on."""

    by: str | UnsetType = UNSET


class WorkerEventData(EventData, frozen=True, kw_only=True):
    """What all worker events carry."""

    host: str
    pid: int
    queue: str
    max_jobs: int


class WorkerStarted(WorkerEventData, frozen=True, kw_only=True):
    """A worker process came."""


class WorkerStopped(WorkerEventData, frozen=True, kw_only=True):
    """A worker process went, on its own account."""


class WorkerLost(WorkerEventData, frozen=True, kw_only=True):
    """A worker process missed its heartbeats."""


class SubscriptionDisabled(EventData, frozen=True, kw_only=True):
    """A sink was switched off."""

    subscription: str
    status: int | UnsetType = UNSET
    attempts: int | UnsetType = UNSET


class SubscriptionExhausted(EventData, frozen=True, kw_only=True):
    """A delivery ran out of attempts."""

    subscription: str
    status: int | UnsetType = UNSET
    attempts: int | UnsetType = UNSET


class StreamGap(EventData, frozen=True, kw_only=True, rename={"from_id": "from", "to_id": "to"}):
    """Entries after a reader's cursor were trimmed. Only told to that reader; never in the stream."""

    from_id: str
    to_id: str


KINDS: Final[dict[str, type[EventData]]] = {
    "job.enqueued": JobEnqueued,
    "job.deferred": JobDeferred,
    "job.started": JobStarted,
    "job.progressed": JobProgressed,
    "job.retrying": JobRetrying,
    "job.succeeded": JobSucceeded,
    "job.failed": JobFailed,
    "job.aborted": JobAborted,
    "queue.paused": QueuePaused,
    "queue.resumed": QueueResumed,
    "worker.started": WorkerStarted,
    "worker.stopped": WorkerStopped,
    "worker.lost": WorkerLost,
    "subscription.disabled": SubscriptionDisabled,
    "subscription.exhausted": SubscriptionExhausted,
    "stream.gap": StreamGap,
}
"""Every kind of event of ours, with the Struct of its ``data``."""

TERMINAL_KINDS: Final = frozenset({"job.succeeded", "job.failed", "job.aborted"})
"""After one of these nothing more happens to a job, unless it is enqueued again."""

KIND_OF: Final = {data_type: kind for kind, data_type in KINDS.items()}

as_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the stream, as readers get it; in JSON every field is there, also an empty one."""

    id: str
    kind: str
    job_id: str = ""
    queue: str = ""
    task: str = ""
    attempt: int = 0
    at_ms: int = 0
    worker: str = ""
    trace: str = ""
    data: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))

    def read_data(self) -> EventData | dict[str, Any]:
        """``data`` as the Struct of the kind; a plain dict for a kind that is not ours.

        Raises:
            UndecodablePayload: it is not what the kind promises.
        """
        expected: Any = KINDS.get(self.kind, dict[str, Any])
        try:
            data: EventData | dict[str, Any] = msgspec.json.decode(self.data, type=expected)
            return data
        except msgspec.MsgspecError as error:
            raise UndecodablePayload(f"event {self.id}: the data of a {self.kind}: {error}") from None


def encode_data(data: EventData) -> tuple[str, bytes]:
    """The kind and the JSON of an event's data."""
    return KIND_OF[type(data)], msgspec.json.encode(data)


def decode_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    """The event in a stream entry, as `redis` returns it; fields we do not know are ignored."""
    return Event(
        id=entry_id.decode(),
        kind=text(fields, b"kind"),
        job_id=text(fields, b"job_id"),
        queue=text(fields, b"queue"),
        task=text(fields, b"task"),
        attempt=number(fields, b"attempt"),
        at_ms=number(fields, b"at_ms"),
        worker=text(fields, b"worker"),
        trace=text(fields, b"trace"),
        data=msgspec.Raw(one_line(fields.get(b"data") or b"{}")),
    )


def one_line(data: bytes) -> bytes:
    """The JSON object on one line, as readers are promised it; ``{}`` for what somebody else wrote that is none."""
    try:
        data.decode()
        as_object.decode(data)
        return data if b"\n" not in data and b"\r" not in data else msgspec.json.format(data, indent=-1)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return b"{}"


def text(fields: Mapping[bytes, bytes], name: bytes) -> str:
    return fields.get(name, b"").decode(errors="replace")


def number(fields: Mapping[bytes, bytes], name: bytes) -> int:
    digits = fields.get(name, b"")
    return int(digits) if digits.isdigit() else 0
