"""``/api/v1/tasks``: list the tasks, enqueue one, ask for its status and its result."""

from dataclasses import dataclass
from http import HTTPStatus
from inspect import getdoc
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.exceptions import ClientException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.params import FromPath

from bridge.backend import TaskList
from bridge.catalog import Catalog
from bridge.enqueue import Enqueued, Enqueuer, TaskRequest, parse_request
from bridge.errors import RequestTooLarge, UnsupportedMediaType
from bridge.gateway.access import needs
from bridge.gateway.problems import Problem
from bridge.inspector import Inspector, JobResult, JobStatus

__all__ = ["task_routes"]

PATH = "/api/v1/tasks"


def problem_spec(description: str) -> ResponseSpec:
    return ResponseSpec(Problem, description=description, media_type="application/problem+json")


UNREACHABLE: dict[int, ResponseSpec] = {
    HTTPStatus.SERVICE_UNAVAILABLE: problem_spec("Redis does not answer now; try again")
}
NOT_READ: dict[int, ResponseSpec] = {
    HTTPStatus.BAD_REQUEST: problem_spec("The id cannot be read"),
    HTTPStatus.NOT_FOUND: problem_spec("Nothing is known of this id"),
    HTTPStatus.BAD_GATEWAY: problem_spec("What is stored under this id was not written by our codec"),
    **UNREACHABLE,
}


class TaskRequestSchema(Schema):
    """The JSON Schema of `TaskRequest`, complete in itself."""

    def to_schema(self) -> dict[str, Any]:
        """The schema as msgspec sees it."""
        _, components = msgspec.json.schema_components([TaskRequest])
        return {**components["TaskRequest"], "description": getdoc(TaskRequest)}


@dataclass
class EnqueueOperation(Operation):
    """The body is decoded by our own decoder, so OpenAPI has to be told of it."""

    def __post_init__(self) -> None:
        example = {"task_name": "io_simulation_task", "queue_type": "load_test", "kwargs": {"delay_ms": 50}}
        self.request_body = RequestBody(
            content={"application/json": OpenAPIMediaType(schema=TaskRequestSchema(), example=example)}, required=True
        )


def task_routes(catalog: Catalog, enqueuer: Enqueuer, inspector: Inspector, *, max_body_bytes: int) -> Router:
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

    @post(
        "/enqueue",
        status_code=HTTPStatus.ACCEPTED,
        summary="Enqueue a task",
        opt=needs("tasks:write"),
        operation_class=EnqueueOperation,
        responses={
            HTTPStatus.BAD_REQUEST: problem_spec("Unknown task or queue, wrong argument, or not JSON"),
            HTTPStatus.CONFLICT: problem_spec("The chosen task_id exists"),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE: problem_spec("The body is over the limit"),
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE: problem_spec("The body is not declared as application/json"),
            **UNREACHABLE,
        },
    )
    async def enqueue(request: Request[Any, Any, Any]) -> Response[Enqueued]:
        """Checks the arguments against the task's signature and stores the job, with its event, in Redis."""
        body = await read_json_body(request, max_body_bytes)
        enqueued = await enqueuer.enqueue(parse_request(body))
        location = f"{PATH}/status/{quote(enqueued.task_id, safe='')}"
        return Response(enqueued, headers={"Location": location})

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

    return Router(PATH, route_handlers=[list_tasks, enqueue, status, result], tags=["tasks"])


async def read_json_body(request: Request[Any, Any, Any], max_body_bytes: int) -> bytes:
    """The body, if it says that it is JSON and is not too large.

    A browser sends ``application/json`` to another site only after asking it first, which the gateway
    does not allow: so a page elsewhere cannot enqueue tasks on a developer's machine.

    Raises:
        UnsupportedMediaType: the content type is another.
        RequestTooLarge: the body is over the limit.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"send Content-Type: application/json, not {media_type or 'none'}")
    try:
        return await request.body()
    except ClientException as error:
        if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise RequestTooLarge(max_body_bytes) from None
        raise
