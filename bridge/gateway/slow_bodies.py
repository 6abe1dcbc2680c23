"""A limit on how long a request's body may take: a slow one holds a connection and what waits for it."""

import asyncio
from typing import Any, Final

from bridge.errors import RequestTooSlow

__all__ = ["BODY_TIMEOUT_S", "SlowBodies"]

BODY_TIMEOUT_S: Final = 30.0
LOOKS: Final = 30
"""How often the time is looked at while it runs."""
WITHOUT_BODY: Final = {"GET", "HEAD", "OPTIONS"}


class Body:
    """A body that is being received: ``receive`` of ASGI."""

    __slots__ = ("deadline_s", "is_late", "is_whole", "layer", "reader", "receive")

    def __init__(self, layer: "SlowBodies", receive: Any) -> None:
        self.layer = layer
        self.receive = receive
        self.deadline_s = asyncio.get_running_loop().time() + layer.timeout_s
        self.is_whole = self.is_late = False

    async def receive_in_time(self) -> Any:
        """The next message: in time, if it is of the body."""
        if self.is_whole:
            return await self.receive()
        self.reader = asyncio.current_task()
        waiting = self.layer.waiting
        waiting.add(self)
        if not self.layer.is_watching:
            self.layer.watch_again()
        try:
            message = await self.receive()
        except asyncio.CancelledError:
            if self.is_late and self.reader is not None and self.reader.uncancel() == 0:
                raise RequestTooSlow(self.layer.timeout_s) from None
            raise
        finally:
            waiting.discard(self)
        self.is_whole = not message.get("more_body")
        return message


class SlowBodies:
    """An ASGI layer: who asks for the rest of a body gets `RequestTooSlow` once the time is over.

    The server itself limits the headers only. One timer serves all bodies: one for each would cost more than the rest
    of the gateway's own layers.
    """

    def __init__(self, app: Any, *, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.app = app
        self.timeout_s = timeout_s
        self.waiting: set[Body] = set()
        self.is_watching = False

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Answers a request."""
        if scope["method"] in WITHOUT_BODY:
            return self.app(scope, receive, send)
        return self.app(scope, Body(self, receive).receive_in_time, send)

    def watch_again(self) -> None:
        """The time is looked at once more, in a while."""
        self.is_watching = True
        asyncio.get_running_loop().call_later(self.timeout_s / LOOKS, self._watch)

    def _watch(self) -> None:
        self.is_watching = False
        now_s = asyncio.get_running_loop().time()
        for body in self.waiting:
            if now_s >= body.deadline_s and body.reader is not None and not body.is_late:
                body.is_late = True
                body.reader.cancel()
        if self.waiting:
            self.watch_again()
