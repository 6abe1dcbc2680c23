"""``load_test_orchestrator``: enqueues many jobs of one task, in batches."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Annotated, Any, Final, Literal

import anyio
from arq.connections import ArqRedis
from msgspec import Meta, Struct

from workers.progress import report_progress

__all__ = ["EnqueuedLoad", "LoadTaskName", "load_test_orchestrator"]

LoadTaskName = Literal[
    "cpu_intensive_task", "io_simulation_task", "memory_operations_task", "failure_testing_task", "noop_task"
]

ENQUEUES_IN_FLIGHT: Final = 20
"""Each needs a connection of its own: this bounds what one load test takes from the worker's pool."""


class EnqueuedLoad(Struct, frozen=True, kw_only=True):
    """What `load_test_orchestrator` enqueued; its jobs may still be waiting or running.

    Attributes:
        task_name: the task of every job.
        num_tasks: jobs asked for; their ids are ``task_id_prefix`` followed by 0 to ``num_tasks - 1``.
        enqueued: new jobs of this run.
        already_enqueued: jobs that an earlier try of the same orchestrator job had enqueued.
        task_id_prefix: see ``num_tasks``.
        batches: number of batches.
        queue_key: Redis key of the queue they went to.
        started_at_ms: Unix time at which this run began to enqueue.
        ran_ms: time from the first to the last job, pauses included.
    """

    task_name: LoadTaskName
    num_tasks: int
    enqueued: int
    already_enqueued: int
    task_id_prefix: str
    batches: int
    queue_key: str
    started_at_ms: int
    ran_ms: float


async def load_test_orchestrator(
    ctx: dict[str, Any],
    *,
    task_name: LoadTaskName = "io_simulation_task",
    num_tasks: Annotated[int, Meta(ge=1, le=10_000)] = 50,
    batch_size: Annotated[int, Meta(ge=1, le=1_000)] = 20,
    delay_between_batches_ms: Annotated[int, Meta(ge=0, le=10_000)] = 50,
) -> EnqueuedLoad:
    """Enqueues many jobs of one task in batches and does not wait for them.

    The jobs go to the queue that this job came from, with ids made from its own (``<id>:0``, ``<id>:1``
    …): a retry adds what is missing and nothing twice, as long as the results of the first jobs are
    kept. They run with their default arguments.

    Args:
        ctx: arq's job context; its ``redis`` has this worker's queue as default queue.
        task_name: what to enqueue. Default ``io_simulation_task``.
        num_tasks: how many, 1 to 10 000. Default 50.
        batch_size: how many without a pause, 1 to 1 000. Default 20.
        delay_between_batches_ms: the pause, 0 to 10 000 ms. Default 50. All pauses together must fit
            into this task's timeout.
    """
    redis: ArqRedis = ctx["redis"]
    task_id_prefix = f"{ctx['job_id']}:"
    queue_key = redis.default_queue_name
    in_flight = asyncio.Semaphore(ENQUEUES_IN_FLIGHT)

    async def enqueue(number: int) -> bool:
        async with in_flight:
            job = await redis.enqueue_job(task_name, _job_id=f"{task_id_prefix}{number}", _queue_name=queue_key)
            return job is not None

    started_at_ms = time.time_ns() // 1_000_000
    started = time.perf_counter()
    enqueued = 0
    first_of_batches = range(0, num_tasks, batch_size)
    for first in first_of_batches:
        if first > 0:
            await anyio.sleep(delay_between_batches_ms / 1000)
        batch = range(first, min(first + batch_size, num_tasks))
        enqueued += sum(await all_of([enqueue(number) for number in batch]))
        report_progress(ctx, batch.stop, num_tasks)
    return EnqueuedLoad(
        task_name=task_name,
        num_tasks=num_tasks,
        enqueued=enqueued,
        already_enqueued=num_tasks - enqueued,
        task_id_prefix=task_id_prefix,
        batches=len(first_of_batches),
        queue_key=queue_key,
        started_at_ms=started_at_ms,
        ran_ms=round((time.perf_counter() - started) * 1000, 3),
    )


async def all_of(calls: list[Coroutine[Any, Any, bool]]) -> list[bool]:
    """Waits until every call has ended, and only then raises the first failure: none goes on in the background."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    answers = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        answers.append(outcome)
    return answers
