"""``POST /api/v1/tasks/enqueue`` and ``…/enqueue/batch``."""

from dataclasses import dataclass
from http import HTTPStatus
from inspect import getdoc
from typing import Any, Final
from urllib.parse import quote

import msgspec
from litestar import Request, Response, post
from litestar.datastructures import ResponseHeader
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, Parameter, RequestBody, Schema
from litestar.types import Receive, Scope, Send

from bridge.batch import MOST_ITEMS, BatchAnswer
from bridge.enqueue import Enqueued, Enqueuer, Replayed, TaskRequest, parse_request
from bridge.errors import InvalidRequest
from bridge.gateway.access import caller_of, needs
from bridge.gateway.direct_answers import answered_by, send_json
from bridge.gateway.problems import Problem
from bridge.gateway.request_reading import (
    IDEMPOTENCY_KEY,
    JSON,
    LONGEST_KEY,
    media_type_of,
    read_body,
    read_headers,
    read_idempotency_key,
    read_strict,
    read_trace,
)
from bridge.settings import Settings

__all__ = ["enqueue_routes", "problem_spec"]

STATUS_PATH: Final = "/api/v1/tasks/status/"
NDJSON: Final = ("application/x-ndjson", "application/jsonl")
EXAMPLE: Final = {"task_name": "io_simulation_task", "queue_type": "load_test", "kwargs": {"delay_ms": 50}}

array_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def enqueue_routes(enqueuer: Enqueuer, settings: Settings) -> list[HTTPRouteHandler]:
    """The routes, bound to what they need; their paths are those below ``/api/v1/tasks``."""

    async def answer_enqueue(scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope)
        body = await read_body(receive, headers, most_bytes=settings.max_body_bytes)
        enqueued = await enqueuer.enqueue(
            parse_request(body),
            strict=not scope["query_string"] or read_strict(scope["query_string"]),
            idempotency_key=read_idempotency_key(headers),
            caller=caller_of(scope).name,
            trace=read_trace(headers),
        )
        answered = [(b"location", f"{STATUS_PATH}{quote(enqueued.task_id, safe='')}".encode())]
        if isinstance(enqueued, Replayed):
            answered.append((b"idempotency-replayed", b"true"))
        await send_json(send, enqueued, status=HTTPStatus.ACCEPTED, headers=answered)

    @post(
        "/enqueue",
        status_code=HTTPStatus.ACCEPTED,
        summary="Enqueue a task",
        opt=needs("tasks:write"),
        middleware=answered_by(answer_enqueue),
        operation_class=EnqueueOperation,
        response_headers=[
            ResponseHeader(name="Location", description="Where its status is", documentation_only=True),
            ResponseHeader(
                name="Idempotency-Replayed",
                description="`true` when this repeats the answer to an earlier request",
                documentation_only=True,
            ),
        ],
        responses={
            HTTPStatus.BAD_REQUEST: problem_spec("Unknown task or queue, wrong argument, not JSON, or a bad header"),
            HTTPStatus.CONFLICT: problem_spec("The chosen task_id exists"),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE: problem_spec("The body is over the limit"),
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE: problem_spec("The body is not declared as application/json"),
            HTTPStatus.UNPROCESSABLE_ENTITY: problem_spec("The Idempotency-Key was used for another request"),
            HTTPStatus.SERVICE_UNAVAILABLE: problem_spec("Redis does not answer now; try again"),
        },
    )
    async def enqueue() -> Response[Enqueued]:
        """Checks the arguments against the task's signature and stores the job, with its event, in Redis."""
        raise NotImplementedError

    @post(
        "/enqueue/batch",
        status_code=HTTPStatus.ACCEPTED,
        summary="Enqueue many tasks",
        opt=needs("tasks:write"),
        operation_class=BatchOperation,
        responses={
            HTTPStatus.BAD_REQUEST: problem_spec("Not a JSON array, too many items, or a header for single requests"),
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE: problem_spec("The body is over the limit"),
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE: problem_spec("The body is declared as neither JSON nor NDJSON"),
            HTTPStatus.SERVICE_UNAVAILABLE: problem_spec("Redis does not answer now; try again"),
        },
    )
    async def enqueue_batch(request: Request[Any, Any, Any]) -> Response[BatchAnswer]:
        """Stores the valid ones of up to 10 000 requests, and tells for each what became of it."""
        headers = read_headers(request.scope)
        if headers.idempotency_key is not None:
            message = f"{IDEMPOTENCY_KEY} is for single requests; give each item a task_id of your choice instead"
            raise InvalidRequest(message, path=IDEMPOTENCY_KEY)
        body = await read_body(
            request.receive,
            headers,
            most_bytes=settings.max_batch_bytes,
            setting="AEGIS_MAX_BATCH_BYTES",
            media_types=(JSON, *NDJSON),
        )
        items = read_lines(body) if media_type_of(headers) in NDJSON else read_array(body)
        answer = await enqueuer.enqueue_batch(items, caller=caller_of(request.scope).name, trace=read_trace(headers))
        return Response(answer)

    return [enqueue, enqueue_batch]


