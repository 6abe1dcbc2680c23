"""What every response of the gateway tells browsers: that they are to do as little with it as they can."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from bridge.gateway.access import CALLER

__all__ = ["ResponseHeaders"]

PAGES: Final = ("/schema",)
"""Where pages for people and their files are; the rest is for programs."""

CACHE_CONTROL: Final = b"cache-control"
COMMON: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"server", b"aegis-tasks"),  # the server's own would tell what is inside
)
FOR_PROGRAMS: Final = (
    *COMMON,
    (CACHE_CONTROL, b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
FOR_PEOPLE: Final = (
    *COMMON,
    (CACHE_CONTROL, b"no-cache"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


def but_for_caching(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What is left where a route has its own word on caching, as the event stream has."""
    return [(name, value) for name, value in headers if name != CACHE_CONTROL]


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
                own = message["headers"]
                names = [name for name, _ in own]
                message["headers"] = [*own, *(headers if CACHE_CONTROL not in names else but_for_caching(headers))]
            elif message.get("more_body") and CALLER in scope and not self.still_admits(scope[CALLER]):
                raise ConnectionAbortedError("the caller's token is not valid any more")
            return send(message)

        return self.app(scope, receive, send_with_headers)
