"""streaQ, which takes many jobs in one pipeline."""

from contextlib import AsyncExitStack
from typing import Any

import coredis
from streaq import Worker

from tests.benchmarks.contest import AT_ONCE, Contender, Tally, compete

coredis.Config.optimized = True


async def make(port: int, tally: Tally) -> Contender:
    async def noop(user_id: int = 0) -> None:
        tally.ran()

    async def stamp(sent_s: float) -> None:
        tally.started(sent_s)

    # A Worker is opened once: by whoever enqueues, or by running.
    sender, worker = (
        Worker(redis_url=f"redis://127.0.0.1:{port}", concurrency=AT_ONCE, handle_signals=False) for _ in range(2)
    )
    for task in (noop, stamp):
        worker.task(name=task.__name__)(task)
    tasks: dict[str, Any] = {task.__name__: sender.task(name=task.__name__)(task) for task in (noop, stamp)}
    await AsyncExitStack().enter_async_context(sender)

    async def enqueue(task: str, **arguments: Any) -> None:
        await tasks[task].enqueue(**arguments)

    async def enqueue_many(count: int) -> None:
        await sender.enqueue_many([tasks["noop"].enqueue(user_id=number) for number in range(count)])

    async def left() -> int:
        return int(await sender.queue_size())

    return Contender(enqueue=enqueue, work=worker.run_async, enqueue_many=enqueue_many, left=left)


if __name__ == "__main__":
    compete(make)
