"""``/api/v1/tasks/…``: a job's status and result."""

from http import HTTPStatus

from litestar import Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from bridge.gateway.access import needs
from bridge.gateway.problems import UNREACHABLE, problem_spec
from bridge.inspector import JobResult, JobStatus
from bridge.redis_backend import RedisBackend

__all__ = ["job_routes"]

NOT_READ: dict[int, ResponseSpec] = {
    HTTPStatus.BAD_REQUEST: problem_spec("The id cannot be read"),
    HTTPStatus.NOT_FOUND: problem_spec("Nothing is known of this id"),
    HTTPStatus.BAD_GATEWAY: problem_spec("What is stored under this id was not written by our codec"),
    **UNREACHABLE,
}


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
    async def result(task_id: FromPath[str]) -> Response[JobResult]:
        """The return value or the error of a job that has ended; 202 with its status before."""
        found = await backend.result(task_id)
        return Response(found, status_code=HTTPStatus.OK if found.is_final else HTTPStatus.ACCEPTED)

    return Router("/api/v1/tasks", route_handlers=[status, result], tags=["jobs"])
