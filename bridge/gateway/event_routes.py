"""``/api/v1/events``: pages of events, and the stream of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite
from typing import Any, Final

from litestar import Request, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, Operation, Parameter, Schema
from litestar.openapi.spec.enums import OpenAPIType

from bridge.backend import EventPage
from bridge.errors import InvalidRequest
from bridge.event_feed import EventFeed
from bridge.event_stream import BEGINNING, END, EventFilter, parse_cursor
from bridge.events import KINDS
from bridge.gateway.access import needs
from bridge.gateway.event_clients import EventClients, EventStreamResponse
from bridge.gateway.problems import UNREACHABLE, problem_spec
from bridge.shared_event import place_of

__all__ = ["event_routes"]

PATH: Final = "/api/v1/events"
MOST: Final = 1000
USUAL: Final = 100
MOST_WAIT_S: Final = 60
OF_OURS: Final = tuple(sorted({f"{kind.partition('.')[0]}." for kind in KINDS}))

TEXT: Final = Schema(type=OpenAPIType.STRING)
FILTERS: Final = [
    Parameter(
        name="kind",
        param_in="query",
        description="Only these kinds; may be repeated, or list several with commas.",
        schema=Schema(type=OpenAPIType.ARRAY, items=TEXT),
        examples={"ends": Example(value=["job.succeeded", "job.failed"])},
    ),
    Parameter(name="queue", param_in="query", description="Only events of this queue.", schema=TEXT),
    Parameter(name="task", param_in="query", description="Only events of this task.", schema=TEXT),
    Parameter(name="task_id", param_in="query", description="Only events of this job.", schema=TEXT),
]
AFTER: Final = "Begin after this event id or time (RFC 3339); `0` is the beginning, `$` the end."


@dataclass
class PageOperation(Operation):
    """The query is read by our own code, so OpenAPI has to be told of it."""

    def __post_init__(self) -> None:
        self.parameters = [
            Parameter(
                name="after", param_in="query", description=AFTER, schema=Schema(type=OpenAPIType.STRING, default="0")
            ),
            Parameter(
                name="limit",
                param_in="query",
                description="At most so many events.",
                schema=Schema(type=OpenAPIType.INTEGER, minimum=1, maximum=MOST, default=USUAL),
            ),
            Parameter(
                name="wait",
                param_in="query",
                description="Wait so many seconds for an event if there is none yet.",
                schema=Schema(type=OpenAPIType.NUMBER, minimum=0, maximum=MOST_WAIT_S, default=0),
            ),
            Parameter(
                name="latest",
                param_in="query",
                description="Give the newest events rather than the first ones; without `after` and `wait`.",
                schema=Schema(type=OpenAPIType.BOOLEAN, default=False),
            ),
            *FILTERS,
        ]


@dataclass
class StreamOperation(Operation):
    """As `PageOperation`."""

    def __post_init__(self) -> None:
        self.parameters = [
            Parameter(
                name="after", param_in="query", description=AFTER, schema=Schema(type=OpenAPIType.STRING, default="$")
            ),
            Parameter(
                name="Last-Event-ID",
                param_in="header",
                description="Go on after this event; wins over `after`. Browsers send it when they reconnect.",
                schema=TEXT,
            ),
            *FILTERS,
        ]


NOT_READ: Final[dict[int, ResponseSpec]] = {
    HTTPStatus.BAD_REQUEST: problem_spec("A parameter cannot be read; `path` names it"),
    **UNREACHABLE,
}


def event_routes(feed: EventFeed, *, max_stream_clients: int) -> Router:
    """The routes, bound to what they need."""
    clients = EventClients(feed, most=max_stream_clients)

    @get("/", summary="A page of events", opt=needs("events:read"), operation_class=PageOperation, responses=NOT_READ)
    async def events(request: Request[Any, Any, Any]) -> EventPage:
        """Events in stream order; ask for what follows with `next_after`, also when `events` is empty."""
        query = request.query_params.dict()
        limit, wanted = int(number(query, "limit", 1, MOST, USUAL)), filter_of(query)
        wait_s, after = number(query, "wait", 0, MOST_WAIT_S, 0), one(query, "after")
        if limit != number(query, "limit", 1, MOST, USUAL):
            raise InvalidRequest("limit is not a whole number", path="limit")
        if is_set(query, "latest"):
            if after is not None or wait_s:
                raise InvalidRequest("latest goes with neither after nor wait", path="latest")
            newest = await feed.stream.last_id()
            found = await feed.latest_events(wanted, limit=limit)
            next_after = max([newest, *(event.id for event in found[-1:])], key=place_of)
            return EventPage(events=found, next_after=next_after)
        return await feed.events(wanted, after=cursor(after or BEGINNING), limit=limit, wait_s=wait_s)

    @get(
        "/stream",
        summary="Events as they happen",
        opt=needs("events:read"),
        operation_class=StreamOperation,
        media_type="text/event-stream",
        responses={
            HTTPStatus.OK: ResponseSpec(
                str, description="Server-Sent Events, for ever", media_type="text/event-stream"
            ),
            **NOT_READ,
            HTTPStatus.SERVICE_UNAVAILABLE: problem_spec("Redis does not answer now, or there are too many clients"),
        },
    )
    async def stream(request: Request[Any, Any, Any]) -> EventStreamResponse:
        """Server-Sent Events: `id` is the event's id, `event` its kind, `data` the event as JSON on one line."""
        query = request.query_params.dict()
        if last := request.headers.get("last-event-id"):
            after = cursor(last, name="Last-Event-ID")
        else:
            after = cursor(one(query, "after") or END)
        return EventStreamResponse(clients, filter_of(query), after)

    return Router(PATH, route_handlers=[events, stream], tags=["events"])


