"""Runs the workers of one or more queues in this process, until a signal or, in burst mode, until they are done."""

import asyncio
import contextlib
import signal
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from arq.connections import ArqRedis
from arq.worker import Worker, create_worker

from bridge import keys
from bridge.broker import STORE_AWAY
from bridge.catalog import Queue
from bridge.errors import ConfigurationError
from workers.worker_settings import adopt

__all__ = ["make_worker", "run_workers"]

CANCEL_AGAIN_S: Final = 1.0
COMPLETION_MARGIN_S: Final = 1.0


def make_worker(queue: Queue, *, burst: bool = False, redis: ArqRedis | None = None) -> Worker:
    """arq's worker for a queue; a plain settings class is adopted first, as if it were decorated.

    Must be called inside the event loop that will run it.

    Args:
        queue: the queue.
        burst: end once no job is left.
        redis: an open pool to use; by default the worker opens its own.

    Raises:
        ConfigurationError: the queue has no tasks.
    """
    if not queue.has_work:
        raise ConfigurationError(f"queue {queue.name!r} has no tasks defined; list functions in {queue.import_path}")
    settings_class = adopt(queue.settings_class, queue_key=queue.key)
    changes: dict[str, Any] = {} if redis is None else {"redis_pool": redis}
    if burst:
        changes["health_check_key"] = keys.burst_health_check(queue.key)
    return create_worker(settings_class, burst=burst, handle_signals=False, **changes)


async def run_workers(workers: Sequence[Worker]) -> None:
    """Every worker has ended and is closed: after SIGINT or SIGTERM, or because its burst is done.

    A worker that ends with an error ends the others too. Jobs that are cut short are given back to
    their queues.

    Raises:
        Exception: what ended a worker, such as a lost connection.
    """
    running = {asyncio.create_task(worker.async_run()): worker for worker in workers}
    all_done = asyncio.gather(*running)
    with stop_signals() as stop:
        stopping = asyncio.create_task(stop.wait())
        either: list[asyncio.Future[Any]] = [all_done, stopping]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await asyncio.gather(*(end(worker, task) for task, worker in running.items()))
            outcomes = await asyncio.gather(all_done, *running, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """While inside, SIGINT and SIGTERM set the event and do nothing else."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(signum, stop.set)
    try:
        yield stop
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signum)


async def end(worker: Worker, running: "asyncio.Task[None]") -> None:
    """Stops a worker in arq's way: no new jobs, time for those that run if it grants any, then cancel and close."""
    if worker._job_completion_wait and worker.tasks and not running.done():
        worker.handle_sig_wait_for_completion(signal.SIGTERM)
        await asyncio.wait({running}, timeout=worker._job_completion_wait + COMPLETION_MARGIN_S)
    await cancel({running})
    await cancel(worker.tasks.values())
    worker.tasks.clear()  # arq's own close would raise the CancelledError of a job that had hardly begun
    with contextlib.suppress(*STORE_AWAY):
        await worker.close()


async def cancel(tasks: Collection["asyncio.Task[Any]"]) -> None:
    """The tasks have ended, whatever with.

    They are cancelled as often as it takes: on Python 3.11, a cancellation that arrives just before a
    task enters ``asyncio.timeout(0)``, as redis-py does with each command, is swallowed there.
    """
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
