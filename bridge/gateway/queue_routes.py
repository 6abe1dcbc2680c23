"""``/api/v1/queues``: the queues, their jobs; pause and resume."""

from http import HTTPStatus
from typing import Annotated, Any, Final, cast, get_args

from litestar import Request, Router, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter

from bridge.backend import JobPage, PauseAnswer, QueueList
from bridge.errors import InvalidRequest
from bridge.gateway.access import caller_of, needs
from bridge.gateway.problems import UNKNOWN_QUEUE_IN_PATH, UNREACHABLE, problem_spec
from bridge.inspector import QueueStatus, State
from bridge.redis_backend import RedisBackend

__all__ = ["LARGEST_PAGE", "Cursor", "Limit", "queue_routes"]

LARGEST_PAGE: Final = 1000
STATES: Final = get_args(State)
Cursor = Annotated[str, QueryParameter(description="``next_cursor`` of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=LARGEST_PAGE, description="At most so many in this page.")]
NO_QUEUE: Final[dict[int, ResponseSpec]] = {
    HTTPStatus.BAD_REQUEST: problem_spec("A parameter cannot be read"),
    HTTPStatus.NOT_FOUND: problem_spec("There is no such queue"),
    **UNREACHABLE,
}


def queue_routes(backend: RedisBackend) -> Router:
    """The routes, bound to what they need."""

    @get("/", summary="Every queue", opt=needs("tasks:read"), responses=UNREACHABLE)
    async def queues() -> QueueList:
        """All of them at one instant, and the event from which to count on: it neither misses nor counts twice."""
        return await backend.queues()

    @get("/{queue:str}", summary="One queue", opt=needs("tasks:read"), responses=NO_QUEUE)
    async def one_queue(queue: FromPath[str]) -> QueueStatus:
        """Its jobs by state, its workers, and what came of its latest jobs."""
        return await backend.queue(queue)

    @get(
        "/{queue:str}/jobs",
        summary="A queue's jobs",
        opt=needs("tasks:read"),
        responses=NO_QUEUE,
    )
    async def jobs(
        queue: FromPath[str],
        of_state: Annotated[
            str | None, QueryParameter(name="state", enum=STATES, description="Only those in this state.")
        ] = None,
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> JobPage:
        """Those in this state; without one, those that run, those that are queued, and the deferred ones."""
        return await backend.jobs(queue, state=read_state(of_state), cursor=cursor, limit=limit)

    @post(
        "/{queue:str}/pause",
        status_code=HTTPStatus.OK,
        summary="Pause a queue",
        opt=needs("admin"),
        responses=NO_QUEUE,
    )
    async def pause(queue: FromPath[str], request: Request[Any, Any, Any]) -> PauseAnswer:
        """Workers start no more of its jobs; those that run go on."""
        return await backend.pause(queue, by=caller_of(request.scope).name)

    @post(
        "/{queue:str}/resume",
        status_code=HTTPStatus.OK,
        summary="Resume a queue",
        opt=needs("admin"),
        responses=NO_QUEUE,
    )
    async def resume(queue: FromPath[str], request: Request[Any, Any, Any]) -> PauseAnswer:
        """Workers start its jobs again."""
        return await backend.resume(queue, by=caller_of(request.scope).name)

    return Router(
        "/api/v1/queues",
        route_handlers=[queues, one_queue, jobs, pause, resume],
        exception_handlers=UNKNOWN_QUEUE_IN_PATH,
        tags=["queues"],
    )


def read_state(text: str | None) -> State | None:
    if text is not None and text not in STATES:
        raise InvalidRequest(f"there is no state {text!r}; states: {', '.join(STATES)}", path="state")
    return cast(State | None, text)
