"""One typed async function per Lua file: every state change goes through one of them, in one call.

Scripts are sent by digest; when the server does not know one (it was restarted, or is another one)
redis-py loads it and calls again.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from bridge import keys
from bridge.events import EventData, encode_data

__all__ = ["Depth", "NewEvent", "NewJob", "Scripts"]

DUE_IDS_EXAMINED: Final = 1000


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is ready to be stored.

    Attributes:
        job_id: chosen by the caller or made by `bridge.enqueue.new_job_id`.
        task: registered name of the function.
        queue: short name of the queue.
        queue_key: its zset.
        body: the JSON before and after the enqueue time, which the script puts between them.
        delay_ms: earliest start, counted from the server's now.
        due_at_ms: earliest start as an instant; the later of the two counts.
        expires_ms: the job is dropped unless it starts within this time; 0 is never.
    """

    job_id: str
    task: str
    queue: str
    queue_key: str
    body: tuple[bytes, bytes]
    delay_ms: int = 0
    due_at_ms: int = 0
    expires_ms: int = 0


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of something that has already happened, for `Scripts.report`."""

    data: EventData
    job_id: str = ""
    queue: str = ""
    task: str = ""
    attempt: int = 0
    worker: str = ""
    trace: str = ""


class Depth(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs a queue holds. ``oldest_age_ms`` is of the oldest queued job, 0 when there is none."""

    queued: int
    in_progress: int
    deferred: int
    oldest_age_ms: int


class Scripts:
    """The scripts, bound to a connection.

    Args:
        redis: where they run.
        events_max_len: entries that the event stream keeps, approximately.
    """

    def __init__(self, redis: Redis, *, events_max_len: int) -> None:
        self.events_max_len = events_max_len
        self._enqueue = redis.register_script(source("enqueue"))
        self._report = redis.register_script(source("report"))
        self._depth = redis.register_script(source("depth"))

    async def enqueue(self, jobs: Sequence[NewJob]) -> tuple[int, list[str]]:
        """Stores each job whose id is free, with its event and a wake-up, all in one step.

        Returns:
            the server's time in ms, and for each job its event's stream id, or ``""`` when its id is taken.
        """
        arguments: list[Any] = [self.events_max_len]
        for job in jobs:
            arguments += (job.job_id, job.task, job.queue, job.queue_key, *job.body)
            arguments += (job.delay_ms, job.due_at_ms, job.expires_ms)
        now_ms, *event_ids = await self._enqueue(args=arguments)
        return int(now_ms), [event_id.decode() for event_id in event_ids]

    async def report(self, events: Sequence[NewEvent]) -> list[str]:
        """Writes events and nothing else; returns their ids."""
        arguments: list[Any] = [self.events_max_len]
        for event in events:
            kind, data = encode_data(event.data)
            arguments += (kind, event.job_id, event.queue, event.task, event.attempt, event.worker, event.trace, data)
        return [event_id.decode() for event_id in await self._report(args=arguments)]

    async def depth(self, queue_key: str) -> Depth:
        """Counts the jobs of a queue by state."""
        queued, in_progress, deferred, oldest_due, now = await self._depth(keys=[queue_key], args=[DUE_IDS_EXAMINED])
        oldest_age_ms = int(now) - int(float(oldest_due)) if oldest_due != b"0" else 0
        return Depth(queued=queued, in_progress=in_progress, deferred=deferred, oldest_age_ms=oldest_age_ms)


@cache
def source(name: str) -> str:
    """The text of ``lua/<name>.lua`` below the key names and the prelude."""
    folder = files("bridge") / "lua"
    constants = ", ".join(f"{name} = '{key}'" for name, key in keys.LUA_CONSTANTS.items())
    prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
    return f"local KEY = {{ {constants} }}\n{prelude}\n{(folder / f'{name}.lua').read_text(encoding='utf-8')}"
