"""Errors as RFC 9457 problems: one table, used for every route."""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.openapi.datastructures import ResponseSpec

from bridge.broker import is_away
from bridge.errors import (
    AegisError,
    ConfigurationError,
    CrossSiteRequest,
    DuplicateJob,
    Forbidden,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidQueueType,
    InvalidRequest,
    InvalidTaskName,
    JobNotFound,
    PayloadError,
    RateLimited,
    RequestTooLarge,
    RequestTooSlow,
    RetryRefused,
    StoreUnreachable,
    TooManyStreams,
    Unauthorized,
    UnsupportedMediaType,
    WrongHost,
)
from bridge.gateway.request_log import request_id_of

__all__ = ["EXCEPTION_HANDLERS", "UNKNOWN_QUEUE_IN_PATH", "UNREACHABLE", "Problem", "from_no_file", "problem_spec"]

logger = logging.getLogger("aegis.gateway")

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
LIMIT_CHARS: Final = 2000
"""A caller's own megabyte is not sent back to it."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller gets instead of an answer (RFC 9457).

    Attributes:
        type: identifies the kind of problem; its last part is ``code``.
        code: the same, for programs: ``invalid_arguments``.
        path: the field that is wrong, ``$.kwargs.delay_ms``.
        available_tasks: what ``task_name`` could have been.
        available_queues: what ``queue_type`` could have been.
        task_id, task_name, queue_type: what was asked for.
        limit_bytes: the largest body that is accepted.
        needed_scope: what the token lacks.
        rate: how many requests are allowed, ``100/s``.
        allowed: the methods that this address knows.
        retry_after_seconds: when the next request is admitted.
        request_id: of the request, as in the header ``X-Request-ID`` and in the logs.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    path: str | None = None
    available_tasks: list[str] | None = None
    available_queues: list[str] | None = None
    task_id: str | None = None
    task_name: str | None = None
    queue_type: str | None = None
    limit_bytes: int | None = None
    needed_scope: str | None = None
    rate: str | None = None
    allowed: list[str] | None = None
    retry_after_seconds: float | None = None
    request_id: str | None = None


STATUSES: Final[Mapping[type[Exception], tuple[HTTPStatus, str]]] = {
    InvalidRequest: (HTTPStatus.BAD_REQUEST, "invalid_request"),
    InvalidTaskName: (HTTPStatus.BAD_REQUEST, "invalid_task_name"),
    InvalidQueueType: (HTTPStatus.BAD_REQUEST, "invalid_queue_type"),
    InvalidArguments: (HTTPStatus.BAD_REQUEST, "invalid_arguments"),
    Unauthorized: (HTTPStatus.UNAUTHORIZED, "unauthorized"),
    Forbidden: (HTTPStatus.FORBIDDEN, "forbidden"),
    CrossSiteRequest: (HTTPStatus.FORBIDDEN, "cross_site_request"),
    DuplicateJob: (HTTPStatus.CONFLICT, "duplicate_job"),
    IdempotencyKeyReused: (HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
    JobNotFound: (HTTPStatus.NOT_FOUND, "job_not_found"),
    RetryRefused: (HTTPStatus.CONFLICT, "retry_refused"),
    UnsupportedMediaType: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
    RequestTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_too_large"),
    RequestTooSlow: (HTTPStatus.REQUEST_TIMEOUT, "request_too_slow"),
    WrongHost: (HTTPStatus.MISDIRECTED_REQUEST, "wrong_host"),
    RateLimited: (HTTPStatus.TOO_MANY_REQUESTS, "rate_limited"),
    PayloadError: (HTTPStatus.BAD_GATEWAY, "undecodable_payload"),
    StoreUnreachable: (HTTPStatus.SERVICE_UNAVAILABLE, "store_unreachable"),
    TooManyStreams: (HTTPStatus.SERVICE_UNAVAILABLE, "too_many_streams"),
    ConfigurationError: (HTTPStatus.INTERNAL_SERVER_ERROR, "configuration_error"),
}
"""Error -> status and code; the nearest class in the error's own line of descent counts."""


def problem_spec(description: str) -> ResponseSpec:
    """How OpenAPI tells that a route may answer with a problem."""
    return ResponseSpec(Problem, description=description, media_type=MEDIA_TYPE)


UNREACHABLE: Final[dict[int, ResponseSpec]] = {
    HTTPStatus.SERVICE_UNAVAILABLE: problem_spec("Redis does not answer now; try again")
}


