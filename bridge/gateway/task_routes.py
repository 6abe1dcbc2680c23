"""``/api/v1/tasks``: list the tasks, enqueue one."""

from dataclasses import dataclass
from http import HTTPStatus
from inspect import getdoc
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.exceptions import ClientException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema

from bridge.backend import TaskList
from bridge.enqueue import Enqueued, TaskRequest, parse_request
from bridge.errors import RequestTooLarge, UnsupportedMediaType
from bridge.gateway.access import caller_of, needs
from bridge.gateway.problems import UNREACHABLE, problem_spec
from bridge.redis_backend import RedisBackend

__all__ = ["task_routes"]

PATH = "/api/v1/tasks"


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


def task_routes(backend: RedisBackend, *, max_body_bytes: int) -> Router:
    """The routes, bound to what they need."""

    @get("/", summary="List the tasks", opt=needs("tasks:read"))
    async def list_tasks() -> TaskList:
        """Every task with its queue and the JSON Schema of its arguments."""
        return await backend.tasks()

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
        enqueued = await backend.enqueue(parse_request(body), caller=caller_of(request.scope).name)
        location = f"{PATH}/status/{quote(enqueued.task_id, safe='')}"
        return Response(enqueued, headers={"Location": location})

    return Router(PATH, route_handlers=[list_tasks, enqueue], tags=["tasks"])


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
