"""What every response of the gateway tells browsers: that they are to do as little with it as they can."""

from collections.abc import Callable
from typing import Any, Final

from bridge.gateway.access import CALLER

__all__ = ["ResponseHeaders"]

PAGES: Final = ("/schema",)
"""Where pages for people and their files are; the rest is for programs."""

COMMON: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"server", b"aegis-tasks"),  # the server's own would tell what is inside
)
FOR_PROGRAMS: Final = (
    *COMMON,
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
FOR_PEOPLE: Final = (
    *COMMON,
    (b"cache-control", b"no-cache"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


class ResponseHeaders:
    """An ASGI layer around the whole application, since errors of the routing are responses too.

    It also ends an answer that goes on, as a stream of events does, when its caller is not admitted any more.

    Args:
        app: what is inside.
        still_admits: whether a caller's token is still valid.
    """

    def __init__(self, app: Any, *, still_admits: Callable[[Any], bool]) -> None:
        self.app = app
        self.still_admits = still_admits

    def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Answers a request."""
        headers = FOR_PEOPLE if scope["path"].startswith(PAGES) else FOR_PROGRAMS

        def send_with_headers(message: Any) -> Any:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            elif message.get("more_body") and CALLER in scope and not self.still_admits(scope[CALLER]):
                raise ConnectionAbortedError("the caller's token is not valid any more")
            return send(message)

        return self.app(scope, receive, send_with_headers)
