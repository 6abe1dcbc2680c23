"""The gateway inside this process, on fakeredis: its routes, with nothing in between but the ASGI protocol."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import Catalog, load_catalog
from bridge.gateway.app import create_app
from bridge.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(redis_url="memory://", data_dir=tmp_path)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The project's queues, and one whose tasks take more kinds of arguments."""
    return load_catalog([*Settings().queues, "tests.gateway.mail_queue"])


@pytest.fixture
async def gateway(settings: Settings, catalog: Catalog, redis: AegisRedis) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway, whose Redis is empty and is that of the fixture `redis`."""
    own_redis = open_redis(settings)
    app: Any = create_app(settings, catalog, own_redis)  # to httpx and Litestar, ASGI has different types
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client
    await own_redis.aclose(close_connection_pool=True)
