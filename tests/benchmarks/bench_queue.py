"""The queues that are measured: `Bench` runs 100 jobs at a time, `Sleepers` 32."""

import asyncio
from typing import Any, Final

from bridge import keys
from tests.benchmarks.contest import AT_ONCE, Tally
from workers.worker_settings import queue

IMPORT_PATHS: Final = ("tests.benchmarks.bench_queue.Bench", "tests.benchmarks.bench_queue.Sleepers")

tally: Final = Tally()
"""Of the worker in this process."""


async def noop(ctx: dict[str, Any], user_id: int = 0) -> None:
    """Counts its run."""
    tally.ran()


async def stamp(ctx: dict[str, Any], sent_s: float) -> None:
    """Notes when it started."""
    tally.started(sent_s)


async def sleep(ctx: dict[str, Any], seconds: float) -> None:
    """Takes this time."""
    await asyncio.sleep(seconds)


@queue("bench")
class Bench:
    """As many at a time as the peers run."""

    functions = [noop, stamp, sleep]  # noqa: RUF012 - as arq has it
    max_jobs = AT_ONCE


@queue("sleepers")
class Sleepers:
    """As many at a time as in the benchmark that streaQ publishes."""

    functions = [sleep]  # noqa: RUF012
    max_jobs = 32


BENCH_KEY: Final = keys.queue("bench")
SLEEPERS_KEY: Final = keys.queue("sleepers")
