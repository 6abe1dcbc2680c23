"""Waiting for the end of a job, with a sign of life meanwhile."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, nullcontext
from typing import Any

import msgspec
from rich.status import Status
from rich.text import Text

from bridge.backend import Backend
from bridge.errors import Forbidden, JobNotFound
from bridge.event_stream import EventFilter
from bridge.events import TERMINAL_KINDS, Event, JobFailed, JobSucceeded
from bridge.inspector import JobResult
from cli.printing import error_console, progress_text

__all__ = ["end", "wait_for_result"]

LOOK_EVERY_S = 2.0
CANCEL_EVERY_S = 0.1


async def wait_for_result(backend: Backend, job_id: str, *, after: str, timeout_s: float, quiet: bool) -> JobResult:
    """The job's result as soon as it has ended, or its state when the time is up.

    Args:
        backend: whom to ask.
        job_id: the job.
        after: position in the event stream before which it had not ended.
        timeout_s: longest wait.
        quiet: show no progress.

    Raises:
        JobNotFound: nothing is known of the job.
    """
    with nullcontext() if quiet else error_console.status(f"waiting for {job_id}") as display:
        waiting = [
            asyncio.create_task(look_until_ended(backend, job_id)),
            asyncio.create_task(follow_until_ended(backend, job_id, after, display)),
        ]
        try:
            done, _ = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result() if done else await backend.result(job_id)
        finally:
            await end(waiting)


async def end(tasks: "Sequence[asyncio.Task[Any]]") -> None:
    """Cancels until it works: in Python 3.11 the `asyncio.wait_for` inside redis-py may swallow a cancellation."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_EVERY_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def look_until_ended(backend: Backend, job_id: str) -> JobResult:
    """Some endings under the stock arq command write no event (docs/reference/guarantees.md): this sees them."""
    is_missed = False
    while True:
        try:
            if (result := await backend.result(job_id, wait_s=LOOK_EVERY_S)).is_final:
                return result
        except JobNotFound:
            # Where results are not kept, the event of the end comes a moment after the job has gone.
            if is_missed:
                raise
            is_missed = True
            await asyncio.sleep(LOOK_EVERY_S)


async def follow_until_ended(backend: Backend, job_id: str, after: str, display: Status | None) -> JobResult:
    """Sees the end at once, and that of a job whose result is not kept."""
    try:
        async with aclosing(backend.follow(EventFilter(job_id=job_id), after=after)) as stream:
            async for event in stream:
                if event.job_id != job_id:  # a gap
                    continue
                if display is not None:
                    display.update(Text(f"{job_id}: {what_of(event)}, attempt {max(event.attempt, 1)}"))
                if event.kind in TERMINAL_KINDS:
                    return await result_after(event, backend)
    except Forbidden:  # a token for jobs need not be one for events
        await asyncio.Event().wait()
    raise AssertionError("following a stream never ends")


def what_of(event: Event) -> str:
    if event.kind == "job.progressed":
        return progress_text(msgspec.json.decode(event.data))
    return event.kind.removeprefix("job.")


async def result_after(event: Event, backend: Backend) -> JobResult:
    """The stored result; without one, what the event tells of it."""
    try:
        return await backend.result(event.job_id)
    except JobNotFound:
        match event.read_data():
            case JobSucceeded(result=result):
                return JobResult(task_id=event.job_id, status="succeeded", result=result)
            case JobFailed(error=error):
                return JobResult(task_id=event.job_id, status="failed", error=error)
            case _:
                return JobResult(task_id=event.job_id, status="aborted")
