"""How Redis, the queues and their workers are: what ``/health`` and ``aegis-tasks health`` tell."""

import asyncio
import platform
from collections.abc import Coroutine
from importlib.metadata import version
from time import perf_counter
from typing import Any, Final, Literal, TypeVar

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bridge import keys
from bridge.broker import is_away
from bridge.inspector import Inspector, QueueStatus

__all__ = ["ANSWER_LIMIT_S", "DetailedHealth", "RedisHealth", "read_health", "why_not_ready", "within"]

ANSWER_LIMIT_S: Final = 2.0
"""How long Redis may take for all that is asked of it: whoever asks for health wants to know soon."""

Answer = TypeVar("Answer")


class RedisHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Redis as this process sees it.

    Attributes:
        reachable: whether it answers.
        writable: whether it takes writes: not a replica, nor out of memory, nor loading its data.
        reason: why it does not do the one or the other.
    """

    address: str
    reachable: bool
    writable: bool
    reason: str | None = None
    ping_ms: float | None = None
    server: Literal["Valkey", "Redis"] | None = None
    version: str | None = None
    used_memory_bytes: int | None = None
    connected_clients: int | None = None
    append_only_file: bool | None = None


class DetailedHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator looks at first.

    Attributes:
        status: ``degraded`` when a queue has tasks but no worker, ``down`` when Redis is away or takes no writes.
        reasons: why it is not ``healthy``.
        offline: queues with tasks but no worker.
    """

    status: Literal["healthy", "degraded", "down"]
    reasons: list[str]
    offline: list[str]
    version: str
    python: str
    redis: RedisHealth
    queues: list[QueueStatus]


async def within(limit_s: float, asking: Coroutine[Any, Any, Answer]) -> Answer:
    """What ``asking`` returns.

    Raises:
        redis.exceptions.TimeoutError: it has not returned in time.
    """
    # Not asyncio.timeout: on Python 3.11 redis-py may swallow the cancellation, and this would wait on.
    task = asyncio.ensure_future(asking)
    try:
        await asyncio.wait({task}, timeout=limit_s)
        if not task.done():
            raise RedisTimeoutError(f"no answer within {limit_s:g} s")
        return task.result()
    finally:
        task.cancel()


async def why_not_ready(redis: Redis, address: str) -> str | None:
    """Why Redis cannot be written to now; ``None`` when it can."""
    try:
        await within(ANSWER_LIMIT_S, try_to_write(redis))
    except (RedisError, OSError) as error:
        told = str(error) or type(error).__name__
        return f"Redis at {address} {verdict(error)}: {told}"
    return None


async def try_to_write(redis: Redis) -> None:
    """A write that changes nothing: Redis refuses it for the same reasons as any other."""
    await redis.zadd(keys.WORKERS, {"": 0}, xx=True)


def verdict(error: Exception) -> str:
    return "takes no writes" if isinstance(error, ResponseError) or is_refusal(error) else "does not answer"


def is_refusal(error: Exception) -> bool:
    """Whether Redis has answered, with an error that redis-py counts among those of the connection."""
    return type(error).__name__ in {"ReadOnlyError", "OutOfMemoryError", "BusyLoadingError"}


async def read_health(redis: Redis, inspector: Inspector, *, address: str) -> DetailedHealth:
    """How everything is, within 2 s also when Redis is silent. ``address`` is where Redis is, without credentials."""
    health = await redis_health(redis, address)
    queues: list[QueueStatus] = []
    if health.reachable:
        try:
            queues = await within(ANSWER_LIMIT_S, inspector.queues())
        except (RedisError, OSError) as error:
            if not is_away(error):
                raise
            health = msgspec.structs.replace(health, reachable=False, writable=False, reason=str(error))
    is_down = not (health.reachable and health.writable)
    offline = [queue.name for queue in queues if queue.message == "worker offline"]
    without_worker = [f"queue {name} has no worker" for name in offline]
    return DetailedHealth(
        status="down" if is_down else "degraded" if offline else "healthy",
        reasons=[*([health.reason or "Redis is away"] if is_down else []), *without_worker],
        offline=offline,
        version=version("aegis-tasks"),
        python=platform.python_version(),
        redis=health,
        queues=queues,
    )


async def redis_health(redis: Redis, address: str) -> RedisHealth:
    started_s = perf_counter()
    try:
        await within(ANSWER_LIMIT_S, ping(redis))
        ping_ms = (perf_counter() - started_s) * 1000
        info = await within(ANSWER_LIMIT_S, describe_server(redis))
    except (RedisError, OSError) as error:
        reason = f"Redis at {address} {verdict(error)}: {str(error) or type(error).__name__}"
        return RedisHealth(address=address, reachable=False, writable=False, reason=reason)
    reason_not_ready = await why_not_ready(redis, address)
    return RedisHealth(
        address=address,
        reachable=True,
        writable=reason_not_ready is None,
        reason=reason_not_ready,
        ping_ms=round(ping_ms, 3),
        server=("Valkey" if "valkey_version" in info else "Redis") if info else None,
        version=info.get("valkey_version") or info.get("redis_version"),
        used_memory_bytes=info.get("used_memory"),
        connected_clients=info.get("connected_clients"),
        append_only_file=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
    )


async def ping(redis: Redis) -> None:
    await redis.ping()


async def describe_server(redis: Redis) -> dict[str, Any]:
    """INFO; empty where the user of the connection may not ask for it."""
    try:
        info: dict[str, Any] = await redis.info()
    except ResponseError:
        return {}
    return info
