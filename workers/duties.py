"""Small things that a worker does again and again, in a thread: they go on while a task blocks the event loop."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from typing import Any, Final, Protocol

from redis.asyncio import Redis

from bridge.broker import is_away, same_place
from bridge.scripts import Scripts
from workers.backoff import Backoff

__all__ = ["Duty", "DutyThread", "repeat"]

logger = logging.getLogger("aegis.workers")


LAST_ANSWER_S: Final = 0.5
"""How long a thread that is to end waits for the answer to what it has sent."""


class Duty(Protocol):
    """What is done every so many seconds; ``trouble`` says for the log what does not work when it fails."""

    every_s: float
    trouble: str

    async def do(self, scripts: Scripts) -> None:
        """It is done once."""


async def repeat(duty: Duty, scripts: Scripts, until: "asyncio.Future[Any]") -> None:
    """The duty has been done again and again until the future was done, sooner after a failure than else."""
    backoff = Backoff(duty.trouble, logger)
    pause_s = duty.every_s
    while not (await asyncio.wait({until}, timeout=pause_s))[0]:
        try:
            await duty.do(scripts)
            backoff.reset()
            pause_s = duty.every_s
        except Exception as error:
            await backoff.after(error, is_expected=is_away(error))
            pause_s = 0


class DutyThread:
    """Does duties in a thread of its own, with a connection of its own; none of them waits for another.

    Args:
        redis: the place; the thread gets its own client.
        duties: what to do.
        name: of the thread.
        events_max_len: as for `Scripts`.
    """

    def __init__(self, redis: Redis, duties: Sequence[Duty], *, name: str, events_max_len: int) -> None:
        self.redis = redis
        self.duties = duties
        self.events_max_len = events_max_len
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """The duties are done from now on, each for the first time after its pause."""
        self._thread.start()

    async def stop(self) -> None:
        """The thread has ended: nothing is done any more."""
        await asyncio.to_thread(self._is_up.wait)
        if self._thread_loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop has closed already
                self._thread_loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        self._thread_loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._is_up.set()
        stopping = asyncio.create_task(self._stop.wait())
        client = same_place(self.redis)
        scripts = Scripts(client, events_max_len=self.events_max_len)
        try:
            duties = [asyncio.create_task(repeat(duty, scripts, stopping)) for duty in self.duties]
            await asyncio.wait({stopping})
            _, late = await asyncio.wait(duties, timeout=LAST_ANSWER_S)  # Redis may be silent
            for duty in late:
                duty.cancel()
            await asyncio.gather(*duties, return_exceptions=True)
        finally:
            await client.aclose()
            await client.connection_pool.disconnect()
