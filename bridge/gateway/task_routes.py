"""``/api/v1/tasks``: list the tasks, enqueue one, ask for its status and its result."""

from http import HTTPStatus

from litestar import Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from bridge.backend import TaskList
from bridge.catalog import Catalog
from bridge.enqueue import Enqueuer
from bridge.gateway.access import needs
from bridge.gateway.enqueue_routes import enqueue_routes, problem_spec
from bridge.inspector import Inspector, JobResult, JobStatus
from bridge.settings import Settings

__all__ = ["task_routes"]

PATH = "/api/v1/tasks"


UNREACHABLE: dict[int, ResponseSpec] = {
    HTTPStatus.SERVICE_UNAVAILABLE: problem_spec("Redis does not answer now; try again")
}
NOT_READ: dict[int, ResponseSpec] = {
    HTTPStatus.BAD_REQUEST: problem_spec("The id cannot be read"),
    HTTPStatus.NOT_FOUND: problem_spec("Nothing is known of this id"),
    HTTPStatus.BAD_GATEWAY: problem_spec("What is stored under this id was not written by our codec"),
    **UNREACHABLE,
}


def task_routes(catalog: Catalog, enqueuer: Enqueuer, inspector: Inspector, settings: Settings) -> Router:
    """The routes, bound to what they need."""

    @get("/", summary="List the tasks", opt=needs("tasks:read"))
    async def list_tasks() -> TaskList:
        """Every task with its queue and the JSON Schema of its arguments."""
        return TaskList(
            available_tasks=catalog.task_names(),
            total_count=len(catalog.task_names()),
            queues={queue.name: list(queue.tasks) for queue in catalog.queues.values()},
            tasks=[task.describe() for queue in catalog.queues.values() for task in queue.tasks.values()],
        )

    @get("/status/{task_id:str}", summary="A job's status", responses=NOT_READ, opt=needs("tasks:read"))
    async def status(task_id: FromPath[str]) -> JobStatus:
        """What is known of a job now, and the event id from which to follow it."""
        return await inspector.status(task_id)

    @get(
        "/result/{task_id:str}",
        summary="A job's result",
        opt=needs("tasks:read"),
        responses={HTTPStatus.ACCEPTED: ResponseSpec(JobResult, description="Not finished yet"), **NOT_READ},
    )
    async def result(task_id: FromPath[str]) -> Response[JobResult]:
        """The return value or the error of a job that has ended; 202 with its status before."""
        found = await inspector.result(task_id)
        return Response(found, status_code=HTTPStatus.OK if found.is_final else HTTPStatus.ACCEPTED)

    return Router(
        PATH, route_handlers=[list_tasks, *enqueue_routes(enqueuer, settings), status, result], tags=["tasks"]
    )
