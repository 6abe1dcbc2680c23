"""Jobs that have ended, as workers leave them in Redis."""

from typing import Any

import msgspec

from bridge import keys
from bridge.aegis_redis import AegisRedis

__all__ = ["bury", "store_result"]


async def store_result(redis: AegisRedis, job_id: str, result: Any) -> None:
    """The result of a job that has succeeded."""
    fields = {"t": 1, "f": "io_simulation_task", "a": [], "k": {}, "et": 1000, "s": True, "r": result}
    stored = {**fields, "st": 2000, "ft": 3000, "q": keys.queue("load_test"), "id": job_id}
    await redis.set(keys.result(job_id), msgspec.json.encode(stored), px=60_000)


async def bury(
    redis: AegisRedis,
    *job_ids: str,
    queue: str = "load_test",
    task: str = "io_simulation_task",
    error: str = "ValueError",
    age_s: float = 0,
) -> None:
    """Dead letters of jobs that failed so long ago."""
    seconds, microseconds = await redis.time()
    failed_at_ms = seconds * 1000 + microseconds // 1000 - round(age_s * 1000)
    for job_id in job_ids:
        failure = {"type": error, "message": "no", "traceback": "Traceback …", "reason": "error"}
        fields = {"t": 3, "f": task, "a": [1], "k": {"x": 2}, "et": 1000, "s": False, "r": failure}
        letter = {**fields, "st": 2000, "ft": 3000, "q": keys.queue(queue), "id": job_id}
        await redis.zadd(keys.dead(queue), {job_id: failed_at_ms})
        await redis.set(keys.dead_letter(queue, job_id), msgspec.json.encode(letter), px=keys.DEAD_TTL_MS)
