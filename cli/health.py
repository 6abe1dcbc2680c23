"""``aegis-tasks health``: whether Redis answers and every queue has a worker."""

from typing import Annotated, Any

import typer

from bridge.backend import Backend
from bridge.broker import safe_address
from bridge.errors import StoreUnreachable
from bridge.redis_backend import RedisBackend
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
        redis = await look_at_redis(backend)
        queues = (await backend.queues()).queues
    offline = [queue.name for queue in queues if queue.message == "worker offline"]
    return {"status": "degraded" if offline else "healthy", "offline": offline, "redis": redis, "queues": queues}


async def look_at_redis(backend: Backend) -> dict[str, Any]:
    """Redis, as we or the gateway see it."""
    if isinstance(backend, RedisBackend):
        info = await backend.redis.info()
        server = "Valkey" if "valkey_version" in info else "Redis"
        return {
            "address": safe_address(backend.settings),
            "version": f"{server} {info.get('valkey_version') or info.get('redis_version')}",
            "used_memory": info.get("used_memory_human"),
            "connected_clients": info.get("connected_clients"),
            "append_only_file": bool(info.get("aof_enabled")),
        }
    from bridge.gateway_client import GatewayClient

    assert isinstance(backend, GatewayClient)  # noqa: S101 - there are two
    told = (await backend.health())["redis"]
    if not told["reachable"]:
        raise StoreUnreachable(told["address"], told["reason"])
    memory = told["used_memory_bytes"]
    return {
        "address": f"{told['address']}, by the gateway at {backend.address}",
        "version": f"Redis {told['version']}",
        "used_memory": None if memory is None else f"{memory / 1024 / 1024:.2f}M",
        "connected_clients": told["connected_clients"],
        "append_only_file": told["append_only_file"],
    }
