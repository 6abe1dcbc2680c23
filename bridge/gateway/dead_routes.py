"""``/api/v1/dead`` and ``/api/v1/queues/{queue}/dead``: dead letters by filter; run them again, or forget them."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from msgspec import Meta

from bridge.backend import DeadPage, DeadStep
from bridge.dead_letters import DeadFilter
from bridge.errors import InvalidRequest
from bridge.gateway.access import needs
from bridge.gateway.optional_body import BAD_BODY, body_operation, read_optional_body
from bridge.gateway.problems import UNKNOWN_QUEUE_IN_PATH, UNREACHABLE, problem_spec
from bridge.gateway.queue_routes import NO_QUEUE, Cursor, Limit
from bridge.redis_backend import RedisBackend

__all__ = ["dead_routes"]

LONGEST_AGE_S: Final = 1_000_000_000
MOST_IDS: Final = 1000
Task = Annotated[str | None, QueryParameter(description="Only those of this task.")]
ErrorType = Annotated[str | None, QueryParameter(description="Only with an exception of this class.")]
OlderThan = Annotated[
    float | None, QueryParameter(ge=0, le=LONGEST_AGE_S, description="Failed at least so many seconds ago.")
]
NewerThan = Annotated[
    float | None, QueryParameter(ge=0, le=LONGEST_AGE_S, description="Failed at most so many seconds ago.")
]
Ids = Annotated[
    list[str] | None, QueryParameter(max_items=MOST_IDS, description="Only these jobs; repeat it for each.")
]
Traceback = Annotated[bool, QueryParameter(description="Tell the worker's traceback too.")]
BAD_PARAMETER: Final[dict[int, ResponseSpec]] = {HTTPStatus.BAD_REQUEST: problem_spec("A parameter cannot be read")}
BAD_FILTER: Final[dict[int, ResponseSpec]] = {
    **NO_QUEUE,
    **BAD_BODY,
    HTTPStatus.BAD_REQUEST: problem_spec("The body cannot be read, or does not say which letters"),
}


class DeadRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters of a queue are meant; every filter that is given must fit.

    Attributes:
        task: its name.
        error_type: class name of the exception.
        older_than_seconds: failed at least so long ago.
        newer_than_seconds: failed at most so long ago.
        ids: of jobs, at most 1000.
        all: every one is meant; needed where no filter is given.
        cursor: ``next_cursor`` of the answer before, with the same filter.
    """

    task: str | None = None
    error_type: str | None = None
    older_than_seconds: Annotated[float, Meta(ge=0, le=LONGEST_AGE_S)] | None = None
    newer_than_seconds: Annotated[float, Meta(ge=0, le=LONGEST_AGE_S)] | None = None
    ids: Annotated[list[str], Meta(max_length=MOST_IDS)] | None = None
    all: bool = False
    cursor: str = ""


def dead_routes(backend: RedisBackend) -> list[Router]:
    """The routes, bound to what they need."""

    @get("/dead", summary="Dead letters of every queue", opt=needs("tasks:read"), responses=BAD_PARAMETER | UNREACHABLE)
    async def dead_of_all(
        task: Task = None,
        error_type: ErrorType = None,
        older_than_seconds: OlderThan = None,
        newer_than_seconds: NewerThan = None,
        ids: Ids = None,
        traceback: Traceback = False,
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> DeadPage:
        """Jobs that have failed for good, newest first; every filter that is given must fit."""
        wanted = filter_of(None, task, error_type, older_than_seconds, newer_than_seconds, ids)
        return await backend.dead_letters(wanted, cursor=cursor, limit=limit, with_traceback=traceback)

    @get("/", summary="A queue's dead letters", opt=needs("tasks:read"), responses=NO_QUEUE)
    async def dead_of_queue(
        queue: FromPath[str],
        task: Task = None,
        error_type: ErrorType = None,
        older_than_seconds: OlderThan = None,
        newer_than_seconds: NewerThan = None,
        ids: Ids = None,
        traceback: Traceback = False,
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> DeadPage:
        """Its jobs that have failed for good, newest first; every filter that is given must fit."""
        wanted = filter_of(queue, task, error_type, older_than_seconds, newer_than_seconds, ids)
        return await backend.dead_letters(wanted, cursor=cursor, limit=limit, with_traceback=traceback)

    operation = body_operation(
        DeadRequest,
        of_one_task={"task": "io_simulation_task", "newer_than_seconds": 3600},
        some={"ids": ["0198c5a1f2b87f3d8e64a7c0d1e2f3a4"]},
        every_one={"all": True},
    )

    async def handle(request: Request[Any, Any, Any], queue: str, how: Callable[..., Awaitable[DeadStep]]) -> DeadStep:
        asked = await read_optional_body(request, DeadRequest, backend.settings.max_body_bytes)
        wanted = filter_of(
            queue, asked.task, asked.error_type, asked.older_than_seconds, asked.newer_than_seconds, asked.ids
        )
        if wanted == DeadFilter(queue=queue) and not asked.all:
            raise InvalidRequest('say which letters, or {"all": true} for every one', path="$")
        return await how(wanted, cursor=asked.cursor)

    @post(
        "/retry",
        status_code=HTTPStatus.OK,
        summary="Run failed jobs again",
        opt=needs("admin"),
        operation_class=operation,
        responses=BAD_FILTER,
    )
    async def retry_dead(queue: FromPath[str], request: Request[Any, Any, Any]) -> DeadStep:
        """Looks at up to 1000 letters, oldest first, and puts their jobs back; send the cursor to go on."""
        return await handle(request, queue, backend.retry_some_dead)

    @post(
        "/purge",
        status_code=HTTPStatus.OK,
        summary="Forget failed jobs",
        opt=needs("admin"),
        operation_class=operation,
        responses=BAD_FILTER,
    )
    async def purge_dead(queue: FromPath[str], request: Request[Any, Any, Any]) -> DeadStep:
        """Looks at up to 1000 letters, oldest first, and removes them; results stay. Send the cursor to go on."""
        return await handle(request, queue, backend.purge_some_dead)

    of_queue = Router(
        "/api/v1/queues/{queue:str}/dead",
        route_handlers=[dead_of_queue, retry_dead, purge_dead],
        exception_handlers=UNKNOWN_QUEUE_IN_PATH,
        tags=["dead letters"],
    )
    return [Router("/api/v1", route_handlers=[dead_of_all], tags=["dead letters"]), of_queue]


def filter_of(
    queue: str | None,
    task: str | None,
    error_type: str | None,
    older_than_s: float | None,
    newer_than_s: float | None,
    ids: list[str] | None,
) -> DeadFilter:
    return DeadFilter(
        queue=queue,
        task=task,
        error_type=error_type,
        older_than_s=older_than_s,
        newer_than_s=newer_than_s,
        ids=ids,
    )
