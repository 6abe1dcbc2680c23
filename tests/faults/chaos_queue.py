"""The queue of the chaos run: quick jobs, whose runs are counted where a crash of the worker cannot undo it."""

import asyncio
import random
import time
from typing import Any

from arq import Retry

from bridge import keys
from workers.worker_settings import queue

RUNS = "chaos:runs"


async def count(ctx: dict[str, Any], seconds: float = 0.0) -> str:
    """Counts its run, and waits a little."""
    await ctx["redis"].hincrby(RUNS, ctx["job_id"], 1)
    await asyncio.sleep(seconds * random.random())
    return str(ctx["job_id"])


async def block(ctx: dict[str, Any], seconds: float) -> None:
    """Blocks the event loop of its worker."""
    time.sleep(seconds)  # noqa: ASYNC251 - the point


async def retry_once(ctx: dict[str, Any], defer_s: float) -> None:
    """Succeeds the second time."""
    if ctx["job_try"] == 1:
        raise Retry(defer=defer_s)


async def wait(ctx: dict[str, Any]) -> None:
    """Runs until its worker dies or is told to stop."""
    await asyncio.sleep(3600)


@queue("chaos")
class WorkerSettings:
    """50 jobs at a time."""

    functions = [count, block, retry_once, wait]  # noqa: RUF012 - as arq has it
    max_jobs = 50
    max_tries = 20


QUEUE = keys.queue("chaos")
