"""Runs the workers of one or more queues in this process, until a signal or, in burst mode, until they are done."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from arq.connections import ArqRedis
from arq.worker import get_kwargs

from bridge import keys
from bridge.catalog import Queue
from bridge.errors import ConfigurationError
from workers.batch_worker import BatchWorker
from workers.worker_settings import adopt

__all__ = ["make_worker", "run_workers", "stop_signals"]


def make_worker(
    queue: Queue, *, burst: bool = False, redis: ArqRedis | None = None, events_max_len: int = 1_000_000
) -> BatchWorker:
    """A `BatchWorker` for a queue; a plain settings class is adopted first, as if it were decorated.

    Must be called inside the event loop that will run it.

    Args:
        queue: the queue.
        burst: end once no job is left.
        redis: an open pool to use; by default the worker opens its own.
        events_max_len: entries that the event stream keeps, approximately.

    Raises:
        ConfigurationError: the queue has no tasks.
    """
    if not queue.has_work:
        raise ConfigurationError(f"queue {queue.name!r} has no tasks defined; list functions in {queue.import_path}")
    settings_class = adopt(queue.settings_class, queue_key=queue.key)
    own = vars(settings_class)
    options: dict[str, Any] = {
        **get_kwargs(settings_class),
        "functions": own["declared_functions"],
        **own["declared_options"],  # without our hooks: the scripts write the events
        "burst": burst,
        "handle_signals": False,
    }
    if redis is not None:
        options["redis_pool"] = redis
    if burst:
        options["health_check_key"] = keys.burst_health_check(queue.key)
    return BatchWorker(events_max_len=events_max_len, **options)


async def run_workers(workers: Sequence[BatchWorker]) -> None:
    """Every worker has ended and is closed: after SIGINT or SIGTERM, or because its burst is done.

    A worker that ends with an error ends the others too. Jobs that are cut short are given back to
    their queues.

    Raises:
        Exception: what ended a worker, such as a hook of the application at its start.
    """
    running = [asyncio.create_task(worker.async_run()) for worker in workers]
    all_done = asyncio.gather(*running)
    with stop_signals() as stop:
        stopping = asyncio.create_task(stop.wait())
        either: list[asyncio.Future[Any]] = [all_done, stopping]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            for worker in workers:
                worker.stop(signal.SIGTERM)
            outcomes = await asyncio.gather(*running, return_exceptions=True)
            await asyncio.gather(all_done, return_exceptions=True)
            for worker in workers:
                await worker.close()
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
