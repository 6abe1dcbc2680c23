"""SAQ on Redis."""

from typing import Any

from saq import Queue, Worker

from tests.benchmarks.contest import AT_ONCE, Contender, Tally, compete


async def make(port: int, tally: Tally) -> Contender:
    async def noop(ctx: Any, *, user_id: int = 0) -> None:
        tally.ran()

    async def stamp(ctx: Any, *, sent_s: float) -> None:
        tally.started(sent_s)

    queue = Queue.from_url(f"redis://127.0.0.1:{port}")
    await queue.connect()
    functions: list[Any] = [("noop", noop), ("stamp", stamp)]
    worker = Worker(queue, functions=functions, concurrency=AT_ONCE)

    async def left() -> int:
        return int(await queue.count("incomplete"))

    return Contender(enqueue=queue.enqueue, work=worker.start, left=left)


if __name__ == "__main__":
    compete(make)
