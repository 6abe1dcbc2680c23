"""Keeps a set of processes running: starts them, starts again what ends, stops them together."""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from bridge.child_process import die_with_parent
from cli.printing import error_console

__all__ = ["Service", "Supervisor", "tell_ended"]

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
STABLE_AFTER_S: Final = 10.0
"""A process that ran this long has recovered: its next pause is the first one again."""
STOP_TIMEOUT_S: Final = 3.0
LOG_LIMIT_BYTES: Final = 10 * 1024 * 1024


@dataclass
class Service:
    """A process to keep running, and the file that gets its output; without one the supervisor's own output does."""

    name: str
    command: Sequence[str]
    log: Path | None = None
    process: asyncio.subprocess.Process | None = field(default=None, init=False)
    is_reloading: bool = field(default=False, init=False)

    @property
    def is_running(self) -> bool:
        """Whether its process is there now."""
        return self.process is not None and self.process.returncode is None

    def terminate(self) -> None:
        """Asks its process to end."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()

    def kill(self) -> None:
        """Ends its process."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()


class Supervisor:
    """Runs services until it is told to stop.

    Args:
        services: what to run.
        tell_ended: called with a service that ended by itself, its exit code, and the pause in seconds
            before it is started again.
        restarts: whether it is; else the run is over when all services have ended.
        stop_timeout_s: how long they may take to end when they are told to; ``None`` is as long as it takes.
    """

    def __init__(
        self,
        services: Sequence[Service],
        tell_ended: Callable[[Service, int, float], None],
        *,
        restarts: bool = True,
        stop_timeout_s: float | None = STOP_TIMEOUT_S,
    ) -> None:
        self.services = services
        self.tell_ended = tell_ended
        self.restarts = restarts
        self.stop_timeout_s = stop_timeout_s

    async def run(self, stop: asyncio.Event) -> None:
        """Every service has run until ``stop`` was set, or has ended for good; none of their processes is left.

        Raises:
            OSError: a service cannot be started at all.
        """
        keepers = [asyncio.create_task(self._keep_running(service)) for service in self.services]
        all_ended = asyncio.gather(*keepers)
        stopping = asyncio.create_task(stop.wait())
        either: list[asyncio.Future[Any]] = [all_ended, stopping]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopping, *keepers):
                task.cancel()
            ended = await asyncio.gather(stopping, *keepers, return_exceptions=True)
            await asyncio.gather(all_ended, return_exceptions=True)
            await self._stop_all()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def reload(self) -> None:
        """Starts every process anew, at once."""
        for service in self.services:
            service.is_reloading = service.is_running
            service.terminate()

    async def _keep_running(self, service: Service) -> None:
        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        while True:
            started_s = loop.time()
            service.process = await start(service)
            exit_code = await service.process.wait()
            if not self.restarts:
                return
            if service.is_reloading:
                service.is_reloading = False
                continue
            if loop.time() - started_s > STABLE_AFTER_S:
                pause_s = FIRST_PAUSE_S
            self.tell_ended(service, exit_code, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _stop_all(self) -> None:
        processes = [service.process for service in self.services if service.process is not None]
        for service in self.services:
            service.terminate()
        waiting = [asyncio.create_task(process.wait()) for process in processes]
        if waiting:
            await asyncio.wait(waiting, timeout=self.stop_timeout_s)
        for service in self.services:
            service.kill()
        await asyncio.gather(*waiting)


async def start(service: Service) -> asyncio.subprocess.Process:
    with open_log(service.log) if service.log else nullcontext() as log:
        return await asyncio.create_subprocess_exec(
            *service.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT if log else None,
            # Ctrl-C reaches the supervisor alone, which then stops the services in its own way.
            start_new_session=sys.platform != "win32",
            preexec_fn=die_with_parent(signal.SIGTERM),
        )


def open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".old.log"))
    return path.open("ab")


def tell_ended(service: Service, exit_code: int, pause_s: float) -> None:
    """Tells people that a service has ended by itself."""
    place = f", see {service.log}" if service.log else ""
    error_console.print(
        f"{service.name} ended with code {exit_code}; it starts again in {pause_s:g} s{place}",
        style="yellow",
        markup=False,
        soft_wrap=True,
    )
