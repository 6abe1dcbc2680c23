"""Serves an application on granian inside the running event loop."""

import asyncio
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server

from bridge.errors import ConfigurationError

__all__ = ["BEFORE_STOP", "check_address", "is_loopback", "serve_app"]

BACKLOG: Final = 1024
MAX_CONNECTIONS: Final = 10_000
"""At once; granian's own limit is the backlog. Clients of the event stream stay connected."""
BEFORE_STOP: Final = "before_stop"
"""Key in an application's ``state``: functions that end what would not end by itself, such as event streams."""
MAX_HEADERS_BYTES: Final = 64 * 1024
"""Of HTTP/2, where 16 MB is granian's default. It takes 100 headers and 400 KB of HTTP/1.1, waits 30 s for them, and an
address may have 64 KB."""
HTTP_TIMEOUT_S: Final = 3
"""How long requests in flight may take to finish once the gateway is told to stop."""


def check_address(host: str, port: int) -> None:
    """Nothing else listens there.

    Raises:
        ConfigurationError: the port is taken, or the address is not one of this machine.
    """
    # granian shares a port with any process that shares it too, so it would not notice by itself.
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port or AEGIS_PORT"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def serve_app(app: Any, *, host: str, port: int, stop: asyncio.Event) -> None:
    """Answers HTTP requests until ``stop`` is set, then lets requests in flight finish."""
    server = Server(
        app,
        address=resolve(host),
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.auto,
        http2_settings=HTTP2Settings(max_headers_size=MAX_HEADERS_BYTES),
        websockets=False,
        backlog=BACKLOG,
        backpressure=MAX_CONNECTIONS,
        log_enabled=False,
    )
    server.workers_kill_timeout = HTTP_TIMEOUT_S
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        for end in app.state.get(BEFORE_STOP, ()):
            end()
        server.stop()  # type: ignore[no-untyped-call]
    with suppress(TimeoutError):  # somebody does not read the answer that is left
        await serving


def resolve(host: str) -> str:
    """granian takes addresses only."""
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]  # type: ignore[return-value]
