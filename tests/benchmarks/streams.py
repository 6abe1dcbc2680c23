"""Events from their commit to the clients of one gateway process, and long polls from the end of a job to the answer.

Gateway, Valkey, the writer of events and the clients are a process each; they share the cores of the machine.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from tests.benchmarks.contenders import ROOT, environment
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.idle import started_gateway
from tests.benchmarks.worker_processes import commands_on

CASES: Final = ((100, 1000), (1000, 200))
"""Clients, and events a second."""


async def measure(url: str, *, seconds: float) -> Values:
    values: Values = {}
    with commands_on(url) as commands:
        await started_gateway(commands)
        port = int(commands.environ["AEGIS_PORT"])
        for clients, rate in CASES:
            heard = await listen(url, port, clients, rate, seconds)
            values |= {f"{clients}_clients_{name}": value for name, value in heard.items()}
    return values


async def listen(url: str, port: int, clients: int, rate: int, seconds: float) -> Values:
    """What the clients have seen."""
    count = int(rate * seconds)
    where = ["--port", str(port), "--clients", str(clients), "--events", str(count)]
    async with running("event_listeners", *where) as listeners:
        assert listeners.stdout
        if (await listeners.stdout.readline()).strip() != b"ready":
            raise RuntimeError("the clients cannot connect")
        source = ["--port", str(urlsplit(url).port), "--rate", str(rate), "--seconds", str(seconds)]
        async with running("event_source", *source) as writing:
            await writing.wait()
        values: Values = json.loads(await listeners.stdout.read())
        return values


@asynccontextmanager
async def running(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of this folder; it has ended afterwards."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment(), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    run_figure(measure, __doc__, seconds=5.0)
