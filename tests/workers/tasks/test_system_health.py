import asyncio
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis

from tests.workers.tasks.event_loop import ticking
from workers.tasks.system_health import SystemHealth, system_health_check


async def check(redis: Redis, **arguments: Any) -> SystemHealth:
    """A check whose outcome depends on nothing but ``arguments``: no threshold of the machine's load."""
    never = {"cpu_percent_warn": 100, "memory_percent_warn": 100, "disk_percent_warn": 100, "ping_ms_warn": 60_000}
    return await system_health_check({"redis": redis}, **{"cpu_interval_ms": 10, **never, **arguments})


async def test_check_reads_the_machine(redis: Redis) -> None:
    health = await check(redis)

    assert 0 <= health.cpu.percent <= 100
    assert health.cpu.cores == psutil.cpu_count()
    assert len(health.cpu.load_average) == 3
    assert health.memory.total_bytes == psutil.virtual_memory().total
    assert 0 < health.memory.available_bytes < health.memory.total_bytes
    assert 1024 * 1024 < health.memory.worker_rss_bytes < health.memory.total_bytes
    assert health.disk.total_bytes == psutil.disk_usage(".").total
    assert 0 < health.disk.free_bytes < health.disk.total_bytes
    assert health.status == "healthy"
    assert health.warnings == []


async def test_check_reads_the_server(redis: Redis) -> None:
    await redis.set("key", "x" * 10_000, ex=60)
    health = await check(redis)

    facts = await redis.info()
    assert health.redis.reachable
    assert health.redis.ping_ms is not None
    assert health.redis.ping_ms > 0
    assert (health.redis.server, health.redis.version) == ("valkey", facts["valkey_version"])
    assert health.redis.used_memory_bytes is not None
    assert health.redis.used_memory_bytes > 10_000
    assert health.redis.connected_clients is not None
    assert health.redis.connected_clients >= 1
    assert health.redis.error is None


@pytest.mark.parametrize(
    ("threshold", "warning"),
    [
        ("memory_percent_warn", "memory is "),
        ("disk_percent_warn", "the disk of "),
        ("ping_ms_warn", "Redis took "),
    ],
)
async def test_a_value_over_its_threshold_is_a_warning(redis: Redis, threshold: str, warning: str) -> None:
    health = await check(redis, **{threshold: 0})
    assert health.status == "degraded"
    assert [text.startswith(warning) for text in health.warnings] == [True]
    assert health.warnings[0].endswith(("over 0 %", "over 0 ms"))


async def test_busy_processors_are_a_warning(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 97.5)
    health = await check(redis, cpu_percent_warn=90)
    assert health.warnings == ["processors are 97.5 % busy, over 90 %"]


async def test_a_redis_that_is_not_there_is_reported_and_not_raised() -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))  # bound, but not listening: connections are refused
        async with Redis(port=placeholder.getsockname()[1]) as redis:
            health = await check(redis)
    assert health.status == "degraded"
    assert not health.redis.reachable
    assert health.redis.ping_ms is None
    assert health.redis.error is not None
    assert health.warnings == [f"Redis does not answer: {health.redis.error}"]
    assert health.memory.total_bytes > 0


async def test_a_redis_that_hangs_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with Redis(port=silent.getsockname()[1]) as redis:
            health = await check(redis, redis_timeout_ms=30)
    assert health.warnings == ["Redis does not answer: no answer within 30 ms"]
    assert health.ran_ms < 4_000


async def test_a_server_that_refuses_to_describe_itself_is_still_reachable(redis: Redis, valkey_url: str) -> None:
    await redis.acl_setuser("no-info", enabled=True, nopass=True, commands=["+@all", "-info"])
    try:
        async with Redis.from_url(valkey_url, username="no-info", password="") as limited:
            health = await check(limited)
    finally:
        await redis.acl_deluser("no-info")
    assert health.redis.reachable
    assert health.redis.version is None
    assert health.redis.error is not None
    assert "info" in health.redis.error
    assert health.status == "healthy"


async def test_disk_is_that_of_the_data_folder_where_there_is_one(
    redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AEGIS_DATA_DIR", raising=False)
    assert (await check(redis)).disk.path == str(tmp_path)
    (tmp_path / ".aegis").mkdir()
    assert (await check(redis)).disk.path == str(tmp_path / ".aegis")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("AEGIS_DATA_DIR", "elsewhere")
    assert (await check(redis)).disk.path == str(tmp_path / "elsewhere")


async def test_event_loop_goes_on_while_the_processors_are_watched(redis: Redis) -> None:
    async with ticking() as ticks:
        await check(redis, cpu_interval_ms=300)
        assert ticks.count > 0.1 * ticks.expected


async def test_a_cancelled_check_ends_at_once(redis: Redis) -> None:
    job = asyncio.create_task(check(redis, cpu_interval_ms=2_000))
    await asyncio.sleep(0.02)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
