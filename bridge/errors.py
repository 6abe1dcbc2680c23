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
    │   ├── RequestTooLarge          the body is over the limit
    │   ├── RequestTooSlow           the body does not come in time
    │   ├── Unauthorized             no valid token came with the request
    │   ├── Forbidden                the token lacks the scope
    │   ├── WrongHost                an open gateway was asked by a name it does not know
    │   ├── CrossSiteRequest         another site's page sent it to an open gateway
    │   ├── RateLimited              the caller has sent too many requests
    │   ├── TokenExists              a token has this name
    │   └── TokenNotFound            no token has this name
    ├── PayloadError                 bytes in Redis that are not what they should be
    │   ├── UndecodablePayload       a job or result that our codec did not write
    │   └── ResultNotEncodable       a task returned something JSON cannot hold
    ├── TaskFailed                   a job's own exception, seen from outside its worker
    ├── ChildProcessDied             the process that ran a task ended without an answer
    ├── StoreUnreachable             Redis does not answer
    ├── GatewayUnreachable           the gateway that a client was told to use does not answer
    ├── GatewayProblem               it answers with an error that none of these stands for

    ├── TooManyStreams               this process serves as many clients of the event stream as it may
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
    "CrossSiteRequest",
    "DuplicateJob",
    "Forbidden",
    "GatewayProblem",
    "GatewayUnreachable",
    "IdempotencyKeyReused",
    "InvalidArguments",
    "InvalidQueueType",
    "InvalidRequest",
    "InvalidTaskName",
    "JobNotFound",
    "PayloadError",
    "RateLimited",
    "RequestError",
    "RequestTooLarge",
    "RequestTooSlow",
    "ResultNotEncodable",
    "RetryRefused",
    "StoreUnreachable",
    "TaskFailed",
    "TokenExists",
    "TokenNotFound",
    "TooManyStreams",
    "Unauthorized",
    "UndecodablePayload",
    "UnsupportedMediaType",
    "WrongHost",
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


class RequestTooSlow(RequestError):
    """The body has not come whole in time.

    Attributes:
        limit_s: how long it is waited for.
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the body did not come within {limit_s:g} s")
        self.limit_s = limit_s


class Unauthorized(RequestError):
    """The route needs a token, and none that is valid came with the request; the message does not repeat it.

    Attributes:
        is_missing: there was none at all.
    """

    def __init__(self, message: str, *, is_missing: bool) -> None:
        super().__init__(message)
        self.is_missing = is_missing


class Forbidden(RequestError):
    """The token is valid, but lacks the scope that the route needs.

    Attributes:
        needed_scope: that scope.
    """

    def __init__(self, name: str, *, needed_scope: str) -> None:
        super().__init__(f"the token {name!r} lacks the scope {needed_scope}")
        self.needed_scope = needed_scope


class WrongHost(RequestError):
    """A gateway that asks for no token answers only to names that it knows; see decision 0014.

    Attributes:
        host: the name in the request.
    """

    def __init__(self, host: str) -> None:
        super().__init__(
            f"this gateway asks for no token, so it does not answer to the name {host[:100]!r}: "
            "add it to AEGIS_ALLOWED_HOSTS, or make a token"
        )
        self.host = host


class CrossSiteRequest(RequestError):
    """A browser sent the request for a page of another site, and no token protects the gateway."""

    def __init__(self) -> None:
        super().__init__("a page of another site may change nothing here while no token is asked for")


class RateLimited(RequestError):
    """The caller has sent more requests than its limit allows.

    Attributes:
        rate: the limit, as in ``100/s``.
        retry_after_seconds: when the next one is admitted.
    """

    def __init__(self, rate: str, *, retry_after_seconds: float) -> None:
        super().__init__(f"more than {rate} requests; try again in {retry_after_seconds:.3g} s")
        self.rate = rate
        self.retry_after_seconds = retry_after_seconds


class TokenExists(RequestError):
    """A token has this name already.

    Attributes:
        name: that name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"a token named {name!r} exists: choose another name, or revoke it first")
        self.name = name


class TokenNotFound(RequestError):
    """No token has this name.

    Attributes:
        name: that name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no token named {name!r}; `aegis-tasks tokens list` shows them")
        self.name = name


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


class GatewayUnreachable(AegisError):
    """A gateway does not answer; the same request may succeed once it does.

    Attributes:
        address: where it was looked for.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"the gateway at {address} cannot be reached: {reason}")
        self.address = address
        self.reason = reason


class GatewayProblem(AegisError):
    """A gateway refuses, or answers with something that is not understood.

    Attributes:
        code: of the problem it told.
        status: of its HTTP answer.
    """

    def __init__(self, message: str, *, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class TooManyStreams(AegisError):
    """This process serves as many clients of the event stream as it may; the same request may succeed later."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"the event stream has {most} clients already: try again later, ask for pages of /api/v1/events, "
            "or raise AEGIS_MAX_STREAM_CLIENTS"
        )


class ConfigurationError(AegisError):
    """A setting or a queue definition is wrong; the message names it and says what would be right."""
