"""The gateway application: routes put together, errors translated, connections closed at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import swagger_ui_bundle
from litestar import Litestar, Request, Response, Router, get
from litestar.datastructures import State
from litestar.exceptions import InternalServerException, NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components
from litestar.response import Redirect
from litestar.static_files import create_static_files_router

from bridge.aegis_redis import AegisRedis
from bridge.broker import safe_address
from bridge.catalog import Catalog
from bridge.gateway.access import OPEN
from bridge.gateway.access_log import AccessLog
from bridge.gateway.authentication import Authentication
from bridge.gateway.common_answers import SECURITY_SCHEMES, describe_common_answers
from bridge.gateway.dead_routes import dead_routes
from bridge.gateway.event_routes import event_routes
from bridge.gateway.head_requests import HeadRequests
from bridge.gateway.health_routes import health_routes
from bridge.gateway.http_counts import HttpCounts, ProcessSlot, publish_every_second
from bridge.gateway.job_routes import job_routes
from bridge.gateway.metrics_routes import metrics_route
from bridge.gateway.problems import EXCEPTION_HANDLERS, from_no_file
from bridge.gateway.queue_routes import queue_routes
from bridge.gateway.raw_json import RawJson
from bridge.gateway.request_log import RequestLog
from bridge.gateway.response_headers import ResponseHeaders
from bridge.gateway.shutdown import Shutdown
from bridge.gateway.slow_bodies import SlowBodies
from bridge.gateway.task_openapi import TaskDocument
from bridge.gateway.task_routes import task_routes
from bridge.gateway.worker_routes import worker_routes
from bridge.rate_limit import RateLimit
from bridge.redis_backend import RedisBackend
from bridge.settings import Settings
from bridge.tokens import KnownTokens, Tokens, tokens_path

__all__ = ["create_app"]

DOCS_PATH: Final = "/schema/swagger"
SWAGGER_ASSETS_PATH: Final = "/schema-assets"
OWN_ASSETS: Final = Path(__file__).parent / "docs_page"


def create_app(
    settings: Settings,
    catalog: Catalog,
    redis: AegisRedis,
    *,
    is_insecure: bool = False,
    slot: ProcessSlot | None = None,
) -> Litestar:
    """The application; it owns ``redis`` from now on and closes it at shutdown.

    Args:
        settings: limits, what to call Redis, and the ``host`` that the gateway listens on: beyond this machine, callers
            need a token.
        catalog: the queues and tasks to offer.
        redis: the store.
        is_insecure: callers need no token on any host, as long as there is none.
        slot: the place of this process among several behind one port; ``None`` when it is the only one.

    What has to end when the gateway is about to stop says so to ``app.state.shutdown``.

    Raises:
        ConfigurationError: the tokens cannot be read.
    """
    backend = RedisBackend(settings, catalog, redis, by="http")
    authentication = Authentication(
        settings,
        KnownTokens(Tokens(tokens_path(settings))),
        RateLimit(backend.scripts),
        is_insecure=is_insecure,
    )
    shutdown, counts = Shutdown(), HttpCounts(slot)
    shutdown.before(backend.feed.close)
    counts.reader_lag_s = lambda: backend.feed.broadcast.lag_s
    access_log = AccessLog() if settings.access_log else None
    health = health_routes(redis, backend.inspector, shutdown, address=safe_address(settings))

    @asynccontextmanager
    async def close_redis(_: Litestar) -> AsyncIterator[None]:
        yield
        await backend.aclose()
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
            task_routes(backend, settings),
            job_routes(backend),
            queue_routes(backend),
            *dead_routes(backend),
            worker_routes(backend),
            event_routes(backend.feed, max_stream_clients=settings.max_stream_clients),
            health,
            Router("/api/v1", route_handlers=[health]),
            metrics_route(redis, catalog, backend.scripts, counts),
            create_static_files_router(
                path=SWAGGER_ASSETS_PATH,
                directories=[swagger_assets(), OWN_ASSETS],
                include_in_schema=False,
                opt=OPEN,
                # A path that cannot be that of a file: too long, with a NUL, or below a file.
                exception_handlers={ValueError: from_no_file, InternalServerException: from_no_file},
            ),
        ],
        middleware=[authentication.layer],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[close_redis, tell_counts],
        plugins=[RawJson()],
        request_max_body_size=settings.max_body_bytes,
        openapi_config=openapi(catalog),
        logging_config=None,  # the entry points configure logging
        state=State({"shutdown": shutdown, "backend": backend}),
    )
    authentication.guard(app)
    describe_common_answers(app)
    app.asgi_handler = SlowBodies(
        ResponseHeaders(
            HeadRequests(app.asgi_handler, but_not=SWAGGER_ASSETS_PATH), still_admits=authentication.still_admits
        )
    )
    # Around all that Litestar does, what it refuses by itself included: its middlewares see matched routes alone.
    app.asgi_handler = RequestLog(app.asgi_handler, counts, access_log, shutdown)  # type: ignore[assignment]
    return app


@get("/", include_in_schema=False, opt=OPEN)
async def go_to_docs() -> Redirect:
    """The way in for a person with a browser."""
    return Redirect(DOCS_PATH)


def swagger_assets() -> Path:
    """Swagger UI as the bundle ships it, so that the docs page needs no outside address."""
    return Path(swagger_ui_bundle.swagger_ui_path)


class DocsPage(SwaggerRenderPlugin):
    """Swagger UI without a script or style of the page's own, so that the page may forbid all of those."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page; its script fetches the document."""
        return DOCS_PAGE.encode()

    def receive_router(self, router: Router) -> None:
        """Adds no page for OAuth, which nothing here uses."""


DOCS_PAGE: Final = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>aegis-tasks</title>
<link rel="icon" type="image/png" href="{SWAGGER_ASSETS_PATH}/favicon-32x32.png">
<link rel="stylesheet" href="{SWAGGER_ASSETS_PATH}/swagger-ui.css">
<link rel="stylesheet" href="{SWAGGER_ASSETS_PATH}/docs_page.css">
<script src="{SWAGGER_ASSETS_PATH}/swagger-ui-bundle.js" defer></script>
<script src="{SWAGGER_ASSETS_PATH}/swagger-ui-standalone-preset.js" defer></script>
<script src="{SWAGGER_ASSETS_PATH}/docs_page.js" defer></script>
</head>
<body><div id="docs"></div></body>
</html>
"""


async def as_a_problem(response: Response[Any]) -> Response[Any]:
    """Litestar's own page for what there is not below ``/schema`` becomes a problem like any other."""
    if response.status_code == HTTPStatus.NOT_FOUND:
        raise NotFoundException
    return response


def openapi(catalog: Catalog) -> OpenAPIConfig:
    return OpenAPIConfig(
        title="aegis-tasks",
        version=version("aegis-tasks"),
        path="/schema",
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=as_a_problem, opt=OPEN
        ),
        components=Components(security_schemes=SECURITY_SCHEMES),
        render_plugins=[
            DocsPage(),
            TaskDocument(catalog),
        ],
    )
