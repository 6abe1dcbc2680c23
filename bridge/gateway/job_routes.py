"""``/api/v1/tasks/…``: one job: its status, its result, its events; abort it, run it again."""

from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from bridge.backend import AbortAnswer, RetryAnswer
from bridge.events import Event
from bridge.gateway.access import caller_of, needs
from bridge.gateway.optional_body import BAD_BODY, body_operation, read_optional_body
from bridge.gateway.problems import UNREACHABLE, problem_spec
from bridge.inspector import JobResult, JobStatus
from bridge.redis_backend import RedisBackend

__all__ = ["job_routes"]

LONGEST_WAIT_S: Final = 60
NOT_READ: Final[dict[int, ResponseSpec]] = {
    HTTPStatus.BAD_REQUEST: problem_spec("The id or a parameter cannot be read"),
    HTTPStatus.NOT_FOUND: problem_spec("Nothing is known of this id"),
    HTTPStatus.BAD_GATEWAY: problem_spec("What is stored under this id was not written by our codec"),
    **UNREACHABLE,
}


class AbortRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An abort; ``reason`` is told in the event of it."""

    reason: Annotated[str, Meta(max_length=1000)] | None = None


def job_routes(backend: RedisBackend) -> Router:
    """The routes, bound to what they need."""

    @get("/status/{task_id:str}", summary="A job's status", responses=NOT_READ, opt=needs("tasks:read"))
    async def status(task_id: FromPath[str]) -> JobStatus:
        """What is known of a job now, and the event id from which to follow it."""
        return await backend.status(task_id)

    @get(
        "/result/{task_id:str}",
        summary="A job's result",
        opt=needs("tasks:read"),
        responses={HTTPStatus.ACCEPTED: ResponseSpec(JobResult, description="Not finished yet"), **NOT_READ},
    )
    async def result(
        task_id: FromPath[str],
        wait: Annotated[
            float,
            QueryParameter(ge=0, le=LONGEST_WAIT_S, description="Answer when the job ends, or after so many seconds."),
        ] = 0,
    ) -> Response[JobResult]:
        """The return value or the error of a job that has ended; 202 with its status before."""
        found = await backend.result(task_id, wait_s=wait)
        return Response(found, status_code=HTTPStatus.OK if found.is_final else HTTPStatus.ACCEPTED)

    @post(
        "/{task_id:str}/abort",
        status_code=HTTPStatus.OK,
        summary="Abort a job",
        opt=needs("tasks:write"),
        operation_class=body_operation(AbortRequest, with_a_reason={"reason": "sent twice"}),
        responses={**NOT_READ, **BAD_BODY},
    )
    async def abort(task_id: FromPath[str], request: Request[Any, Any, Any]) -> AbortAnswer:
        """A job that waits ends now; of one that runs the worker is asked to cancel it."""
        asked = await read_optional_body(request, AbortRequest, backend.settings.max_body_bytes)
        return await backend.abort(task_id, reason=asked.reason, by=caller_of(request.scope).name)

    @post(
        "/{task_id:str}/retry",
        status_code=HTTPStatus.OK,
        summary="Run a failed job again",
        opt=needs("tasks:write"),
        responses={**NOT_READ, HTTPStatus.CONFLICT: problem_spec("It has not failed, or cannot be run again")},
    )
    async def retry(task_id: FromPath[str]) -> RetryAnswer:
        """Puts it back into its queue: same id, same arguments, first attempt."""
        return await backend.retry(task_id)

    @get(
        "/{task_id:str}/events",
        summary="A job's events",
        opt=needs("events:read"),
        responses={HTTPStatus.BAD_REQUEST: problem_spec("The id cannot be read"), **UNREACHABLE},
    )
    async def job_events(task_id: FromPath[str]) -> list[Event]:
        """The events of this job that the stream still has, oldest first."""
        return await backend.job_events(task_id)

    return Router("/api/v1/tasks", route_handlers=[status, result, abort, retry, job_events], tags=["jobs"])
