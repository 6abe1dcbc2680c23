"""``HEAD`` on every ``GET`` route: the same answer without its body (RFC 9110, 9.3.2)."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["HeadRequests"]


class HeadRequests:
    """An ASGI application that asks another one for ``GET`` where it is asked for ``HEAD``.

    Args:
        app: the other one.
        but_not: paths that begin so can answer ``HEAD`` by themselves.
    """

    def __init__(self, app: ASGIApp, *, but_not: str) -> None:
        self.app = app
        self.but_not = but_not

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Hands everything else on as it is."""
        if scope.get("method") == "HEAD" and not scope["path"].startswith(self.but_not):
            return answer_head(self.app, scope, receive, send)
        return self.app(scope, receive, send)


async def answer_head(app: ASGIApp, scope: Any, receive: Receive, send: Send) -> None:
    started = asyncio.Event()

    async def send_start(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            started.set()

    as_get: Any = {**scope, "method": "GET"}
    answering = asyncio.ensure_future(app(as_get, receive, send_start))
    starting = asyncio.ensure_future(started.wait())
    try:
        await asyncio.wait({answering, starting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        starting.cancel()
        answering.cancel()  # what is left is a body, perhaps one without an end
        await asyncio.wait({answering})
    if not answering.cancelled():
        await answering
