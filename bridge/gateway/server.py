"""Serves an application on granian inside the running event loop."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP2Settings
from granian.server.embed import Server

from bridge.errors import ConfigurationError

__all__ = ["can_share_port", "check_address", "is_loopback", "serve_app"]

logger = logging.getLogger("aegis.gateway")

BACKLOG: Final = 1024
MAX_CONNECTIONS: Final = 10_000
"""At once; granian's own limit is the backlog. Clients of the event stream stay connected."""
MAX_HEADERS_BYTES: Final = 64 * 1024
"""Of HTTP/2, where 16 MB is granian's default. It takes 100 headers and 400 KB of HTTP/1.1, waits 30 s for them, and an
address may have 64 KB."""
ANNOUNCE_S: Final = 0.25
"""How long the gateway, told to stop, still takes requests and asks each client to close its connection: a connection
that the server closes may have a request on its way."""
HTTP_TIMEOUT_S: Final = 2
"""How long requests in flight may take to finish after that."""


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


def can_share_port() -> bool:
    """Whether several processes can listen on one port, and the system spreads connections over them."""
    return sys.platform == "linux"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


async def serve_app(
    app: Any, *, host: str, port: int, stop: asyncio.Event, before_stop: Callable[[], object] = lambda: None
) -> None:
    """Answers HTTP requests until ``stop`` is set; then it calls ``before_stop`` and lets requests in flight finish.

    Ends within 3 s of ``stop``: what is still in flight then is cut off.
    """
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
        before_stop()
        await asyncio.sleep(ANNOUNCE_S)
        server.stop()  # type: ignore[no-untyped-call]
    try:
        await serving
    except TimeoutError:  # or somebody does not read the answer that is left
        logger.warning("requests that took longer than %g s to finish were cut off", ANNOUNCE_S + HTTP_TIMEOUT_S)


def resolve(host: str) -> str:
    """granian takes addresses only."""
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]  # type: ignore[return-value]
