"""A process that enqueues a hundred jobs as soon as it is told to: under idempotency keys, or under ids of its choice.

It prints for each the id, and whether the job is its own.
"""

import asyncio
import sys

import msgspec

from bridge.broker import open_redis
from bridge.catalog import load_catalog
from bridge.enqueue import Enqueuer, Replayed, TaskRequest
from bridge.errors import DuplicateJob
from bridge.settings import Settings


async def main(url: str, race: str) -> None:
    settings = Settings(redis_url=url)
    redis = open_redis(settings)
    enqueuer = Enqueuer(load_catalog(settings.queues), redis.scripts)

    async def enqueue(number: int) -> tuple[str, bool]:
        name = f"{race}-{number}"
        if race == "keys":
            request = TaskRequest(task_name="io_simulation_task", kwargs={"delay_ms": number})
            answer = await enqueuer.enqueue(request, idempotency_key=name, caller="both")
            return answer.task_id, not isinstance(answer, Replayed)
        try:
            await enqueuer.enqueue(TaskRequest(task_name="io_simulation_task", task_id=name))
        except DuplicateJob:
            return name, False
        return name, True

    await redis.rpush("racer", "ready")  # type: ignore[misc]
    while not await redis.blpop(["start"], timeout=1):  # type: ignore[misc]
        pass
    answers = [await enqueue(number) for number in range(50)]
    answers += await asyncio.gather(*(enqueue(number) for number in range(50, 100)))
    sys.stdout.buffer.write(msgspec.json.encode(answers))
    await redis.aclose(close_connection_pool=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
