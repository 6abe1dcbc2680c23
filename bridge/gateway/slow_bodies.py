"""A limit on how long a request's body may take: a slow one holds a connection and what waits for it."""

import asyncio
from typing import Any, Final

from bridge.errors import RequestTooSlow

__all__ = ["BODY_TIMEOUT_S", "SlowBodies"]

BODY_TIMEOUT_S: Final = 30.0
WITHOUT_BODY: Final = {"GET", "HEAD", "OPTIONS"}


class SlowBodies:
    """An ASGI layer: who asks for the rest of a body gets `RequestTooSlow` once the time is over.

    The server itself limits the headers only.
    """

    def __init__(self, app: Any, *, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self.timeout_s = timeout_s

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Answers a request."""
        if scope["method"] in WITHOUT_BODY:
            return self.app(scope, receive, send)
        deadline_s = asyncio.get_running_loop().time() + self.timeout_s
        is_whole = False

        async def receive_in_time() -> Any:
            nonlocal is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError:
                raise RequestTooSlow(self.timeout_s) from None
            is_whole = not message.get("more_body")
            return message

        return self.app(scope, receive_in_time, send)
