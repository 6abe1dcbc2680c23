"""``aegis-tasks gateway``: answer HTTP requests, in one process or in several behind one port."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from bridge.broker import is_in_memory, open_redis
from bridge.catalog import load_catalog
from bridge.errors import ConfigurationError
from bridge.gateway.app import create_app
from bridge.gateway.http_counts import ProcessSlot
from bridge.gateway.server import can_share_port, check_address, is_loopback, serve_app
from bridge.settings import Settings, read_settings
from bridge.tokens import Tokens, tokens_path
from bridge.tracing import start_tracing
from cli.context import run
from cli.log import configure_logging
from cli.supervisor import Service, Supervisor, tell_ended
from workers.run import stop_signals

__all__ = ["Host", "Insecure", "Port", "choose_address", "gateway"]

Host = Annotated[str | None, typer.Option(help="Address to listen on; by default AEGIS_HOST, or 127.0.0.1.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port; by default AEGIS_PORT, or 8000.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond this machine although there is no token to ask for.")
]

STOP_TIMEOUT_S: Final = 5.0
"""Of one of several processes; it needs 3 s at most."""


def gateway(
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    processes: Annotated[int, typer.Option(min=1, help="So many processes, which share the port.")] = 1,
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="A line for each request; also AEGIS_ACCESS_LOG.")
    ] = True,
    folder: Annotated[Path | None, typer.Option("--slot-folder", hidden=True)] = None,
    number: Annotated[int, typer.Option("--slot-number", hidden=True)] = 0,
) -> None:
    """Answer HTTP requests until Ctrl-C, in one process or in several behind one port.

    **Examples:** `aegis-tasks gateway --port 8080`, `aegis-tasks gateway --processes 4`
    """
    settings = read_settings()
    settings = msgspec.structs.replace(settings, access_log=settings.access_log and access_log)
    slot = ProcessSlot(folder, number) if folder else None
    address = choose_address(settings, host, port, is_insecure=insecure, is_shared=slot is not None)
    configure_logging()
    if processes == 1:
        run(serve(settings, *address, is_insecure=insecure, slot=slot))
        return
    command = [sys.executable, "-m", "cli", "gateway", "--host", address[0], "--port", str(address[1])]
    command += [*(["--insecure"] if insecure else []), *([] if access_log else ["--no-access-log"])]
    run(serve_in_processes(settings, command, processes))


def choose_address(
    settings: Settings, host: str | None, port: int | None, *, is_insecure: bool, is_shared: bool = False
) -> tuple[str, int]:
    """Where to listen: free, unless our processes share it; beyond this machine with tokens, or if the user insists.

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
    if not is_shared:
        check_address(*address)
    return address


async def serve(
    settings: Settings, host: str, port: int, *, is_insecure: bool, slot: ProcessSlot | None = None
) -> None:
    start_tracing("aegis-tasks-gateway")
    settings = msgspec.structs.replace(settings, host=host)
    catalog = load_catalog(settings.queues)
    app = create_app(settings, catalog, open_redis(settings), is_insecure=is_insecure, slot=slot)
    with stop_signals() as stop:
        await serve_app(app, host=host, port=port, stop=stop, before_stop=app.state.shutdown.begin)


async def serve_in_processes(settings: Settings, command: list[str], processes: int) -> None:
    """Several processes have answered on one port until a signal; one that dies is started again.

    Raises:
        ConfigurationError: they cannot share a port, or Redis, or a setting is wrong.
    """
    if is_in_memory(settings):
        raise ConfigurationError("REDIS_URL=memory:// lives inside one process; leave out --processes")
    if not can_share_port():
        raise ConfigurationError("processes cannot share a port on this system; leave out --processes")
    load_catalog(settings.queues)  # what is wrong is told once, and not by each process again and again
    with tempfile.TemporaryDirectory(prefix="aegis-gateway-") as folder, stop_signals() as stop:
        services = [
            Service(f"gateway process {number}", [*command, "--slot-folder", folder, "--slot-number", str(number)])
            for number in range(1, processes + 1)
        ]
        redis = open_redis(settings)  # starts the embedded Valkey, for all of them
        try:
            await Supervisor(services, tell_ended, stop_timeout_s=STOP_TIMEOUT_S).run(stop)
        finally:
            await redis.aclose(close_connection_pool=True)
