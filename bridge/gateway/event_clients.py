"""Clients of the event stream over HTTP (Server-Sent Events): what each is sent, and how it ends.

Written for the ASGI server itself rather than as an iterator for Litestar, which would give each client a task group
and each chunk more tasks.
"""

import asyncio
import logging
import os
import random
import socket
import struct
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from litestar import Response

from bridge.broadcast import Subscription
from bridge.errors import TooManyStreams
from bridge.event_feed import EventFeed
from bridge.event_stream import EventFilter

__all__ = ["EventClients", "EventStreamResponse"]

logger = logging.getLogger("aegis.gateway")

RETRY_MS: Final = 2000
RETRY_SOON_MS: Final = (500, 2500)
"""After a shutdown clients come back at times that differ, not all at once."""
GREETING: Final = b"retry: %d\n: events follow\n\n" % RETRY_MS
QUIET: Final = b": nothing new\n\n"
QUIET_S: Final = 15
BLOCKED_S: Final = 30
"""How long a client may leave what it is sent unread, once the buffers of both machines are full."""
LEAVING_S: Final = 1
"""The same for what it was sent last before the server stops."""
LOOK_EVERY_S: Final = 1.0

HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class EventClients:
    """The clients of this process.

    Args:
        feed: where the events come from.
        most: how many clients there may be.
    """

    def __init__(self, feed: EventFeed, *, most: int) -> None:
        self.feed = feed
        self.most = most
        self.clients: set[EventClient] = set()
        self._look_timer: asyncio.TimerHandle | None = None
        self._dismissed: set[Address] = set()

    async def serve(self, wanted: EventFilter, after: str, scope: Any, receive: Any, send: Any) -> None:
        """Sends events until the client goes, does not read, or the feed closes.

        Raises:
            TooManyStreams: there are as many as there may be.
            Exception: what `redis` raises when the stream cannot be read now.
        """
        if len(self.clients) >= self.most:
            raise TooManyStreams(self.most)
        client = EventClient(scope, send)
        self.clients.add(client)
        if self._look_timer is None:
            self._look_timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        try:
            async with self.feed.broadcast.subscribe(wanted, after=after) as subscription:
                await client.serve(subscription, receive)
            if self.feed.broadcast.is_closing:
                self._expect_to_leave(client)
        finally:
            self.clients.discard(client)

    def _expect_to_leave(self, client: "EventClient") -> None:
        """Its connection ends soon, even if it does not read: otherwise the server could not stop in time."""
        if not self._dismissed:
            asyncio.get_running_loop().call_later(LEAVING_S, cut_connections, self._dismissed)
        if (address := address_of(client.scope)) is not None:
            self._dismissed.add(address)

    def _look(self) -> None:
        """Says something to who has heard nothing for long, and cuts off who does not read."""
        loop = asyncio.get_running_loop()
        is_closing = self.feed.broadcast.is_closing
        for client in self.clients:
            client.look(loop.time(), LEAVING_S if is_closing else BLOCKED_S)
        self._look_timer = loop.call_later(LOOK_EVERY_S, self._look) if self.clients else None


class EventClient:
    """One client. ``wrote_at_s``: when it was last sent something; ``is_blocked``: the server has not taken it yet."""

    def __init__(self, scope: Any, send: Any) -> None:
        self.scope = scope
        self.send = send
        self.task = asyncio.current_task()
        self.subscription: Subscription | None = None
        self.wrote_at_s = asyncio.get_running_loop().time()
        self.is_blocked = False
        self.is_cut = False

    async def serve(self, subscription: Subscription, receive: Any) -> None:
        """Sends what the subscription gives."""
        self.subscription = subscription
        await self.send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        leaving = asyncio.create_task(self._end_when_gone(receive))
        try:
            await self._write(GREETING)
            while not subscription.has_ended:
                batch = await subscription.next_batch()
                if batch or not subscription.has_ended:
                    await self._write(batch.frames or QUIET)
            if subscription.is_cut:
                self._cut_off()
            elif subscription.broadcast.is_closing:
                soon_ms = random.randint(*RETRY_SOON_MS)
                await self._write(b"retry: %d\n: the server stops, come again\n\n" % soon_ms)
                await self.send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            if not self.is_cut or self.task is None:
                raise
            self.task.uncancel()
            self._cut_off()
        finally:
            leaving.cancel()

    async def _write(self, chunk: bytes) -> None:
        self.is_blocked = True
        self.wrote_at_s = asyncio.get_running_loop().time()
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
        self.is_blocked = False

    async def _end_when_gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self.subscription:
            self.subscription.end()

    def _cut_off(self) -> None:
        logger.warning("a client of the event stream did not read what it was sent: it is cut off")
        if (address := address_of(self.scope)) is not None:
            cut_connections({address})

    def look(self, now_s: float, blocked_s: float) -> None:
        """Called about once a second."""
        if self.subscription is None or self.task is None or self.is_cut:
            return
        is_late = self.subscription.is_cut or now_s - self.wrote_at_s >= blocked_s
        if self.is_blocked and is_late:
            self.is_cut = True
            self.task.cancel()
        elif not self.is_blocked and now_s - self.wrote_at_s >= QUIET_S:
            self.subscription.nudge()


class EventStreamResponse(Response[bytes]):
    """The stream as Litestar takes it from a route.

    Args:
        clients: serves it.
        wanted: which events.
        after: cursor to begin after.
    """

    def __init__(self, clients: EventClients, wanted: EventFilter, after: str) -> None:
        super().__init__(b"", media_type="text/event-stream")
        self.clients = clients
        self.wanted = wanted
        self.after = after

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        """The application that sends it."""

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            await self.clients.serve(self.wanted, self.after, scope, receive, send)

        return serve


# --- ending connections whose clients do not read -------------------------------------------------

Address = tuple[str, int]


def address_of(scope: Any) -> Address | None:
    """Where the request comes from, if its connection serves no other one at the same time.

    With HTTP/2 others share the connection, and what is left unread of one is little.
    """
    if scope["http_version"].startswith("2") or not scope["client"]:
        return None
    host, port = scope["client"]
    return host, int(port)  # granian tells the port as text


def cut_connections(clients: Collection[Address]) -> None:
    """The connections of these clients are reset. An end of the response alone waits until the client has read."""
    if sys.platform == "win32":
        return
    for path in Path("/dev/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as connection:
            if connection.getpeername()[:2] in clients:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
