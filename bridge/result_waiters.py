"""Who waits for the end of a job: woken by its event, and for the ends that have none by one look for all of them."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from redis.asyncio import Redis

from bridge import keys
from bridge.broadcast import Broadcast, Subscription
from bridge.broker import is_away
from bridge.errors import JobNotFound
from bridge.event_stream import EventFilter
from bridge.events import TERMINAL_KINDS, Event, JobFailed, JobSucceeded
from bridge.inspector import Inspector, JobResult

__all__ = ["ResultWaiters"]

logger = logging.getLogger("aegis.events")

LOOK_EVERY_S: Final = 1.0
LOOK_AT_ONCE: Final = 1000


class ResultWaiters:
    """Waits for ends of jobs without a command for each waiter.

    The events of our workers come in the same step as the end. Under the stock ``arq`` command some endings write
    none (``docs/reference/guarantees.md``): once a second, while anybody waits, two commands ask of all jobs that are
    waited for whether any has a result, or has lost its body; those are read.

    Args:
        redis: the store.
        inspector: reads results.
        broadcast: tells of events.
    """

    def __init__(self, redis: Redis, inspector: Inspector, broadcast: Broadcast) -> None:
        self.redis = redis
        self.inspector = inspector
        self.broadcast = broadcast
        self._waiting: dict[str, set[Subscription]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, task_id: str, *, wait_s: float) -> JobResult:
        """A job's result as soon as it has ended; its state when ``wait_s`` is over, or when the broadcast closes.

        While Redis is away it waits on.

        Raises:
            JobNotFound: nothing is known of it, or not any more, and no event told of its end.
            UndecodablePayload: its result was not written by our codec.
        """
        if wait_s <= 0:
            return await self.inspector.result(task_id)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        ends = EventFilter(kinds=TERMINAL_KINDS, job_id=task_id)
        # First the subscription, then the look: an end comes after the one or is seen by the other.
        async with self.broadcast.subscribe(ends, is_urgent=True) as subscription:
            found = await self.inspector.result(task_id)
            timer = loop.call_later(wait_s, subscription.nudge)
            is_missed = False
            try:
                with self._watched(task_id, subscription):
                    while not found.is_final and not subscription.has_ended and loop.time() < until_s:
                        batch = await subscription.next_batch()
                        try:
                            found = await self.inspector.result(task_id)
                            is_missed = False
                        except JobNotFound:
                            if batch:
                                return told_by(batch.events[-1].event)
                            # Where a stock worker keeps no result, its event comes a moment after the job has gone.
                            if is_missed:
                                raise
                            is_missed = True
            finally:
                timer.cancel()
        return found

    @contextmanager
    def _watched(self, task_id: str, subscription: Subscription) -> Iterator[None]:
        self._waiting.setdefault(task_id, set()).add(subscription)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._waiting[task_id].discard(subscription)
            if not self._waiting[task_id]:
                del self._waiting[task_id]
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            waited_for = list(self._waiting)
            for start in range(0, len(waited_for), LOOK_AT_ONCE):
                try:
                    changed = await self._changed(waited_for[start : start + LOOK_AT_ONCE])
                except Exception as error:
                    if not is_away(error):
                        logger.exception("results cannot be looked for; trying again")
                    break
                for task_id in changed:
                    for subscription in self._waiting.get(task_id, ()):
                        subscription.nudge()

    async def _changed(self, task_ids: Sequence[str]) -> list[str]:
        """Those of the jobs that have a result, or no body: most have ended."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.exists(*map(keys.result, task_ids))
            pipe.exists(*map(keys.job, task_ids))
            results, bodies = await pipe.execute()
            if not results and bodies == len(task_ids):
                return []
            for task_id in task_ids:
                pipe.exists(keys.result(task_id))
                pipe.exists(keys.job(task_id))
            there = await pipe.execute()
        return [
            task_id
            for task_id, has_result, has_body in zip(task_ids, there[::2], there[1::2], strict=True)
            if has_result or not has_body
        ]


def told_by(event: Event) -> JobResult:
    """What the event of the end tells of a result that is not kept."""
    match event.read_data():
        case JobSucceeded(result=result):
            return JobResult(task_id=event.job_id, status="succeeded", result=result)
        case JobFailed(error=error):
            return JobResult(task_id=event.job_id, status="failed", error=error)
        case _:
            return JobResult(task_id=event.job_id, status="aborted")
