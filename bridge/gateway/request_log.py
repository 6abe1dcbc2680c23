"""The outermost layer around every request: its id, its line in the access log, its place in the metrics."""

import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from time import perf_counter
from typing import Any, Final
from urllib.parse import quote

from bridge import tracing
from bridge.gateway.access import caller_of
from bridge.gateway.access_log import AccessLog
from bridge.gateway.http_counts import METHODS, OTHER, HttpCounts
from bridge.gateway.shutdown import Shutdown

__all__ = ["UNMATCHED", "RequestLog", "request_id_of"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

HEADER: Final = b"x-request-id"
REQUEST_ID: Final = "aegis_request_id"
SANE: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}").fullmatch
UNMATCHED: Final = "unmatched"
"""The route of a request that no route takes."""
CLIENT_GONE: Final = 499
"""The status of a request whose client went away before it had an answer, as nginx logs it."""
QUIET: Final = frozenset(
    prefix + path for prefix in ("", "/api/v1") for path in ("/health", "/health/ready", "/health/detailed", "/metrics")
)
"""Routes that machines ask all the time: their lines are of level DEBUG."""


def request_id_of(scope: Mapping[str, Any]) -> str | None:
    """The id of the request of this ASGI scope; ``None`` outside of `RequestLog`."""
    request_id: str | None = scope.get(REQUEST_ID)
    return request_id


class RequestLog:
    """Calls ``app``, and tells of each request once it has been answered.

    Args:
        app: what answers.
        counts: of requests, for the metrics.
        access_log: gets a line for each; ``None`` for no lines.
        shutdown: once it has begun, each answer asks the client to close its connection.
    """

    def __init__(self, app: App, counts: HttpCounts, access_log: AccessLog | None, shutdown: Shutdown) -> None:
        self.app = app
        self.counts = counts
        self.access_log = access_log
        self.shutdown = shutdown
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """One request."""
        given = given_id(scope["headers"])
        request_id = scope[REQUEST_ID] = given.decode() if given else f"{self._prefix}-{next(self._numbers)}"
        answer = Answer(send, given or request_id.encode(), self.shutdown)
        counts = self.counts
        counts.in_flight += 1
        started_s = perf_counter()
        try:
            if tracing.spans is None or scope["path"].rstrip("/") in QUIET:
                await self.app(scope, receive, answer)
            else:
                await self._call_traced(tracing.spans, scope, receive, answer)
        finally:
            ended_s = perf_counter()
            counts.in_flight -= 1
            method, route = scope["method"], scope.get("path_template") or UNMATCHED
            status = answer.status or CLIENT_GONE
            counts.count(method, route, status, ended_s - started_s)
            if self.access_log is not None:
                path = path_of(scope)
                caller = caller_of(scope).name
                times = (started_s, ended_s)
                self.access_log.add(
                    times, method, route, path, status, answer.body_bytes, caller, request_id, route in QUIET
                )

    async def _call_traced(self, spans: tracing.Spans, scope: Scope, receive: Any, answer: "Answer") -> None:
        method = scope["method"] if scope["method"] in METHODS else OTHER
        with spans.request(method, path_of(scope), scope["headers"]) as span:
            try:
                await self.app(scope, receive, answer)
            finally:
                route = scope.get("path_template") or UNMATCHED
                spans.end_request(span, method, route, answer.status or CLIENT_GONE, scope[REQUEST_ID])


class Answer:
    """``send`` of one request: adds the headers of ours, and sees what is sent."""

    __slots__ = ("body_bytes", "request_id", "send", "shutdown", "status")

    def __init__(self, send: Send, request_id: bytes, shutdown: Shutdown) -> None:
        self.send = send
        self.request_id = request_id
        self.shutdown = shutdown
        self.status = 0
        self.body_bytes = 0

    def __call__(self, message: Message) -> Awaitable[None]:
        """Passes the message on; no coroutine of its own, since there are two or more in each request."""
        if message["type"] == "http.response.body":
            self.body_bytes += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = [*message.get("headers", ()), (HEADER, self.request_id)]
            if self.shutdown.has_begun:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        return self.send(message)


def given_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """What the caller calls the request, if that can be a header and part of a line of a log as it is."""
    for name, value in headers:
        if name == HEADER:
            return bytes(value) if SANE(value) else None
    return None


def path_of(scope: Mapping[str, Any]) -> str:
    """The path as it came, so without characters that could forge a line; never the query."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(scope["path"])
