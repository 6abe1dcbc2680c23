"""The gateway application: routes put together, errors translated, connections closed at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import swagger_ui_bundle
from litestar import Litestar, Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.response import Redirect
from litestar.static_files import create_static_files_router

from bridge.aegis_redis import AegisRedis
from bridge.broker import safe_address
from bridge.catalog import Catalog
from bridge.gateway.dead_routes import dead_routes
from bridge.gateway.head_requests import HeadRequests
from bridge.gateway.health_routes import health_routes
from bridge.gateway.job_routes import job_routes
from bridge.gateway.problems import EXCEPTION_HANDLERS, from_litestar
from bridge.gateway.queue_routes import queue_routes
from bridge.gateway.raw_json import RawJson
from bridge.gateway.task_openapi import TaskDocument
from bridge.gateway.task_routes import task_routes
from bridge.gateway.worker_routes import worker_routes
from bridge.redis_backend import RedisBackend
from bridge.settings import Settings

__all__ = ["create_app"]

DOCS_PATH: Final = "/schema/swagger"
SWAGGER_ASSETS_PATH: Final = "/schema-assets"


def create_app(settings: Settings, catalog: Catalog, redis: AegisRedis) -> Litestar:
    """The application; it owns ``redis`` from now on and closes it at shutdown.

    Args:
        settings: limits, and what to call Redis.
        catalog: the queues and tasks to offer.
        redis: the store.
    """
    backend = RedisBackend(settings, catalog, redis, by="http")
    health = health_routes(redis, backend.inspector, address=safe_address(settings))

    @asynccontextmanager
    async def close_redis(_: Litestar) -> AsyncIterator[None]:
        yield
        await backend.aclose()
        await redis.aclose(close_connection_pool=True)

    app = Litestar(
        route_handlers=[
            go_to_docs,
            task_routes(backend, max_body_bytes=settings.max_body_bytes),
            job_routes(backend),
            queue_routes(backend),
            *dead_routes(backend),
            worker_routes(backend),
            health,
            Router("/api/v1", route_handlers=[health]),
            create_static_files_router(
                path=SWAGGER_ASSETS_PATH, directories=[swagger_assets()], include_in_schema=False
            ),
        ],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[close_redis],
        plugins=[RawJson()],
        request_max_body_size=settings.max_body_bytes,
        openapi_config=openapi(catalog),
        logging_config=None,  # the entry points configure logging
    )
    app.asgi_handler = HeadRequests(app.asgi_handler)
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


async def as_a_problem(response: Response[Any]) -> Response[Any]:
    """Litestar's own page for what there is not below ``/schema`` becomes a problem like any other."""
    return from_litestar(None, NotFoundException()) if response.status_code == HTTPStatus.NOT_FOUND else response


def openapi(catalog: Catalog) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="aegis-tasks",
        version=version("aegis-tasks"),
        path="/schema",
        openapi_router=Router("/schema", route_handlers=[], include_in_schema=False, after_request=as_a_problem),
        render_plugins=[
            DocsPage(
                js_url=f"{SWAGGER_ASSETS_PATH}/swagger-ui-bundle.js",
                css_url=f"{SWAGGER_ASSETS_PATH}/swagger-ui.css",
                standalone_preset_js_url=f"{SWAGGER_ASSETS_PATH}/swagger-ui-standalone-preset.js",
                favicon=f'<link rel="icon" type="image/png" href="{SWAGGER_ASSETS_PATH}/favicon-32x32.png">',
            ),
            TaskDocument(catalog),
        ],
    )
