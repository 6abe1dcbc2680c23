"""``aegis-tasks gateway``: answer HTTP requests."""

import asyncio
import contextlib
import signal
from typing import Annotated

import msgspec
import typer

from bridge.broker import open_redis
from bridge.catalog import load_catalog
from bridge.errors import ConfigurationError
from bridge.gateway.app import create_app
from bridge.gateway.server import check_address, is_loopback, serve_app
from bridge.settings import Settings, read_settings
from bridge.tokens import Tokens, tokens_path
from cli.context import run
from cli.log import configure_logging

__all__ = ["Host", "Insecure", "Port", "choose_address", "gateway"]

Host = Annotated[str | None, typer.Option(help="Address to listen on; by default AEGIS_HOST, or 127.0.0.1.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port; by default AEGIS_PORT, or 8000.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond this machine although there is no token to ask for.")
]


def gateway(host: Host = None, port: Port = None, insecure: Insecure = False) -> None:
    """Answer HTTP requests until Ctrl-C.

    **Example:** `aegis-tasks gateway --port 8080`
    """
    settings = read_settings()
    address = choose_address(settings, host, port, is_insecure=insecure)
    configure_logging()
    run(serve(settings, *address, is_insecure=insecure))


def choose_address(settings: Settings, host: str | None, port: int | None, *, is_insecure: bool) -> tuple[str, int]:
    """Where to listen; free, and reachable from elsewhere only if callers need a token or the user insists.

    Raises:
        ConfigurationError: it is taken, or reachable from elsewhere without a token; or the tokens cannot be read.
    """
    address = (host or settings.host, port or settings.port)
    tokens = Tokens(tokens_path(settings))
    if not tokens.read() and not is_loopback(address[0]) and not is_insecure:
        raise ConfigurationError(
            f"{address[0]} can be reached from other machines, and {tokens.path} has no token: make one with "
            "`aegis-tasks tokens create NAME --scope tasks:write`, listen on 127.0.0.1, or say --insecure"
        )
    check_address(*address)
    return address


async def serve(settings: Settings, host: str, port: int, *, is_insecure: bool) -> None:
    settings = msgspec.structs.replace(settings, host=host)
    app = create_app(settings, load_catalog(settings.queues), open_redis(settings), is_insecure=is_insecure)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(signum, stop.set)
    await serve_app(app, host=host, port=port, stop=stop)
