"""``aegis-tasks health``: whether Redis answers and every queue has a worker."""

from typing import Annotated, Any

import typer

from bridge.broker import safe_address
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
        redis = report["redis"]
        console.print(f"{report['status']}: {redis['version']} at {redis['address']}", markup=False)
        for name in report["offline"]:
            console.print(f"  queue {name} has no worker; start one with: {this_command()} worker {name}", markup=False)
        if detailed:
            for fact in ("used_memory", "connected_clients", "append_only_file"):
                console.print(f"  {fact.replace('_', ' ')}: {redis[fact]}", markup=False)
            console.print()
            print_queues(report["queues"])
    if report["offline"]:
        raise typer.Exit(ExitCode.FAILED)


async def read_health() -> dict[str, Any]:
    async with open_backend() as backend:
        info = await backend.redis.info()
        queues = await backend.inspector.queues()
    offline = [queue.name for queue in queues if queue.message == "worker offline"]
    server = "Valkey" if "valkey_version" in info else "Redis"
    return {
        "status": "degraded" if offline else "healthy",
        "offline": offline,
        "redis": {
            "address": safe_address(backend.settings),
            "version": f"{server} {info.get('valkey_version') or info.get('redis_version')}",
            "used_memory": info.get("used_memory_human"),
            "connected_clients": info.get("connected_clients"),
            "append_only_file": bool(info.get("aof_enabled")),
        },
        "queues": queues,
    }
