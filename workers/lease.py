"""Renews the leases of all jobs of a worker together, in a thread: a task that blocks the event loop loses none."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from redis.asyncio import Redis

from bridge import keys
from bridge.broker import is_away, same_place
from bridge.scripts import Scripts
from workers.backoff import Backoff
from workers.claim import Run

__all__ = ["LeaseKeeper"]

logger = logging.getLogger("aegis.workers")

RENEW_EVERY_S: Final = keys.LEASE_MS / 1000 / 4
"""Three renewals may fail before a lease ends."""
BATCH: Final = 1000


class LeaseKeeper:
    """Keeps leases from a thread of its own, with a connection of its own.

    Args:
        redis: the place; it gets its own client.
        queue_key: the queue's zset.
        leases: job id -> run, those to keep; the event loop changes it meanwhile.
        lost: called in the event loop with the runs that are no longer ours.
        events_max_len: as for `Scripts`.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        queue_key: str,
        leases: Mapping[str, Run],
        lost: Callable[[list[Run]], None],
        events_max_len: int,
    ) -> None:
        self.redis = redis
        self.queue_key = queue_key
        self.leases = leases
        self.lost = lost
        self.events_max_len = events_max_len
        self._main_loop = asyncio.get_running_loop()
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"leases of {queue_key}", daemon=True)

    def start(self) -> None:
        """Leases are kept from now on."""
        self._thread.start()

    async def stop(self) -> None:
        """The thread has ended."""
        await asyncio.to_thread(self._is_up.wait)
        if self._thread_loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has closed already
                self._thread_loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        self._thread_loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._is_up.set()
        stopping = asyncio.create_task(self._stop.wait())
        client = same_place(self.redis)
        scripts = Scripts(client, events_max_len=self.events_max_len)
        backoff = Backoff("leases cannot be renewed", logger)
        pause_s = RENEW_EVERY_S
        try:
            while not stopping.done():
                await asyncio.wait({stopping}, timeout=pause_s)
                try:
                    await self._renew(scripts)
                    backoff.reset()
                    pause_s = RENEW_EVERY_S
                except Exception as error:
                    await backoff.after(error, is_expected=is_away(error))
                    pause_s = 0
        finally:
            await client.aclose()
            await client.connection_pool.disconnect()

    async def _renew(self, scripts: Scripts) -> None:
        # A copy of a dict is one step for other threads.
        runs = list(dict(self.leases).values())
        for start in range(0, len(runs), BATCH):
            batch = runs[start : start + BATCH]
            positions = await scripts.renew(self.queue_key, [(run.job_id, run.token) for run in batch])
            if positions:
                self._main_loop.call_soon_threadsafe(self.lost, [batch[at] for at in positions])
