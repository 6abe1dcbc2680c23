"""A stock arq client, given the two functions that write and read JSON."""

from typing import Any

from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

from bridge.codec import job_deserializer, job_serializer
from bridge.errors import TaskFailed


async def open_pool(redis_url: str) -> ArqRedis:
    """arq's own pool, on the queue ``load_test``."""
    return await create_pool(
        RedisSettings.from_dsn(redis_url),
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
        default_queue_name="arq:queue:load_test",
    )


async def run(pool: ArqRedis, task_name: str, **arguments: Any) -> Any:
    """The result of a job, or what went wrong as a text."""
    job = await pool.enqueue_job(task_name, **arguments)
    if job is None:
        return "a job with this id exists"
    try:
        return await job.result(timeout=30)
    except TaskFailed as error:
        return f"{error.type}: {error.message}"
