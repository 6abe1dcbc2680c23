"""What an idle worker process and an idle gateway cost: memory, and commands a second of the worker."""

import asyncio
from contextlib import suppress
from typing import Final

import httpx
import psutil
from redis.asyncio import Redis

from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.ours import QUEUE, open_pool
from tests.benchmarks.worker_processes import POLL_S, commands_on, started_workers
from tests.cli.processes import Command, Commands

MB: Final = 1_000_000


async def measure(url: str, *, seconds: float) -> Values:
    redis = open_pool(url)
    with commands_on(url) as commands:
        (worker,) = await started_workers(commands, redis, 1, QUEUE)
        await asyncio.sleep(seconds)
        sent = await commands_sent(redis, seconds)
        gateway = await started_gateway(commands)
        await asyncio.sleep(seconds)
        return {
            "worker_mb": resident_mb(worker),
            "gateway_mb": resident_mb(gateway),
            "worker_commands_per_s": sent / seconds,
        }


async def commands_sent(redis: Redis, seconds: float) -> int:
    """How many commands Valkey was sent in this time; those inside scripts do not count."""
    sent = 0
    async with redis.monitor() as monitor:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    sent += (await monitor.next_command())["client_type"] != "lua"
    return sent


async def started_gateway(commands: Commands) -> Command:
    """A gateway that has answered."""
    gateway = commands.start("gateway")
    async with httpx.AsyncClient() as client:
        while True:
            gateway.assert_is_running()
            try:
                answer = await client.get(f"http://127.0.0.1:{commands.environ['AEGIS_PORT']}/health")
                answer.raise_for_status()
                return gateway
            except httpx.TransportError:
                await asyncio.sleep(POLL_S)


def resident_mb(command: Command) -> float:
    """Memory of the process and its children, shared pages counted in each."""
    processes = [psutil.Process(command.process.pid), *command.children()]
    return sum(process.memory_info().rss for process in processes) / MB


if __name__ == "__main__":
    run_figure(measure, __doc__, seconds=10.0)
