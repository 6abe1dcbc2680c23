"""``/health``: alive, ready, and in detail; under ``/api/v1`` too."""

import platform
from http import HTTPStatus
from importlib.metadata import version
from time import perf_counter
from typing import Any, Literal

import msgspec
from litestar import Response, Router, get
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge.broker import STORE_AWAY
from bridge.gateway.access import OPEN, needs
from bridge.inspector import Inspector, QueueStatus

__all__ = ["health_routes"]


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served, and why not."""

    status: Literal["ready", "not ready"]
    reasons: list[str]


class RedisHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Redis as the gateway sees it."""

    address: str
    reachable: bool
    reason: str | None = None
    ping_ms: float | None = None
    version: str | None = None
    used_memory_bytes: int | None = None
    connected_clients: int | None = None
    append_only_file: bool | None = None


class DetailedHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator looks at first.

    Attributes:
        status: ``degraded`` when a queue has tasks but no worker, ``down`` when Redis is away.
    """

    status: Literal["healthy", "degraded", "down"]
    version: str
    python: str
    redis: RedisHealth
    queues: list[QueueStatus]


def health_routes(redis: Redis, inspector: Inspector, *, address: str) -> Router:
    """The routes, bound to what they need. ``address`` is where Redis is, without credentials."""

    @get("/", summary="Is the process alive?", opt=OPEN)
    async def alive() -> Alive:
        """Always 200: restart the process when this does not answer."""
        return Alive()

    @get("/ready", summary="Can it serve requests?", opt=OPEN)
    async def ready() -> Response[Readiness]:
        """503 with the reasons when it cannot: send requests elsewhere meanwhile."""
        health = await redis_health(redis, address)
        if health.reachable:
            return Response(Readiness(status="ready", reasons=[]))
        reasons = [f"Redis at {address} does not answer: {health.reason}"]
        return Response(Readiness(status="not ready", reasons=reasons), status_code=HTTPStatus.SERVICE_UNAVAILABLE)

    @get("/detailed", summary="Redis, queues and workers in detail", opt=needs("tasks:read"))
    async def detailed() -> Response[DetailedHealth]:
        """200 while Redis answers, 503 otherwise; ``status`` says more."""
        health = await redis_health(redis, address)
        queues = await inspector.queues() if health.reachable else []
        offline = [queue.name for queue in queues if queue.message == "worker offline"]
        content = DetailedHealth(
            status="down" if not health.reachable else "degraded" if offline else "healthy",
            version=version("aegis-tasks"),
            python=platform.python_version(),
            redis=health,
            queues=queues,
        )
        return Response(content, status_code=HTTPStatus.OK if health.reachable else HTTPStatus.SERVICE_UNAVAILABLE)

    return Router("/health", route_handlers=[alive, ready, detailed], tags=["health"])


async def redis_health(redis: Redis, address: str) -> RedisHealth:
    started_s = perf_counter()
    try:
        await redis.ping()
        ping_ms = (perf_counter() - started_s) * 1000
        info = await describe_server(redis)
    except (*STORE_AWAY, OSError) as error:
        return RedisHealth(address=address, reachable=False, reason=str(error) or type(error).__name__)
    return RedisHealth(
        address=address,
        reachable=True,
        ping_ms=round(ping_ms, 3),
        version=info.get("valkey_version") or info.get("redis_version"),
        used_memory_bytes=info.get("used_memory"),
        connected_clients=info.get("connected_clients"),
        append_only_file=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
    )


async def describe_server(redis: Redis) -> dict[str, Any]:
    """INFO; empty where the user of the connection may not ask for it."""
    try:
        info: dict[str, Any] = await redis.info()
    except ResponseError:
        return {}
    return info
