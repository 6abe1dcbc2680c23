"""Redis inside this process, for a quick look and for tests: fakeredis behind our client."""

from functools import cache
from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer
from redis.asyncio.client import Pipeline

from bridge.aegis_redis import AegisRedis

__all__ = ["open_in_memory"]

NO_SUCH_KEY = "arq and our health page ask for INFO, which fakeredis has not: this hash is empty, as their answer is"


class InMemoryPipeline(Pipeline):
    """A pipeline whose INFO says nothing."""

    def info(self, *_: Any, **__: Any) -> Any:
        """Queues a command whose answer is an empty dict."""
        return self.hgetall(NO_SUCH_KEY)


class InMemoryRedis(AegisRedis):
    """An `AegisRedis` whose INFO says nothing."""

    async def info(self, *_: Any, **__: Any) -> dict[str, Any]:
        """An empty dict."""
        return {}

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """As in `redis.asyncio.Redis`."""
        return InMemoryPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def open_in_memory() -> AegisRedis:
    """A client of this process's one server, so that a gateway and workers in it share their jobs."""
    return InMemoryRedis(pool_or_conn=FakeAsyncRedis(server=server()).connection_pool)


@cache
def server() -> FakeServer:
    return FakeServer()