def read_lines(body: bytes) -> list[msgspec.Raw]:
    """The lines that are not blank, read no further."""
    return [msgspec.Raw(line) for line in body.split(b"\n") if line and not line.isspace()]


def read_array(body: bytes) -> list[msgspec.Raw]:
    """The items of a JSON array, read no further.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        return array_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not a JSON array: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def problem_spec(description: str) -> ResponseSpec:
    """A documented problem."""
    return ResponseSpec(Problem, description=description, media_type="application/problem+json")


class TaskRequestSchema(Schema):
    """The JSON Schema of `TaskRequest`, complete in itself."""

    def to_schema(self) -> dict[str, Any]:
        """The schema as msgspec sees it."""
        _, components = msgspec.json.schema_components([TaskRequest])
        return {**components["TaskRequest"], "description": getdoc(TaskRequest)}


class BatchSchema(Schema):
    """An array of them."""

    def to_schema(self) -> dict[str, Any]:
        """The schema as msgspec sees it."""
        others = {"description": "anything else is refused, and does not keep the other items back"}
        items = {"anyOf": [TaskRequestSchema().to_schema(), others]}
        return {"type": "array", "maxItems": MOST_ITEMS, "items": items}


def header(name: str, description: str, **schema: Any) -> Parameter:
    return Parameter(
        name=name,
        param_in="header",
        description=description,
        required=False,
        schema=Schema(type=OpenAPIType.STRING, **schema),
    )


TRACE_HEADER: Final = header("traceparent", "W3C Trace Context: the job's events carry it; ignored if it is none")


@dataclass
class EnqueueOperation(Operation):
    """The body and the headers are read by our own code, so OpenAPI has to be told of them."""

    def __post_init__(self) -> None:
        self.request_body = RequestBody(
            content={JSON: OpenAPIMediaType(schema=TaskRequestSchema(), example=EXAMPLE)}, required=True
        )
        once = "A repeated request with the same key stores nothing and is answered as the first one"
        self.parameters = [
            *(self.parameters or ()),
            Parameter(
                name="strict",
                param_in="query",
                description="`false` also takes numbers and booleans that are written as text",
                required=False,
                schema=Schema(type=OpenAPIType.BOOLEAN, default=True),
            ),
            header(IDEMPOTENCY_KEY, once, min_length=1, max_length=LONGEST_KEY),
            TRACE_HEADER,
        ]


@dataclass
class BatchOperation(Operation):
    """The same for a batch."""

    def __post_init__(self) -> None:
        content = {JSON: OpenAPIMediaType(schema=BatchSchema(), example=[EXAMPLE])}
        for media_type in NDJSON:
            content[media_type] = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING), example=None)
        self.request_body = RequestBody(content=content, required=True)
        self.parameters = [*(self.parameters or ()), TRACE_HEADER]
