"""Who works: what workers tell of themselves with each heartbeat (``lua/heartbeat.lua``)."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from redis.asyncio import Redis

from bridge import keys

__all__ = ["WorkerStatus", "read_worker_snapshot", "read_workers"]


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, which is one queue in one process.

    Attributes:
        state: ``missing`` when it has been silent for so long that it counts as lost, and no living worker has
            told so yet.
        runner: ``BatchWorker`` or ``arq``.
        running: attempts it runs now.
        done, failed, retried: attempts that have ended so since it started.
        heartbeat_age_ms: time since its latest heartbeat.
    """

    id: str
    state: Literal["running", "missing"]
    queue: str
    host: str
    pid: int
    runner: str
    max_jobs: int
    running: int
    done: int
    failed: int
    retried: int
    started_at: datetime
    heartbeat_age_ms: int


async def read_workers(redis: Redis) -> list[WorkerStatus]:
    """The registered workers, by queue and id."""
    return (await read_worker_snapshot(redis))[1]


async def read_worker_snapshot(redis: Redis) -> tuple[str, list[WorkerStatus]]:
    """The newest event (``0-0``: there is none) and who was registered then, unless gone a moment later."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.xrevrange(keys.EVENTS, count=1)
        pipe.zrange(keys.WORKERS, 0, -1, withscores=True)
        pipe.time()
        newest, beats, (seconds, microseconds) = await pipe.execute()
    now_ms = seconds * 1000 + microseconds // 1000
    async with redis.pipeline(transaction=False) as pipe:
        for worker_id, _ in beats:
            pipe.hgetall(keys.worker(worker_id.decode(errors="replace")))
        told = await pipe.execute()
    # One that has gone between the two reads tells nothing any more.
    found = [
        status(worker_id.decode(), fields, int(now_ms - at_ms))
        for (worker_id, at_ms), fields in zip(beats, told, strict=True)
        if fields
    ]
    event_id = newest[0][0].decode() if newest else "0-0"
    return event_id, sorted(found, key=lambda worker: (worker.queue, worker.id))


def status(worker_id: str, fields: dict[bytes, bytes], heartbeat_age_ms: int) -> WorkerStatus:
    values: dict[str, Any] = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    started_at = datetime.fromtimestamp(int(values.pop("started_at_ms")) / 1000, UTC)
    known = {
        "id": worker_id,
        "state": "missing" if heartbeat_age_ms > keys.WORKER_LOST_MS else "running",
        "started_at": started_at,
        "heartbeat_age_ms": max(0, heartbeat_age_ms),
    }
    return msgspec.convert({**values, **known}, WorkerStatus, strict=False)
