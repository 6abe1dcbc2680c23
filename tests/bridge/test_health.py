import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import Catalog
from bridge.health import DetailedHealth, read_health, why_not_ready, within
from bridge.inspector import Inspector
from bridge.settings import Settings
from tests.cli.conftest import valkey
from tests.cli.processes import ValkeyChild

__all__ = ["valkey"]

PLACE = "redis://somewhere"


@pytest.fixture
async def own(valkey: ValkeyChild) -> AsyncIterator[AegisRedis]:
    """A client of a Valkey that may be troubled."""
    client = open_redis(Settings(redis_url=valkey.url))
    yield client
    await client.aclose(close_connection_pool=True)


async def health_of(client: AegisRedis, catalog: Catalog) -> DetailedHealth:
    inspector = Inspector(client, catalog, client.scripts)
    return await read_health(client, inspector, address=PLACE)


async def test_redis_that_takes_writes_is_ready_and_has_nothing_written(store: AegisRedis, catalog: Catalog) -> None:
    assert await why_not_ready(store, PLACE) is None
    health = await health_of(store, catalog)
    assert (health.redis.reachable, health.redis.writable, health.redis.reason) == (True, True, None)
    assert await store.keys() == []


async def test_replica_is_not_ready(own: AegisRedis, catalog: Catalog) -> None:
    await own.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    health = await health_of(own, catalog)
    assert (health.status, health.redis.reachable, health.redis.writable) == ("down", True, False)
    assert health.reasons[0].startswith(
        f"Redis at {PLACE} takes no writes: You can't write against a read only replica"
    )
    assert health.redis.server == "Valkey"
    assert [queue.name for queue in health.queues] == list(catalog.queues), "it can be read"


async def test_full_memory_is_not_ready_until_there_is_room(own: AegisRedis) -> None:
    await own.config_set("maxmemory", "1")
    assert "takes no writes" in str(await why_not_ready(own, PLACE))
    await own.config_set("maxmemory", "0")
    assert await why_not_ready(own, PLACE) is None


async def test_silent_redis_is_told_in_time(
    own: AegisRedis, valkey: ValkeyChild, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.health.ANSWER_LIMIT_S", 0.1)
    assert await why_not_ready(own, PLACE) is None
    valkey.signal(signal.SIGSTOP)
    reason = f"Redis at {PLACE} does not answer: no answer within 0.1 s"
    assert await why_not_ready(own, PLACE) == reason
    health = await health_of(own, catalog)
    assert (health.status, health.redis.reachable, health.reasons, health.queues) == ("down", False, [reason], [])
    valkey.signal(signal.SIGCONT)
    assert await why_not_ready(own, PLACE) is None


async def test_dead_redis_is_told(own: AegisRedis, valkey: ValkeyChild) -> None:
    valkey.kill()
    assert str(await why_not_ready(own, PLACE)).startswith(f"Redis at {PLACE} does not answer: ")


async def test_what_takes_too_long_is_cancelled() -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(RedisTimeoutError, match=r"no answer within 0\.01 s"):
        await within(0.01, wait())
    await ended.wait()
