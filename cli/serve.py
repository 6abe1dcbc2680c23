"""``aegis-tasks serve``: everything at once, for development and for small installations."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
import watchfiles

from bridge.broker import is_embedded, is_in_memory, open_redis, safe_address
from bridge.catalog import Catalog, load_catalog
from bridge.embedded_valkey import stop as stop_embedded
from bridge.errors import ConfigurationError
from bridge.file_lock import FileLock
from bridge.gateway.app import create_app
from bridge.gateway.server import serve_app
from bridge.settings import Settings, read_settings
from bridge.tracing import start_tracing
from cli.context import open_store, run
from cli.gateway import Host, Insecure, Port, choose_address
from cli.log import configure_logging
from cli.printing import console, this_command
from cli.supervisor import Service, Supervisor, tell_ended
from workers.run import make_worker, run_workers

__all__ = ["serve"]

START_TIMEOUT_S: Final = 20
SERVE_LOCK: Final = "serve.lock"


def serve(
    host: Host = None,
    port: Port = None,
    insecure: Insecure = False,
    reload: Annotated[bool, typer.Option("--reload", help="Start again when a Python file changes.")] = False,
) -> None:
    """Start Redis (unless REDIS_URL names one), a worker for each queue and the gateway; stop them with Ctrl-C.

    What ends by itself is started again.

    **Examples:** `aegis-tasks serve`, `aegis-tasks serve --port 8080 --reload`
    """
    settings = read_settings()
    catalog = load_catalog(settings.queues)
    address = choose_address(settings, host, port, is_insecure=insecure)
    if is_in_memory(settings):
        configure_logging(is_quiet=True)
        start_tracing("aegis-tasks")
        run(serve_in_process(settings, catalog, *address, is_insecure=insecure))
        return
    with only_one(settings.data_dir):
        run(supervise(settings, catalog, *address, is_insecure=insecure, is_reloading=reload))


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """No other ``serve`` runs on this folder: the first to stop would take the other's Redis along.

    Raises:
        ConfigurationError: one does, or the folder cannot be used.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(data_dir / SERVE_LOCK)
    except OSError as error:
        raise ConfigurationError(f"AEGIS_DATA_DIR: {data_dir} cannot be used: {error.strerror}") from error
    with lock:
        if not lock.take():
            raise ConfigurationError(
                f"another `aegis-tasks serve` runs on {data_dir}; stop it, or choose another AEGIS_DATA_DIR"
            )
        yield


async def supervise(
    settings: Settings, catalog: Catalog, host: str, port: int, *, is_insecure: bool, is_reloading: bool
) -> None:
    stop = stop_on_signals()
    try:
        async with open_store(settings):  # holds the embedded Valkey, and tells in one line when Redis is away
            services = list(make_services(settings, catalog, host, port, is_insecure=is_insecure))
            supervisor = Supervisor(services, tell_ended)
            running = asyncio.create_task(supervisor.run(stop))
            helper = asyncio.create_task(reload_on_change(supervisor)) if is_reloading else None
            if await is_ready(host, port, running):
                welcome(settings, catalog, host, port)
            await running
            if helper:
                helper.cancel()
    finally:
        if is_embedded(settings):
            await asyncio.to_thread(stop_embedded, settings.data_dir)
    console.print("stopped")


def make_services(
    settings: Settings, catalog: Catalog, host: str, port: int, *, is_insecure: bool
) -> Iterator[Service]:
    logs = settings.data_dir / "logs"
    own = [sys.executable, "-m", "cli"]
    gateway = [*own, "gateway", "--host", host, "--port", str(port), *(["--insecure"] if is_insecure else [])]
    yield Service("gateway", gateway, logs / "gateway.log")
    for queue in catalog.queues.values():
        if queue.has_work:
            yield Service(f"worker {queue.name}", [*own, "worker", queue.name], logs / f"worker-{queue.name}.log")


def stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            with contextlib.suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), stop.set)
    return stop


async def is_ready(host: str, port: int, running: "asyncio.Task[None]") -> bool:
    """Waits until the gateway answers; False when the services end, or it takes too long."""
    deadline_s = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while not running.done() and asyncio.get_running_loop().time() < deadline_s:
        with contextlib.suppress(OSError):
            if await ask_status(host, port, "/health/ready") == HTTPStatus.OK:
                return True
        await asyncio.sleep(0.05)
    return False


async def ask_status(host: str, port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        line = await reader.readline()
        return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
    finally:
        writer.close()


def welcome(settings: Settings, catalog: Catalog, host: str, port: int) -> None:
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    rows = {
        "gateway": f"{base}/api/v1/tasks/",
        "docs": f"{base}/",
        "health": f"{base}/health/detailed",
        "redis": safe_address(settings),
        "workers": ", ".join(f"{q.name} ({len(q.tasks)} tasks)" for q in catalog.queues.values() if q.has_work),
        "idle": ", ".join(f"{q.name} (no tasks defined)" for q in catalog.queues.values() if not q.has_work),
        "logs": "" if is_in_memory(settings) else str(settings.data_dir / "logs"),
    }
    console.print("aegis-tasks is ready", style="bold green")
    for name, value in rows.items():
        if value:
            console.print(f"  {name:<9}{value}", markup=False, soft_wrap=True)
    console.print("\nNow type, in another terminal:", style="bold")
    console.print(f"  {next_command(settings, base)}", markup=False, soft_wrap=True)
    console.print("\nCtrl-C stops everything.", style="dim")


def next_command(settings: Settings, base: str) -> str:
    """What to try first: over HTTP where no other process sees the jobs."""
    if is_in_memory(settings):
        body = '{"task_name": "io_simulation_task", "queue_type": "load_test"}'
        return f"curl -X POST {base}/api/v1/tasks/enqueue -H 'Content-Type: application/json' -d '{body}'"
    return f"{this_command()} enqueue io_simulation_task --queue load_test --wait"


async def reload_on_change(supervisor: Supervisor) -> None:
    async for changes in watchfiles.awatch(Path.cwd(), watch_filter=watchfiles.PythonFilter()):
        names = sorted({os.path.relpath(path) for _, path in changes})
        console.print(f"{names[0]} changed; starting again", style="dim", markup=False)
        supervisor.reload()


async def serve_in_process(settings: Settings, catalog: Catalog, host: str, port: int, *, is_insecure: bool) -> None:
    """Everything in this one process, since nothing outside it can see its memory."""
    async with workers_of(settings, catalog) as working:
        stop = asyncio.Event()
        listening = msgspec.structs.replace(settings, host=host)
        app = create_app(listening, catalog, open_redis(settings), is_insecure=is_insecure)
        serving = asyncio.create_task(
            serve_app(app, host=host, port=port, stop=stop, before_stop=app.state.shutdown.begin)
        )
        if await is_ready(host, port, serving):
            welcome(settings, catalog, host, port)
        await working
        stop.set()
        await serving


@contextlib.asynccontextmanager
async def workers_of(settings: Settings, catalog: Catalog) -> AsyncIterator["asyncio.Task[None]"]:
    queues = [queue for queue in catalog.queues.values() if queue.has_work]
    workers = []
    for queue in queues:
        redis = open_redis(settings)
        redis.default_queue_name = queue.key
        workers.append(make_worker(queue, redis=redis))
    working = asyncio.create_task(run_workers(workers))
    try:
        yield working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
