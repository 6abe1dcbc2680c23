"""``system_health_check``: processor, memory, disk and Redis as this worker sees them."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio.to_thread
import psutil
from msgspec import Meta, Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bridge.settings import read_settings

__all__ = ["CpuHealth", "DiskHealth", "MemoryHealth", "RedisHealth", "SystemHealth", "system_health_check"]

Percent = Annotated[float, Meta(ge=0, le=100)]


class CpuHealth(Struct, frozen=True, kw_only=True):
    """Processors of the host.

    Attributes:
        percent: busy over the measured interval, all cores together, 0 to 100.
        cores: logical cores.
        load_average: runnable processes over the last 1, 5 and 15 minutes.
    """

    percent: float
    cores: int
    load_average: tuple[float, float, float]


class MemoryHealth(Struct, frozen=True, kw_only=True):
    """Memory of the host, and of this worker process."""

    percent: float
    total_bytes: int
    available_bytes: int
    worker_rss_bytes: int


class DiskHealth(Struct, frozen=True, kw_only=True):
    """The file system that holds ``path``.

    Attributes:
        path: the data folder, or the worker's current folder where there is none.
    """

    path: str
    percent: float
    total_bytes: int
    free_bytes: int


class RedisHealth(Struct, frozen=True, kw_only=True):
    """The Redis or Valkey that holds the queues.

    Attributes:
        reachable: whether it answered a ping in time.
        ping_ms: how long the answer took.
        server: ``redis`` or ``valkey``.
        version: of that server.
        used_memory_bytes: memory of its data.
        connected_clients: connections, this one included.
        error: what went wrong; with ``reachable`` true, why it does not describe itself.
    """

    reachable: bool
    ping_ms: float | None = None
    server: str | None = None
    version: str | None = None
    used_memory_bytes: int | None = None
    connected_clients: int | None = None
    error: str | None = None


class SystemHealth(Struct, frozen=True, kw_only=True):
    """What `system_health_check` found.

    Attributes:
        status: ``degraded`` as soon as there is a warning.
        warnings: one sentence for each value over its threshold, and for a Redis that does not answer.
        checked_at_ms: Unix time.
        ran_ms: time from start to end.
    """

    status: Literal["healthy", "degraded"]
    warnings: list[str]
    cpu: CpuHealth
    memory: MemoryHealth
    disk: DiskHealth
    redis: RedisHealth
    checked_at_ms: int
    ran_ms: float


async def system_health_check(
    ctx: dict[str, Any],
    *,
    cpu_percent_warn: Percent = 90,
    memory_percent_warn: Percent = 90,
    disk_percent_warn: Percent = 90,
    ping_ms_warn: Annotated[float, Meta(ge=0, le=60_000)] = 100,
    cpu_interval_ms: Annotated[int, Meta(ge=10, le=2_000)] = 200,
    redis_timeout_ms: Annotated[int, Meta(ge=10, le=60_000)] = 2_000,
) -> SystemHealth:
    """Measures processor, memory, disk and Redis and warns of what is over its threshold.

    A Redis that does not answer is a warning in the result, not a failure of the job.

    Args:
        ctx: arq's job context.
        cpu_percent_warn: warn when the processors are busier, in %. Default 90.
        memory_percent_warn: warn when more of the memory is used, in %. Default 90.
        disk_percent_warn: warn when more of the data folder's disk is used, in %. Default 90.
        ping_ms_warn: warn when Redis takes longer to answer, in ms. Default 100.
        cpu_interval_ms: how long the processors are watched, 10 to 2 000 ms. Default 200.
        redis_timeout_ms: how long Redis may take for all its answers, 10 to 60 000 ms. Default 2 000.
    """
    checked_at_ms = time.time_ns() // 1_000_000
    started = time.perf_counter()
    cpu = await anyio.to_thread.run_sync(read_cpu, cpu_interval_ms / 1000, abandon_on_cancel=True)
    memory = await anyio.to_thread.run_sync(read_memory, abandon_on_cancel=True)
    disk = await anyio.to_thread.run_sync(read_disk, abandon_on_cancel=True)
    redis = await read_redis(ctx["redis"], redis_timeout_ms / 1000)

    warnings = []
    if cpu.percent > cpu_percent_warn:
        warnings.append(f"processors are {cpu.percent:g} % busy, over {cpu_percent_warn:g} %")
    if memory.percent > memory_percent_warn:
        warnings.append(f"memory is {memory.percent:g} % used, over {memory_percent_warn:g} %")
    if disk.percent > disk_percent_warn:
        warnings.append(f"the disk of {disk.path} is {disk.percent:g} % used, over {disk_percent_warn:g} %")
    if redis.ping_ms is None:
        warnings.append(f"Redis does not answer: {redis.error}")
    elif redis.ping_ms > ping_ms_warn:
        warnings.append(f"Redis took {redis.ping_ms:g} ms to answer, over {ping_ms_warn:g} ms")
    return SystemHealth(
        status="degraded" if warnings else "healthy",
        warnings=warnings,
        cpu=cpu,
        memory=memory,
        disk=disk,
        redis=redis,
        checked_at_ms=checked_at_ms,
        ran_ms=round((time.perf_counter() - started) * 1000, 3),
    )


def read_cpu(interval_s: float) -> CpuHealth:
    return CpuHealth(
        percent=psutil.cpu_percent(interval=interval_s),
        cores=psutil.cpu_count() or 1,
        load_average=psutil.getloadavg(),
    )


def read_memory() -> MemoryHealth:
    memory = psutil.virtual_memory()
    return MemoryHealth(
        percent=memory.percent,
        total_bytes=memory.total,
        available_bytes=memory.available,
        worker_rss_bytes=psutil.Process().memory_info().rss,
    )


def read_disk() -> DiskHealth:
    data_folder = read_settings().data_dir
    folder = (data_folder if data_folder.is_dir() else Path()).resolve()
    usage = psutil.disk_usage(str(folder))
    return DiskHealth(path=str(folder), percent=usage.percent, total_bytes=usage.total, free_bytes=usage.free)


async def read_redis(redis: Redis, timeout_s: float) -> RedisHealth:
    """Pings the server and asks it about itself; never raises for what the server does."""
    ping_ms = None
    try:
        async with asyncio.timeout(timeout_s):
            started = time.perf_counter()
            await redis.ping()
            ping_ms = round((time.perf_counter() - started) * 1000, 3)
            facts = await redis.info()
    except TimeoutError:
        return RedisHealth(
            reachable=ping_ms is not None, ping_ms=ping_ms, error=f"no answer within {timeout_s * 1000:g} ms"
        )
    except (RedisError, OSError) as error:
        return RedisHealth(reachable=ping_ms is not None, ping_ms=ping_ms, error=str(error) or type(error).__name__)
    return RedisHealth(
        reachable=True,
        ping_ms=ping_ms,
        server=facts.get("server_name", "redis"),
        version=facts.get("valkey_version") or facts.get("redis_version"),
        used_memory_bytes=facts.get("used_memory"),
        connected_clients=facts.get("connected_clients"),
    )
