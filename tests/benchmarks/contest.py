"""What every contender is asked to do, and how it is timed.

Peers run this in environments of their own, so it imports the standard library alone.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["AT_ONCE", "BULK", "Contender", "Tally", "compete", "drain", "enqueue", "fill", "latency"]

AT_ONCE: Final = 100
"""Jobs that a worker runs at a time."""
CALLERS: Final = 50
"""Calls under way where jobs are enqueued at once."""
BULK: Final = 500
"""Jobs in one call where there is a call for many."""
SETTLE_S: Final = 1.0
"""A worker that was started so long ago is idle."""


@dataclass
class Tally:
    """What the task functions have noticed.

    Attributes:
        wanted: runs of `noop` to wait for.
        latencies_ms: from just before each enqueue to the first line of its task.
    """

    wanted: int = 0
    runs: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    all_ran: asyncio.Event = field(default_factory=asyncio.Event)

    def ran(self) -> None:
        """A task does nothing but call this."""
        if not self.runs:
            self.first_s = time.perf_counter()
        self.runs += 1
        if self.runs == self.wanted:
            self.last_s = time.perf_counter()
            self.all_ran.set()

    def started(self, sent_s: float) -> None:
        """A task that was enqueued at this time has started."""
        self.latencies_ms.append((time.time() - sent_s) * 1000)


@dataclass(frozen=True)
class Contender:
    """A queue with its worker, in this process.

    Attributes:
        enqueue: stores one job of the task ``noop`` or ``stamp``.
        work: runs jobs, `AT_ONCE` at a time, for ever.
        enqueue_many: stores so many jobs of ``noop`` in one call, where there is a call for it.
        left: how many jobs have not ended, where it can be asked.
    """

    enqueue: Callable[..., Awaitable[object]]
    work: Callable[[], Coroutine[Any, Any, object]]
    enqueue_many: Callable[[int], Awaitable[object]] | None = None
    left: Callable[[], Awaitable[int]] | None = None


async def drain(contender: Contender, tally: Tally, jobs: int) -> dict[str, float]:
    """Jobs a second of one worker, from the first task's start until no job is left."""
    tally.wanted = jobs
    await fill(contender, tally, jobs)
    working = asyncio.create_task(contender.work())
    await until(tally.all_ran, working)
    ended_s = tally.last_s
    while contender.left and await contender.left():
        await asyncio.sleep(0.001)
        ended_s = time.perf_counter()
    return {"jobs_per_s": jobs / (ended_s - tally.first_s)}


async def latency(contender: Contender, tally: Tally, jobs: int) -> dict[str, float]:
    """Ms from the enqueue call to the start of the task, of a worker that has nothing else to do."""
    working = asyncio.create_task(contender.work())
    await asyncio.sleep(SETTLE_S)
    for _ in range(jobs):
        await contender.enqueue("stamp", sent_s=time.time())
        await asyncio.sleep(random.uniform(0.03, 0.13))
    while len(tally.latencies_ms) < jobs and not working.done():  # noqa: ASYNC110 - the tally has no event for it
        await asyncio.sleep(0.01)
    if working.done():
        working.result()
    ordered = sorted(tally.latencies_ms)
    return {"p50_ms": ordered[len(ordered) // 2], "p99_ms": ordered[int(len(ordered) * 0.99)]}


async def enqueue(contender: Contender, tally: Tally, jobs: int) -> dict[str, float]:
    """Jobs stored a second: one after the other, by many callers at once (twice as many), in bulk (ten times)."""
    started_s = time.perf_counter()
    for _ in range(jobs):
        await contender.enqueue("noop")
    rates = {"one_per_s": jobs / (time.perf_counter() - started_s)}
    started_s = time.perf_counter()
    await enqueue_at_once(contender, 2 * jobs)
    rates["at_once_per_s"] = 2 * jobs / (time.perf_counter() - started_s)
    if contender.enqueue_many:
        calls = 10 * jobs // BULK
        started_s = time.perf_counter()
        for _ in range(calls):
            await contender.enqueue_many(BULK)
        rates["bulk_per_s"] = calls * BULK / (time.perf_counter() - started_s)
    return rates


async def fill(contender: Contender, tally: Tally, jobs: int) -> dict[str, float]:
    """So many jobs are stored, each with one small argument."""
    if contender.enqueue_many:
        for start in range(0, jobs, BULK):
            await contender.enqueue_many(min(BULK, jobs - start))
    else:
        await enqueue_at_once(contender, jobs)
    return {"jobs": jobs}


async def enqueue_at_once(contender: Contender, jobs: int) -> None:
    numbers = iter(range(jobs))

    async def call() -> None:
        for number in numbers:
            await contender.enqueue("noop", user_id=number)

    await asyncio.gather(*[call() for _ in range(CALLERS)])


async def until(event: asyncio.Event, working: "asyncio.Task[object]") -> None:
    """The event is set; an error of the worker is raised."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
    if not event.is_set():
        waiting.cancel()
        working.result()
        raise RuntimeError("the worker has ended before its work")


def compete(make: Callable[[int, Tally], Awaitable[Contender]]) -> None:
    """The program of a peer: measures one figure on the Redis of a port, and prints it as JSON."""
    import uvloop

    measures = {"drain": drain, "latency": latency, "enqueue": enqueue, "fill": fill}
    parser = argparse.ArgumentParser()
    parser.add_argument("figure", choices=measures)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--port", type=int, required=True, help="of a Redis with an empty database 0")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)

    async def measure() -> None:
        tally = Tally()
        values = await measures[options.figure](await make(options.port, tally), tally, options.jobs)
        print(json.dumps(values), flush=True)
        os._exit(0)  # how long a worker takes to stop is not the question

    uvloop.run(measure())
