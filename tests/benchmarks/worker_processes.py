"""`aegis-tasks worker` processes on the queues that are measured, and what the event stream tells of them."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from bridge import keys
from bridge.event_stream import EventStream
from tests.benchmarks.bench_queue import IMPORT_PATHS
from tests.cli.processes import Command, Commands

__all__ = ["POLL_S", "commands_on", "started_workers", "until_events"]

POLL_S: Final = 0.05
PAGE: Final = 1000


@contextmanager
def commands_on(url: str) -> Iterator[Commands]:
    """Starts commands that use this Redis; what still runs at the end is killed."""
    with tempfile.TemporaryDirectory() as folder:
        commands = Commands(Path(folder), REDIS_URL=url, AEGIS_QUEUES=",".join(IMPORT_PATHS))
        try:
            yield commands
        finally:
            commands.close()


async def started_workers(commands: Commands, redis: Redis, count: int, queue: str) -> list[Command]:
    """So many worker processes that have told that they are ready."""
    after = await EventStream(redis).last_id()
    workers = [commands.start("worker", queue) for _ in range(count)]
    await until_events(redis, "worker.started", count, after=after, alive=workers)
    return workers


async def until_events(redis: Redis, kind: str, count: int, *, after: str, alive: list[Command]) -> list[int]:
    """The times of the first ``count`` events of a kind after an id, ms, once they are there.

    Raises:
        InVainError: one of the processes has ended.
    """
    found: list[int] = []
    while len(found) < count:
        entries = await redis.xrange(keys.EVENTS, min=f"({after}", count=PAGE)
        found += [int(entry_id.partition(b"-")[0]) for entry_id, fields in entries if fields[b"kind"] == kind.encode()]
        if entries:
            after = entries[-1][0].decode()
        if len(entries) < PAGE:
            for command in alive:
                command.assert_is_running()
            await asyncio.sleep(POLL_S)
    return found[:count]
