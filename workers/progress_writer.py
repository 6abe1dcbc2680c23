"""What tasks report, on its way to Redis: thinned, and in one call for all jobs of a worker."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from bridge.broker import is_away
from bridge.events import JobProgressed
from bridge.scripts import NewProgress, Scripts
from workers.backoff import Backoff

__all__ = ["Attempt", "ProgressWriter"]

logger = logging.getLogger("aegis.workers")

WRITE_EVERY_S: Final = 0.25
BATCH: Final = 500
"""Jobs in one call: a script blocks the server."""
SETTLE_S: Final = 1.0
"""How long the end of an attempt waits for its last report to be written."""


class Attempt(Protocol):
    """An attempt of a job, by identity; the fields are those of `NewProgress`."""

    job_id: str
    token: str
    task: str
    attempt: int
    trace: str


class ProgressWriter:
    """Keeps the latest report of each attempt and writes what is new a few times a second.

    Without reports it sends nothing.

    Args:
        scripts: where to.
        queue: short name.
        worker: who writes, for the events.
        attempt_of: the attempt that a ``ctx`` belongs to, ``None`` when there is none or it has ended; called in
            the thread of the task.
    """

    def __init__(
        self,
        scripts: Scripts,
        *,
        queue: str,
        worker: str,
        attempt_of: Callable[[Mapping[Any, Any]], Attempt | None],
    ) -> None:
        self.scripts = scripts
        self.queue = queue
        self.worker = worker
        self.attempt_of = attempt_of
        self.news: dict[Attempt, JobProgressed] = {}
        self._loop = asyncio.get_running_loop()
        self._is_told = False
        self._has_news = asyncio.Event()
        self._in_flight: dict[Attempt, JobProgressed] = {}
        self._has_landed = asyncio.Event()

    @property
    def has_unwritten(self) -> bool:
        """Whether anything is reported that is not in Redis yet."""
        return bool(self.news or self._in_flight)

    def report(self, ctx: Mapping[Any, Any], progress: JobProgressed) -> None:
        """The progress will be written, unless a newer one comes first. Any thread may call this."""
        attempt = self.attempt_of(ctx)
        if attempt is None:
            return
        # News first and only then the question whether to wake; run() does it the other way round: none is missed.
        self.news[attempt] = progress
        if not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the worker has ended, and only an abandoned thread goes on
                self._loop.call_soon_threadsafe(self._has_news.set)

    async def run(self) -> None:
        """Writes what is reported, for ever."""
        backoff = Backoff("progress of jobs cannot be written", logger)
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            self._is_told = False
            attempts = list(self.news)
            if len(attempts) > BATCH:
                self._has_news.set()
            self._in_flight = self._take(attempts[:BATCH])
            self._has_landed.clear()
            try:
                await self._write(self._in_flight)
            except Exception as error:
                for attempt, progress in self._in_flight.items():
                    self.news.setdefault(attempt, progress)
                self._has_news.set()
                self._landed()
                await backoff.after(error, is_expected=is_away(error))
            else:
                backoff.reset()
                self._landed()
                await asyncio.sleep(WRITE_EVERY_S)

    async def settle(self, attempts: Iterable[Attempt]) -> None:
        """What these attempts have reported is written, or given up if that does not work at once."""
        own = [attempt for attempt in attempts if attempt in self.news or attempt in self._in_flight]
        if own:
            settling = asyncio.ensure_future(self._write_last(own))
            # Not asyncio.timeout(): on Python 3.11 redis-py may swallow its cancellation, and the caller may be
            # a task that has been cancelled.
            await asyncio.wait({settling}, timeout=SETTLE_S)
            settling.cancel()

    async def _write_last(self, attempts: list[Attempt]) -> None:
        try:
            if not self._in_flight.keys().isdisjoint(attempts):
                await self._has_landed.wait()  # an older report must not overtake the last one
            await self._write(self._take(attempts))
        except Exception as error:
            logger.warning("the last progress of %d jobs is not written: %s", len(attempts), error)

    def _take(self, attempts: list[Attempt]) -> dict[Attempt, JobProgressed]:
        taken = {attempt: self.news.pop(attempt, None) for attempt in attempts}
        return {attempt: progress for attempt, progress in taken.items() if progress is not None}

    async def _write(self, news: Mapping[Attempt, JobProgressed]) -> None:
        reports = [
            NewProgress(a.job_id, a.token, a.task, a.attempt, msgspec.json.encode(progress), a.trace)
            for a, progress in news.items()
        ]
        if reports:
            await self.scripts.progress(self.queue, worker=self.worker, reports=reports)

    def _landed(self) -> None:
        self._in_flight = {}
        self._has_landed.set()
