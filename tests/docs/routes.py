"""The gateway's routes."""

from functools import cache
from typing import Any

from bridge.broker import open_redis
from bridge.catalog import load_catalog
from bridge.gateway.app import create_app
from bridge.settings import Settings

__all__ = ["routes"]


@cache
def routes() -> set[tuple[str, str]]:
    """Method and path of each; ``OPTIONS`` and ``HEAD`` are the framework's."""
    settings = Settings(redis_url="memory://")
    app = create_app(settings, load_catalog(settings.queues), open_redis(settings))
    every: list[Any] = app.routes
    return {
        (str(method), route.path_format)
        for route in every
        for method in route.methods
        if method not in {"OPTIONS", "HEAD"}
    }
