"""``aegis-tasks health``: whether Redis takes writes and every queue has a worker."""

from typing import Annotated

import typer

from bridge import health as seen
from bridge.broker import safe_address
from bridge.health import DetailedHealth
from cli.context import open_backend, run
from cli.exit_codes import ExitCode
from cli.options import Json
from cli.printing import console, print_json, this_command
from cli.queues import print_queues

__all__ = ["health"]


def health(
    detailed: Annotated[bool, typer.Option("--detailed", help="Show Redis and every queue.")] = False,
    json: Json = False,
) -> None:
    """Tell whether everything is there: exit code 0 when it is, 1 when a queue has tasks but no worker.

    **Example:** `aegis-tasks health --detailed`
    """
    report = run(read_health())
    if json:
        print_json(report)
    else:
        redis = report.redis
        console.print(f"{report.status}: {redis.server or 'Redis'} {redis.version} at {redis.address}", markup=False)
        if redis.reason:
            console.print(f"  {redis.reason}", markup=False)
        for name in report.offline:
            console.print(f"  queue {name} has no worker; start one with: {this_command()} worker {name}", markup=False)
        if detailed:
            for fact in ("ping_ms", "used_memory_bytes", "connected_clients", "append_only_file"):
                console.print(f"  {fact.replace('_', ' ')}: {getattr(redis, fact)}", markup=False)
            console.print()
            print_queues(report.queues)
    if report.status != "healthy":
        raise typer.Exit(ExitCode.FAILED)


async def read_health() -> DetailedHealth:
    async with open_backend() as backend:
        return await seen.read_health(backend.redis, backend.inspector, address=safe_address(backend.settings))
