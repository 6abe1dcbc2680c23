"""``/api/v1/workers``: who works."""

from litestar import Router, get

from bridge.backend import WorkerList
from bridge.gateway.access import needs
from bridge.gateway.problems import UNREACHABLE
from bridge.redis_backend import RedisBackend

__all__ = ["worker_routes"]


def worker_routes(backend: RedisBackend) -> Router:
    """The route, bound to what it needs."""

    @get("/", summary="Every worker", opt=needs("tasks:read"), responses=UNREACHABLE)
    async def workers() -> WorkerList:
        """The registered ones, and the event from which to follow who comes and goes."""
        return await backend.workers()

    return Router("/api/v1/workers", route_handlers=[workers], tags=["workers"])
