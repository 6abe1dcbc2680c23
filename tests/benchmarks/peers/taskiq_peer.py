"""taskiq with its broker on Redis streams and its result backend on Redis."""

from typing import Any

from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from tests.benchmarks.contest import AT_ONCE, Contender, Tally, compete

KEEP_RESULT_S = 3600


async def make(port: int, tally: Tally) -> Contender:
    async def noop(user_id: int = 0) -> None:
        tally.ran()

    async def stamp(sent_s: float) -> None:
        tally.started(sent_s)

    url = f"redis://127.0.0.1:{port}"
    results: Any = RedisAsyncResultBackend(redis_url=url, result_ex_time=KEEP_RESULT_S)
    broker: Any = RedisStreamBroker(url=url).with_result_backend(results)
    tasks = {task.__name__: broker.task(task_name=task.__name__)(task) for task in (noop, stamp)}
    await broker.startup()

    async def enqueue(task: str, **arguments: Any) -> None:
        await tasks[task].kiq(**arguments)

    async def work() -> None:
        broker.is_worker_process = True
        await run_receiver_task(broker, max_async_tasks=AT_ONCE)

    return Contender(enqueue=enqueue, work=work)


if __name__ == "__main__":
    compete(make)
