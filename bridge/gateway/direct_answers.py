"""A route whose requests are answered in front of Litestar's handler: that takes half the time of an answer."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = ["answered_by", "send_json"]

encode: Final = msgspec.json.Encoder().encode


def answered_by(answer: Callable[[Scope, Receive, Send], Awaitable[None]]) -> list[Callable[[ASGIApp], ASGIApp]]:
    """``middleware=answered_by(answer)``: ``answer`` answers the requests of this route.

    Litestar finds the route and translates errors as ever, and middleware of the application comes first. The function
    below the decorator is not called: its signature and its docstring are what OpenAPI tells. Guards, dependencies and
    hooks of Litestar have no effect on such a route.
    """

    def in_front_of(app: ASGIApp) -> ASGIApp:
        return answer

    return [in_front_of]


async def send_json(send: Send, content: Any, *, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """The answer is sent.

    Args:
        send: of the request.
        content: what msgspec can encode.
        status: of the answer.
        headers: further ones, names in lower case.
    """
    body = encode(content)
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": own + headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
