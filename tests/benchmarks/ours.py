"""aegis-tasks as a contender: the `BatchWorker` of `aegis-tasks worker`, ``enqueue_job``, and the enqueue script."""

from typing import Any, Final

from bridge.aegis_redis import AegisRedis
from bridge.broker import open_redis
from bridge.catalog import load_catalog
from bridge.new_job import job_body, new_job_id
from bridge.scripts import NewJob
from bridge.settings import Settings
from tests.benchmarks.bench_queue import BENCH_KEY, IMPORT_PATHS
from tests.benchmarks.contest import Contender
from workers.run import make_worker

__all__ = ["QUEUE", "contender_at", "new_jobs", "open_pool"]

QUEUE: Final = "bench"


def open_pool(url: str) -> AegisRedis:
    """A client whose ``enqueue_job`` enqueues on the queue ``bench``."""
    redis = open_redis(Settings(redis_url=url))
    redis.default_queue_name = BENCH_KEY
    return redis


def new_jobs(
    count: int, task: str = "noop", *, queue: str = QUEUE, queue_key: str = BENCH_KEY, **arguments: Any
) -> list[NewJob]:
    """So many jobs of a task; ``noop`` gets a number, as every contender's does."""
    return [
        NewJob(
            job_id=new_job_id(),
            task=task,
            queue=queue,
            queue_key=queue_key,
            body=job_body(task, [], arguments or {"user_id": number}),
        )
        for number in range(count)
    ]


def contender_at(url: str) -> Contender:
    """Ours, on the Redis of this URL."""
    pool = open_pool(url)

    async def work() -> None:
        await make_worker(load_catalog(IMPORT_PATHS).queue(QUEUE), redis=open_pool(url)).async_run()

    async def enqueue_many(count: int) -> None:
        await pool.scripts.enqueue(new_jobs(count))

    async def left() -> int:
        return int(await pool.zcard(BENCH_KEY))

    return Contender(enqueue=pool.enqueue_job, work=work, enqueue_many=enqueue_many, left=left)
