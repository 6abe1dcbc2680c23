"""``/metrics``: what Prometheus asks for."""

from collections.abc import Iterable, Iterator
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.catalog import Catalog
from bridge.gateway.access import needs
from bridge.gateway.http_counts import HttpCounts
from bridge.gateway.metric_families import families
from bridge.health import ANSWER_LIMIT_S, within
from bridge.measurements import Measurements, measure
from bridge.scripts import Scripts

__all__ = ["metrics_route"]


class Collected(Collector):
    """Metrics that are known already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """All of them, once."""
        yield from self.metrics


def metrics_route(redis: Redis, catalog: Catalog, scripts: Scripts, counts: HttpCounts) -> HTTPRouteHandler:
    """The route, bound to what it needs."""

    @get(
        "/metrics", summary="Metrics for Prometheus", tags=["health"], opt=needs("tasks:read"), media_type="text/plain"
    )
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """As text, or as OpenMetrics for who accepts it; 200 also while Redis is away: then ``aegis_redis_up`` is 0."""
        try:
            encode, media_type = choose_encoder(request.headers.get("accept", ""))
        except TypeError:  # it compares whatever stands for a version
            encode, media_type = choose_encoder("")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Collected(families(await find(), counts.facts())))
        return Response(encode(registry), headers={"content-type": media_type})

    async def find() -> Measurements | None:
        try:
            return await within(ANSWER_LIMIT_S, measure(redis, catalog, scripts))
        except (RedisError, OSError):
            return None

    return metrics