def problem(
    request: Request[Any, Any, Any], status: HTTPStatus, code: str, detail: str, **facts: Any
) -> Response[Problem]:
    facts["request_id"] = request_id_of(request.scope)
    known = {name: cut(value) for name, value in facts.items() if name in Problem.__struct_fields__}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    content = Problem(
        type=f"urn:aegis-tasks:problem:{code}",
        title=status.phrase,
        status=status,
        detail=cut(detail),
        code=code,
        **known,
    )
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def cut(fact: Any) -> Any:
    return f"{fact[:LIMIT_CHARS]}…" if isinstance(fact, str) and len(fact) > LIMIT_CHARS else fact


def from_our_error(request: Request[Any, Any, Any], error: AegisError) -> Response[Problem]:
    status, code = next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)
    response = problem(request, status, code, str(error), **vars(error))
    response.headers.update(headers_of(error))
    return response


def headers_of(error: AegisError) -> dict[str, str]:
    """What HTTP wants beside the status."""
    match error:
        case Unauthorized():
            return {"WWW-Authenticate": "Bearer" if error.is_missing else 'Bearer error="invalid_token"'}
        case Forbidden():
            return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.needed_scope}"'}
        case RateLimited():
            return {"Retry-After": str(math.ceil(error.retry_after_seconds))}
        case RequestTooSlow():
            return {"Connection": "close"}
        case _:
            return {}


def from_unknown_queue_in_path(request: Request[Any, Any, Any], error: InvalidQueueType) -> Response[Problem]:
    """404: where the queue is in the path, nothing is at that address."""
    code = STATUSES[InvalidQueueType][1]
    return problem(request, HTTPStatus.NOT_FOUND, code, str(error), **vars(error))


def from_store(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    logger.warning("Redis is away: %s", error, extra={"request_id": request_id_of(request.scope)})
    detail = "Redis does not answer now; the same request may succeed in a moment"
    return problem(request, HTTPStatus.SERVICE_UNAVAILABLE, "store_unreachable", detail)


def from_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """What the framework refuses by itself; the status' name is the code."""
    if isinstance(error, InternalServerException) and error.detail == "client disconnected prematurely":
        # So Litestar calls chunks that are none, too.
        return problem(request, HTTPStatus.BAD_REQUEST, "invalid_request", "the body breaks off", path="$")
    status = HTTPStatus(error.status_code)
    response = problem(request, status, status.name.lower(), error.detail or status.phrase)
    response.headers.update(error.headers or {})
    return response


def from_no_file(request: Request[Any, Any, Any], _: Exception) -> Response[Problem]:
    """404: no file has such a name."""
    return from_litestar(request, NotFoundException())


def from_wrong_method(request: Request[Any, Any, Any], error: MethodNotAllowedException) -> Response[Problem]:
    headers = error.headers or {}
    allowed = next((value.split(", ") for name, value in headers.items() if name.lower() == "allow"), [])
    detail = f"{request.method} does not work here; {', '.join(allowed)} do"
    response = problem(request, HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", detail, allowed=allowed)
    response.headers.update(headers)
    return response


def from_parameter(request: Request[Any, Any, Any], error: ValidationException) -> Response[Problem]:
    """The first parameter of the path or the query that is not what its route takes."""
    code = STATUSES[InvalidRequest][1]
    for wrong in error.extra if isinstance(error.extra, list) else []:
        name, message = wrong.get("key", "$"), wrong.get("message", "")
        return problem(request, HTTPStatus.BAD_REQUEST, code, f"{name}: {message[:1].lower()}{message[1:]}", path=name)
    return problem(request, HTTPStatus.BAD_REQUEST, code, error.detail, path="$")


def from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    if is_away(error):
        return from_store(request, error)
    told = {"request_id": request_id_of(request.scope)}
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error, extra=told)
    detail = "This is a bug of the gateway; its log has the details"
    return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail)


EXCEPTION_HANDLERS: Final[dict[int | type[Exception], Any]] = {
    AegisError: from_our_error,
    HTTPException: from_litestar,
    MethodNotAllowedException: from_wrong_method,
    ValidationException: from_parameter,
    Exception: from_anything,
}
UNKNOWN_QUEUE_IN_PATH: Final[dict[int | type[Exception], Any]] = {InvalidQueueType: from_unknown_queue_in_path}
"""For the routes that have a queue in their path."""
