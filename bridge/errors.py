"""Every error this project raises, by who can act on it.

::

    AegisError
    ├── RequestError                 the caller sent something that cannot be done
    │   ├── InvalidRequest           not JSON, or not of the documented shape
    │   ├── InvalidTaskName          no such task, or not on that queue
    │   ├── InvalidQueueType         no such queue
    │   ├── InvalidArguments         the task's signature does not accept these
    │   ├── DuplicateJob             the chosen id belongs to a live job or a kept result
    │   ├── IdempotencyKeyReused     another request of this caller had the same idempotency key
    │   ├── JobNotFound              nothing is known of that id
    │   ├── RetryRefused             the job has not failed, or cannot be run again
    │   ├── UnsupportedMediaType     the body is not declared as what the route takes
    │   └── RequestTooLarge          the body is over the limit
    ├── PayloadError                 bytes in Redis that are not what they should be
    │   ├── UndecodablePayload       a job or result that our codec did not write
    │   └── ResultNotEncodable       a task returned something JSON cannot hold
    ├── TaskFailed                   a job's own exception, seen from outside its worker
    ├── ChildProcessDied             the process that ran a task ended without an answer
    ├── StoreUnreachable             Redis does not answer
    └── ConfigurationError           the settings or a queue definition are wrong

Facts are attributes, never parsed out of the message. ``bridge.gateway.problems`` turns the tree
into HTTP problems, ``cli.exit_codes`` into exit codes; nothing else translates.
"""

import copyreg
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

__all__ = [
    "AegisError",
    "ChildProcessDied",
    "ConfigurationError",
    "DuplicateJob",
    "IdempotencyKeyReused",
    "InvalidArguments",
    "InvalidQueueType",
    "InvalidRequest",
    "InvalidTaskName",
    "JobNotFound",
    "PayloadError",
    "RequestError",
    "RequestTooLarge",
    "ResultNotEncodable",
    "RetryRefused",
    "StoreUnreachable",
    "TaskFailed",
    "UndecodablePayload",
    "UnsupportedMediaType",
]


class AegisError(Exception):
    """The root: catch it to catch everything this project raises on purpose."""

    def __reduce__(self) -> Any:
        """Pickles without calling ``__init__`` anew, whose arguments are not those of `Exception`."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class RequestError(AegisError):
    """The caller sent something that cannot be done; sending it again changes nothing."""


class InvalidRequest(RequestError):
    """The request is not JSON, or not of the documented shape.

    Attributes:
        path: where in the document, as msgspec writes it (``$.delay_seconds``); ``$`` for the whole.
    """

    def __init__(self, message: str, *, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class InvalidTaskName(RequestError):
    """No queue has this task, or the queue that was asked for does not.

    Attributes:
        task_name: what was asked for.
        available_tasks: the names that would have been accepted.
    """

    def __init__(self, message: str, *, task_name: str, available_tasks: Sequence[str]) -> None:
        super().__init__(message)
        self.task_name = task_name
        self.available_tasks = list(available_tasks)


class InvalidQueueType(RequestError):
    """There is no such queue.

    Attributes:
        queue_type: what was asked for.
        available_queues: the names that would have been accepted.
    """

    def __init__(self, queue_type: str, *, available_queues: Sequence[str]) -> None:
        super().__init__(f"there is no queue {queue_type!r}; queues: {', '.join(available_queues) or 'none'}")
        self.queue_type = queue_type
        self.available_queues = list(available_queues)


class InvalidArguments(RequestError):
    """The task's signature does not accept these arguments.

    Attributes:
        task_name: the task they were meant for.
        path: the argument, as msgspec writes it (``$.kwargs.delay_ms``, ``$.args[0]``).
    """

    def __init__(self, message: str, *, task_name: str, path: str) -> None:
        super().__init__(message)
        self.task_name = task_name
        self.path = path


class DuplicateJob(RequestError):
    """The chosen id belongs to a job that is not finished, or whose result is still kept.

    Attributes:
        task_id: that id.
    """

    def __init__(self, task_id: str) -> None:
        super().__init__(f"a job with the id {task_id!r} exists; choose another id, or wait until its result expires")
        self.task_id = task_id


class IdempotencyKeyReused(RequestError):
    """The same caller has sent another request with this idempotency key within the last day."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key was used for another request; each request needs a key of its own")


class JobNotFound(RequestError):
    """Nothing is known of this id: it never existed, or its result has expired.

    Attributes:
        task_id: that id.
    """

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no job {task_id!r}: it never existed, or its result has expired")
        self.task_id = task_id


class RetryRefused(RequestError):
    """The job has not failed, or it cannot be run again; the message says which, and what to do.

    Attributes:
        task_id: its id.
    """

    def __init__(self, message: str, *, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class UnsupportedMediaType(RequestError):
    """The body is not declared as what the route takes."""


class RequestTooLarge(RequestError):
    """The body is over the limit.

    Attributes:
        limit_bytes: the largest body that is accepted.
    """

    def __init__(self, limit_bytes: int, setting: str = "AEGIS_MAX_BODY_BYTES") -> None:
        super().__init__(f"the body is larger than {limit_bytes} bytes; raise {setting} to allow more")
        self.limit_bytes = limit_bytes


class PayloadError(AegisError):
    """Bytes in Redis that are not what they should be."""


class UndecodablePayload(PayloadError):
    """A job or a result that our codec did not write; it is never executed."""


class ResultNotEncodable(PayloadError):
    """A task returned something that JSON cannot hold; its job fails with this message."""


class TaskFailed(AegisError):
    """A job's own exception, seen from outside its worker.

    Attributes:
        type: the exception's class name.
        message: its text.
        traceback: the worker's traceback, empty when it is not known.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:
        super().__init__(f"{type}: {message}" if message else type)
        self.type = type
        self.message = message
        self.traceback = traceback


class ChildProcessDied(AegisError):
    """A task's process ended without an answer: killed from outside, out of memory, or by ``os._exit``.

    Attributes:
        task_name: the task it was running.
        exit_code: of the process; a negative number is the signal that killed it.
    """

    def __init__(self, task_name: str, exit_code: int | None) -> None:
        super().__init__(task_name, exit_code)
        self.task_name = task_name
        self.exit_code = exit_code

    def __str__(self) -> str:
        how = f"with exit code {self.exit_code}"
        if self.exit_code is not None and self.exit_code < 0:
            with suppress(ValueError):  # a real-time signal has no name
                how = f"by {signal.Signals(-self.exit_code).name}"
            if self.exit_code == -9:  # SIGKILL, which Windows does not have
                how += ", perhaps for want of memory"
        return f"task {self.task_name}: its process ended without an answer, {how}"


class StoreUnreachable(AegisError):
    """Redis does not answer; the same request may succeed once it does.

    Attributes:
        address: where it was looked for, without credentials.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"Redis at {address} cannot be reached: {reason}")
        self.address = address
        self.reason = reason


class ConfigurationError(AegisError):
    """A setting or a queue definition is wrong; the message names it and says what would be right."""
