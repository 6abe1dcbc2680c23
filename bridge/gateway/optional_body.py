"""Request bodies that may be left out: a JSON object whose fields all have defaults."""

from dataclasses import dataclass
from http import HTTPStatus
from inspect import getdoc
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import ClientException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, OpenAPIMediaType, Operation, Reference, RequestBody, Schema

from bridge.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType
from bridge.gateway.problems import problem_spec

__all__ = ["BAD_BODY", "body_operation", "read_optional_body"]

BAD_BODY: Final[dict[int, ResponseSpec]] = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: problem_spec("The body is over the limit"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: problem_spec("There is a body, and it is not declared as application/json"),
}

Body = TypeVar("Body", bound=msgspec.Struct)


async def read_optional_body(request: Request[Any, Any, Any], body_type: type[Body], max_body_bytes: int) -> Body:
    """The body; without one its defaults.

    What has a body must say that it is JSON (docs/decisions/0005). What has none may come from a page elsewhere, as far
    as its type goes: such requests are told from others by their headers alone.

    Raises:
        UnsupportedMediaType: there is a body, and its content type is another.
        RequestTooLarge: it is over the limit.
        InvalidRequest: it is not JSON, or not of that shape.
    """
    try:
        body = await request.body()
    except ClientException as error:
        if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise RequestTooLarge(max_body_bytes) from None
        raise
    if not body:
        return body_type()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"send Content-Type: application/json, not {media_type or 'none'}")
    try:
        return msgspec.json.decode(body, type=body_type)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise InvalidRequest(message, path=path.rstrip("`") or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def body_operation(body_type: type[msgspec.Struct], **examples: Any) -> type[Operation]:
    """How OpenAPI is told of a body that `read_optional_body` reads."""

    class BodySchema(Schema):
        """The JSON Schema of the body, complete in itself."""

        def to_schema(self) -> dict[str, Any]:
            """The schema as msgspec sees it."""
            _, components = msgspec.json.schema_components([body_type])
            return {**components[body_type.__name__], "description": getdoc(body_type)}

    named: dict[str, Example | Reference] = {
        name.replace("_", " "): Example(value=value) for name, value in examples.items()
    }

    @dataclass
    class BodyOperation(Operation):
        def __post_init__(self) -> None:
            content = OpenAPIMediaType(schema=BodySchema(), examples=named)
            self.request_body = RequestBody(content={"application/json": content}, required=False)

    return BodyOperation
