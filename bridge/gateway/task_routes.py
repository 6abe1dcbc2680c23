"""``/api/v1/tasks``: list the tasks, enqueue them."""

from litestar import Router, get

from bridge.backend import TaskList
from bridge.gateway.access import needs
from bridge.gateway.enqueue_routes import enqueue_routes
from bridge.redis_backend import RedisBackend
from bridge.settings import Settings

__all__ = ["task_routes"]

PATH = "/api/v1/tasks"


def task_routes(backend: RedisBackend, settings: Settings) -> Router:
    """The routes, bound to what they need."""

    @get("/", summary="List the tasks", opt=needs("tasks:read"))
    async def list_tasks() -> TaskList:
        """Every task with its queue and the JSON Schema of its arguments."""
        return await backend.tasks()

    return Router(PATH, route_handlers=[list_tasks, *enqueue_routes(backend.enqueuer, settings)], tags=["tasks"])
