"""``/health``: alive, ready, and in detail; under ``/api/v1`` too."""

from http import HTTPStatus
from typing import Literal

import msgspec
from litestar import Response, Router, get
from redis.asyncio import Redis

from bridge.gateway.access import OPEN, needs
from bridge.gateway.shutdown import Shutdown
from bridge.health import DetailedHealth, read_health, why_not_ready
from bridge.inspector import Inspector

__all__ = ["health_routes"]


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served, and why not."""

    status: Literal["ready", "not ready"]
    reasons: list[str]


def health_routes(redis: Redis, inspector: Inspector, shutdown: Shutdown, *, address: str) -> Router:
    """The routes, bound to what they need. ``address`` is where Redis is, without credentials."""

    @get("/", summary="Is the process alive?", opt=OPEN)
    async def alive() -> Alive:
        """Always 200, without a look at Redis: restart the process when this does not answer."""
        return Alive()

    @get("/ready", summary="Can it serve requests?", opt=OPEN)
    async def ready() -> Response[Readiness]:
        """503 with the reasons when it cannot: send requests elsewhere meanwhile."""
        reason = "shutting down" if shutdown.has_begun else await why_not_ready(redis, address)
        if reason is None:
            return Response(Readiness(status="ready", reasons=[]))
        return Response(Readiness(status="not ready", reasons=[reason]), status_code=HTTPStatus.SERVICE_UNAVAILABLE)

    @get("/detailed", summary="Redis, queues and workers in detail", opt=needs("tasks:read"))
    async def detailed() -> Response[DetailedHealth]:
        """200 while Redis can be used, 503 otherwise; ``status`` says more."""
        health = await read_health(redis, inspector, address=address)
        is_down = health.status == "down"
        return Response(health, status_code=HTTPStatus.SERVICE_UNAVAILABLE if is_down else HTTPStatus.OK)

    return Router("/health", route_handlers=[alive, ready, detailed], tags=["health"])
