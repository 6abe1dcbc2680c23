"""``aegis-tasks worker``: run the jobs of queues."""

import asyncio
import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import watchfiles

from bridge.catalog import Catalog, Queue, load_catalog
from bridge.errors import ConfigurationError, StoreUnreachable
from bridge.settings import Settings, read_settings
from bridge.tracing import start_tracing
from cli.completion import complete_queue
from cli.context import open_store, run
from cli.exit_codes import ExitCode
from cli.log import configure_logging
from cli.supervisor import Service, Supervisor, tell_ended
from workers.run import make_worker, run_workers, stop_signals

__all__ = ["worker"]

logger = logging.getLogger("aegis.workers")

ARQ_CONNECTION_TRIES: Final = 6
"""``conn_retries`` of arq, and the first one."""


def worker(
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUEUE]...", help="By default every queue.", autocompletion=complete_queue),
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End once no job is left.")] = False,
    watch: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", exists=True, file_okay=False, help="Start again when Python files in it change."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="So many processes, each of which runs jobs of all these queues.")
    ] = 1,
) -> None:
    """Run the jobs of queues until Ctrl-C, all in one process or in several equal ones.

    Of several, one that dies is started again, after 0.5 s and then up to 10 s. Their output goes where the command's
    own goes. One Ctrl-C or SIGTERM stops all, and the command ends when the last of them has. With --burst none is
    started again, and the exit code is the highest one of the processes (128 and the signal's number if killed).

    **Examples:** `aegis-tasks worker`, `aegis-tasks worker load_test --processes 4`
    """
    names = queues or []
    command = [sys.executable, "-m", "cli", "worker", *names, *(["--burst"] if burst else [])]
    if watch is not None:
        command += ["--processes", str(processes)]
        # Only Python files: the data folder may be in there too, and every job changes that.
        only_python = watchfiles.PythonFilter()
        watchfiles.run_process(watch, target=shlex.join(command), target_type="command", watch_filter=only_python)
        return
    configure_logging()
    if processes == 1:
        run(work(names, is_burst=burst))
    else:
        raise typer.Exit(run(work_in_processes(names, command, processes, is_burst=burst)))


async def work_in_processes(names: list[str], command: list[str], processes: int, *, is_burst: bool) -> int:
    """The exit code: of a burst the worst one of its processes, a signal's number above 128 as in a shell."""
    settings = read_settings()
    for queue in choose(load_catalog(settings.queues), names):
        make_worker(queue)  # what is wrong is told once, and not by each process again and again
    await until_connected(settings)
    services = [Service(f"worker process {number + 1}", command) for number in range(processes)]
    with stop_signals() as stop:
        await Supervisor(services, tell_ended, restarts=not is_burst, stop_timeout_s=None).run(stop)
    if stop.is_set():
        return ExitCode.DONE
    codes = [service.process.returncode or 0 for service in services if service.process]
    return max(code if code >= 0 else 128 - code for code in codes)


async def work(names: list[str], *, is_burst: bool) -> None:
    start_tracing("aegis-tasks-worker")
    settings = read_settings()
    chosen = choose(load_catalog(settings.queues), names)
    await until_connected(settings)
    options: dict[str, Any] = {"burst": is_burst, "events_max_len": settings.events_max_len}
    await run_workers([make_worker(queue, **options) for queue in chosen])


async def until_connected(settings: Settings) -> None:
    """Redis has answered: a worker may be started a moment before it, or while it restarts.

    Raises:
        StoreUnreachable: it has not, as often as arq asks too.
    """
    for attempts_left in reversed(range(ARQ_CONNECTION_TRIES)):
        try:
            async with open_store(settings):
                return
        except StoreUnreachable as error:
            if not attempts_left:
                raise
            logger.warning("%s; trying again", error)
            await asyncio.sleep(1)


def choose(catalog: Catalog, names: list[str]) -> list[Queue]:
    """The queues of these names; without names, those that have tasks."""
    if names:
        return [catalog.queue(name) for name in names]
    if with_tasks := [queue for queue in catalog.queues.values() if queue.has_work]:
        return with_tasks
    raise ConfigurationError("no queue has tasks defined; AEGIS_QUEUES names the settings classes to load")
