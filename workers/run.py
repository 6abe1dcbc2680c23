"""Runs the workers of one or more queues in this process, until a signal or, in burst mode, until they are done."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from arq.connections import ArqRedis
from arq.worker import Worker, create_worker

from bridge.broker import STORE_AWAY
from bridge.catalog import Queue
from bridge.errors import ConfigurationError
from workers.worker_settings import adopt

__all__ = ["make_worker", "run_workers"]


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
    if not queue.tasks:
        raise ConfigurationError(f"queue {queue.name!r} has no tasks defined; list functions in {queue.import_path}")
    settings_class = adopt(queue.settings_class, queue_key=queue.key)
    pool: dict[str, Any] = {} if redis is None else {"redis_pool": redis}
    return create_worker(settings_class, burst=burst, handle_signals=False, **pool)


async def run_workers(workers: Sequence[Worker]) -> None:
    """Every worker has ended: after SIGINT or SIGTERM, or because its burst is done.

    A worker that ends with an error ends the others too. Jobs that a signal interrupts are given back
    to their queues.

    Raises:
        Exception: what ended a worker, such as a lost connection.
    """
    running = [asyncio.create_task(worker.async_run()) for worker in workers]
    try:
        with signals_stop(workers):
            await asyncio.gather(*running)
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current and current.cancelling():
            raise
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for worker in workers:
            with contextlib.suppress(*STORE_AWAY, asyncio.CancelledError):
                await worker.close()


@contextlib.contextmanager
def signals_stop(workers: Sequence[Worker]) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM stop the workers as arq's own handlers would."""

    def stop(signum: signal.Signals) -> None:
        for worker in workers:
            if worker._job_completion_wait:
                worker.handle_sig_wait_for_completion(signum)
            else:
                worker.handle_sig(signum)

    loop = asyncio.get_running_loop()
    handled = [signal.SIGINT, signal.SIGTERM]
    for signum in handled:
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(signum, stop, signum)
    try:
        yield
    finally:
        for signum in handled:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signum)
