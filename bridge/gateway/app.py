"""The gateway application: routes put together, errors translated, connections closed at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import swagger_ui_bundle
from litestar import Litestar, Request, Router, get
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.response import Redirect
from litestar.static_files import create_static_files_router

from bridge.aegis_redis import AegisRedis
from bridge.broker import safe_address
from bridge.catalog import Catalog
from bridge.enqueue import Enqueuer
from bridge.gateway.access_log import AccessLog
from bridge.gateway.health_routes import health_routes
from bridge.gateway.http_counts import HttpCounts, ProcessSlot, publish_every_second
from bridge.gateway.metrics_routes import metrics_route
from bridge.gateway.problems import EXCEPTION_HANDLERS
from bridge.gateway.request_log import RequestLog
from bridge.gateway.shutdown import Shutdown
from bridge.gateway.task_routes import task_routes
from bridge.inspector import Inspector
from bridge.scripts import Scripts
from bridge.settings import Settings

__all__ = ["create_app"]

DOCS_PATH: Final = "/schema/swagger"
SWAGGER_ASSETS_PATH: Final = "/schema-assets"


def create_app(settings: Settings, catalog: Catalog, redis: AegisRedis, *, slot: ProcessSlot | None = None) -> Litestar:
    """The application; it owns ``redis`` from now on and closes it at shutdown.

    Args:
        settings: limits, and what to call Redis.
        catalog: the queues and tasks to offer.
        redis: the store.
        slot: the place of this process among several behind one port; ``None`` when it is the only one.

    What has to end when the gateway is about to stop says so to ``app.state.shutdown``.
    """
    scripts = Scripts(redis, events_max_len=settings.events_max_len)
    enqueuer = Enqueuer(catalog, scripts)
    inspector = Inspector(redis, catalog, scripts, accept_pickle=settings.accept_pickle)
    shutdown, counts = Shutdown(), HttpCounts(slot)
    access_log = AccessLog() if settings.access_log else None
    health = health_routes(redis, inspector, shutdown, address=safe_address(settings))

    @asynccontextmanager
    async def close_redis(_: Litestar) -> AsyncIterator[None]:
        yield
        await redis.aclose(close_connection_pool=True)

    @asynccontextmanager
    async def tell_counts(_: Litestar) -> AsyncIterator[None]:
        try:
            async with publish_every_second(counts):
                yield
        finally:
            if access_log is not None:
                access_log.flush()

    app = Litestar(
        route_handlers=[
            go_to_docs,
            task_routes(catalog, enqueuer, inspector, settings),
            health,
            Router("/api/v1", route_handlers=[health]),
            metrics_route(redis, catalog, scripts, counts),
            create_static_files_router(
                path=SWAGGER_ASSETS_PATH, directories=[swagger_assets()], include_in_schema=False
            ),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[close_redis, tell_counts],
        request_max_body_size=settings.max_body_bytes,
        openapi_config=openapi(),
        logging_config=None,  # the entry points configure logging
        state=State({"shutdown": shutdown}),
    )
    # Around all that Litestar does, what it refuses by itself included: its middlewares see matched routes alone.
    app.asgi_handler = RequestLog(app.asgi_handler, counts, access_log, shutdown)  # type: ignore[assignment]
    return app


@get("/", include_in_schema=False)
async def go_to_docs() -> Redirect:
    """The way in for a person with a browser."""
    return Redirect(DOCS_PATH)


def swagger_assets() -> Path:
    """Swagger UI as the bundle ships it, so that the docs page needs no outside address."""
    return Path(swagger_ui_bundle.swagger_ui_path)


class DocsPage(SwaggerRenderPlugin):
    """Swagger UI 4, the newest there is a bundle of, refuses OpenAPI 3.1, but shows what we use of it."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page, which calls the document one of OpenAPI 3.0."""
        return super().render(request, {**openapi_schema, "openapi": "3.0.3"})


def openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="aegis-tasks",
        version=version("aegis-tasks"),
        path="/schema",
        render_plugins=[
            DocsPage(
                js_url=f"{SWAGGER_ASSETS_PATH}/swagger-ui-bundle.js",
                css_url=f"{SWAGGER_ASSETS_PATH}/swagger-ui.css",
                standalone_preset_js_url=f"{SWAGGER_ASSETS_PATH}/swagger-ui-standalone-preset.js",
                favicon=f'<link rel="icon" type="image/png" href="{SWAGGER_ASSETS_PATH}/favicon-32x32.png">',
            ),
            JsonRenderPlugin(),
        ],
    )