Query = Mapping[str, Sequence[str]]


def filter_of(query: Query) -> EventFilter:
    """Which events are meant.

    Raises:
        InvalidRequest: a kind begins like ours and is none.
    """
    kinds = [kind.strip() for text in query.get("kind", ()) for kind in text.split(",") if kind.strip()]
    for kind in kinds:
        if kind.startswith(OF_OURS) and kind not in KINDS:
            raise InvalidRequest(f"there is no kind {kind!r}; kinds: {', '.join(KINDS)}", path="kind")
    return EventFilter(
        kinds=frozenset(kinds),
        queue=one(query, "queue") or "",
        task=one(query, "task") or "",
        job_id=one(query, "task_id") or "",
    )


def one(query: Query, name: str) -> str | None:
    """The value of a parameter, if it is there.

    Raises:
        InvalidRequest: it is there twice.
    """
    values = query.get(name, ())
    if len(values) > 1:
        raise InvalidRequest(f"{name} is given {len(values)} times; give it once", path=name)
    return values[0] if values else None


def number(query: Query, name: str, least: float, most: float, usual: float) -> float:
    """The value of a parameter that is a number in this range.

    Raises:
        InvalidRequest: it is none.
    """
    text = one(query, name)
    if text is None:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or not least <= value <= most:
        raise InvalidRequest(f"{name} is {text!r}; give a number from {least} to {most}", path=name)
    return value


def is_set(query: Query, name: str) -> bool:
    """Whether a parameter says yes.

    Raises:
        InvalidRequest: it says neither yes nor no.
    """
    text = one(query, name) or "false"
    if text not in {"true", "false"}:
        raise InvalidRequest(f"{name} is {text!r}; give true or false", path=name)
    return text == "true"


def cursor(text: str, *, name: str = "after") -> str:
    """As `parse_cursor`, with the name of the parameter in the problem."""
    try:
        return parse_cursor(text)
    except InvalidRequest as error:
        raise InvalidRequest(str(error), path=name) from None
