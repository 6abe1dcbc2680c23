"""arq, with its own worker and its own pickle."""

from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.constants import default_queue_name
from arq.worker import Worker

from tests.benchmarks.contest import AT_ONCE, Contender, Tally, compete


async def make(port: int, tally: Tally) -> Contender:
    async def noop(ctx: dict[Any, Any], user_id: int = 0) -> None:
        tally.ran()

    async def stamp(ctx: dict[Any, Any], sent_s: float) -> None:
        tally.started(sent_s)

    settings = RedisSettings(port=port)
    functions = [func(noop, name="noop"), func(stamp, name="stamp")]
    worker = Worker(functions, redis_settings=settings, max_jobs=AT_ONCE, handle_signals=False)
    pool = await create_pool(settings)

    async def left() -> int:
        return int(await pool.zcard(default_queue_name))

    return Contender(enqueue=pool.enqueue_job, work=worker.async_run, left=left)


if __name__ == "__main__":
    compete(make)
