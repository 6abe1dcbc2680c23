"""Errors as RFC 9457 problems: one table, used for every route."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from bridge.broker import is_away
from bridge.errors import (
    AegisError,
    ConfigurationError,
    DuplicateJob,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidQueueType,
    InvalidRequest,
    InvalidTaskName,
    JobNotFound,
    PayloadError,
    RequestTooLarge,
    StoreUnreachable,
    UnsupportedMediaType,
)
from bridge.gateway.request_log import request_id_of

__all__ = ["EXCEPTION_HANDLERS", "Problem"]

logger = logging.getLogger("aegis.gateway")

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
DETAIL_LIMIT_CHARS: Final = 2000
"""A caller's own megabyte is not sent back to it."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller gets instead of an answer (RFC 9457).

    Attributes:
        type: identifies the kind of problem; its last part is ``code``.
        code: the same, for programs: ``invalid_arguments``.
        path: the field that is wrong, ``$.kwargs.delay_ms``.
        available_tasks: what ``task_name`` could have been.
        available_queues: what ``queue_type`` could have been.
        limit_bytes: the largest body that is accepted.
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
    limit_bytes: int | None = None
    request_id: str | None = None


STATUSES: Final[Mapping[type[Exception], tuple[HTTPStatus, str]]] = {
    InvalidRequest: (HTTPStatus.BAD_REQUEST, "invalid_request"),
    InvalidTaskName: (HTTPStatus.BAD_REQUEST, "invalid_task_name"),
    InvalidQueueType: (HTTPStatus.BAD_REQUEST, "invalid_queue_type"),
    InvalidArguments: (HTTPStatus.BAD_REQUEST, "invalid_arguments"),
    DuplicateJob: (HTTPStatus.CONFLICT, "duplicate_job"),
    IdempotencyKeyReused: (HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
    JobNotFound: (HTTPStatus.NOT_FOUND, "job_not_found"),
    UnsupportedMediaType: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
    RequestTooLarge: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_too_large"),
    PayloadError: (HTTPStatus.BAD_GATEWAY, "undecodable_payload"),
    StoreUnreachable: (HTTPStatus.SERVICE_UNAVAILABLE, "store_unreachable"),
    ConfigurationError: (HTTPStatus.INTERNAL_SERVER_ERROR, "configuration_error"),
}
"""Error -> status and code; the nearest class in the error's own line of descent counts."""


def problem(status: HTTPStatus, code: str, detail: str, **facts: Any) -> Response[Problem]:
    known = {name: value for name, value in facts.items() if name in Problem.__struct_fields__}
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    if len(detail) > DETAIL_LIMIT_CHARS:
        detail = f"{detail[:DETAIL_LIMIT_CHARS]}…"
    content = Problem(
        type=f"urn:aegis-tasks:problem:{code}", title=status.phrase, status=status, detail=detail, code=code, **known
    )
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def from_our_error(request: Request[Any, Any, Any], error: AegisError) -> Response[Problem]:
    status, code = next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)
    return problem(status, code, str(error), **vars(error), request_id=request_id_of(request.scope))


def from_store(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    request_id = request_id_of(request.scope)
    logger.warning("Redis is away: %s", error, extra={"request_id": request_id})
    detail = "Redis does not answer now; the same request may succeed in a moment"
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, "store_unreachable", detail, request_id=request_id)


def from_litestar(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    status = HTTPStatus(error.status_code)
    request_id = request_id_of(request.scope)
    response = problem(status, status.name.lower(), error.detail or status.phrase, request_id=request_id)
    response.headers.update(error.headers or {})
    return response


def from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    if is_away(error):
        return from_store(request, error)
    request_id = request_id_of(request.scope)
    told = {"request_id": request_id}
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error, extra=told)
    detail = "This is a bug of the gateway; its log has the details"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail, request_id=request_id)


EXCEPTION_HANDLERS: Final[dict[int | type[Exception], Any]] = {
    AegisError: from_our_error,
    HTTPException: from_litestar,
    Exception: from_anything,
}
