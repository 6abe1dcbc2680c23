"""What Redis holds as numbers, for the metrics: queues, workers and the event stream, in a few round trips."""

from time import perf_counter
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bridge import keys
from bridge.catalog import Catalog
from bridge.queue_totals import QueueTotals, read_totals
from bridge.scripts import Depth, Scripts
from bridge.worker_registry import WorkerStatus, read_workers

__all__ = ["EventGroup", "EventStreamSize", "Measurements", "QueueSize", "measure"]


class QueueSize(msgspec.Struct, frozen=True, kw_only=True):
    """A queue now, and since its first job."""

    name: str
    depth: Depth
    totals: QueueTotals


class EventGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer group of the event stream.

    Attributes:
        pending: events that were given to it and not yet confirmed.
        lag: events that it has not been given yet; ``None`` where Redis does not tell.
    """

    name: str
    pending: int
    lag: int | None


class EventStreamSize(msgspec.Struct, frozen=True, kw_only=True):
    """The event stream. ``newest_at_ms``: when its newest entry was written, by Redis' clock; 0 when it is empty."""

    length: int
    newest_at_ms: int
    now_ms: int
    groups: list[EventGroup]


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of one moment, or nearly."""

    ping_s: float
    queues: list[QueueSize]
    workers: list[WorkerStatus]
    events: EventStreamSize


async def measure(redis: Redis, catalog: Catalog, scripts: Scripts) -> Measurements:
    """What there is now, of the queues of the catalog."""
    started_s = perf_counter()
    await redis.ping()
    ping_s = perf_counter() - started_s
    return Measurements(
        ping_s=ping_s,
        queues=await measure_queues(redis, catalog, scripts),
        workers=await read_workers(redis),
        events=await measure_events(redis),
    )


async def measure_queues(redis: Redis, catalog: Catalog, scripts: Scripts) -> list[QueueSize]:
    queues = list(catalog.queues.values())
    totals = await read_totals(redis, [queue.name for queue in queues])
    _, depths = await scripts.depths([(queue.name, queue.key) for queue in queues])
    return [
        QueueSize(name=queue.name, depth=depth, totals=total)
        for queue, depth, total in zip(queues, depths, totals, strict=True)
    ]


async def measure_events(redis: Redis) -> EventStreamSize:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xlen(keys.EVENTS)
        pipe.xrevrange(keys.EVENTS, count=1)
        pipe.time()
        length, newest, (seconds, microseconds) = await pipe.execute()
    return EventStreamSize(
        length=length,
        newest_at_ms=int(newest[0][0].partition(b"-")[0]) if newest else 0,
        now_ms=seconds * 1000 + microseconds // 1000,
        groups=await read_groups(redis) if length else [],
    )


async def read_groups(redis: Redis) -> list[EventGroup]:
    try:
        groups: list[dict[str, Any]] = await redis.xinfo_groups(keys.EVENTS)
    except ResponseError:  # the stream has gone meanwhile
        return []
    return [
        EventGroup(name=group["name"].decode(errors="replace"), pending=group["pending"], lag=group.get("lag"))
        for group in groups
    ]
