"""The jobs of a queue by state, page by page; each page takes a bounded time, however many there are.

Those that wait and those that run are in the queue itself. Of those that have ended there is no index: dead letters
tell which have failed, the event stream and the results which have succeeded or were aborted.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from bridge.backend import JobPage, JobSummary
from bridge.catalog import Queue
from bridge.dead_letters import DeadFilter, DeadLetters
from bridge.inspector import State
from bridge.page_cursor import of_another_list, read_cursor, write_cursor
from bridge.scripts import ListedEnd, ListedJob, Scripts

__all__ = ["JobList"]

WAITING_OR_RUNNING: Final[tuple[State, ...]] = ("in_progress", "queued", "deferred")
ENTRIES_A_CALL: Final = 500
"""Of the event stream: a script blocks the server."""
CALLS_A_PAGE: Final = 10
CLOCKS_APART_MS: Final = 1000
TASK: Final = re.compile(rb'^{"t":\w+,"f":("(?:[^"\\]|\\.)*")')
ENQUEUED_AT: Final = re.compile(rb'"et":(\d{1,15})}$')
STARTED_AT: Final = re.compile(
    rb'"st":(\d{1,15}),"ft":\d{1,15},"q":(?:null|"(?:[^"\\]|\\.)*"),"id":"(?:[^"\\]|\\.)*"}$'
)
SCORE: Final = re.compile(r"-?(?:inf|\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
EVENT_ID: Final = re.compile(r"(?!0+-0+$)[0-9]{1,19}-[0-9]{1,19}")


class JobList:
    """The lists of all queues.

    Args:
        scripts: on the store.
        letters: the failed jobs there.
    """

    def __init__(self, scripts: Scripts, letters: DeadLetters) -> None:
        self.scripts = scripts
        self.letters = letters

    async def page(self, queue: Queue, *, state: State | None, cursor: str, limit: int) -> JobPage:
        """Some jobs in this state; without one, those that run, then those that are queued, then the deferred ones.

        A job that stays in one state is listed once, in whatever way others come and go meanwhile. A page may be short,
        even empty, before the last one.

        Raises:
            InvalidRequest: the cursor is none of ours.
        """
        match state:
            case "failed":
                return await self._failed(queue, cursor, limit)
            case "succeeded" | "aborted":
                return await self._ended(queue, state, cursor, limit)
            case None:
                return await self._waiting_or_running(queue, WAITING_OR_RUNNING, cursor, limit)
            case _:
                return await self._waiting_or_running(queue, (state,), cursor, limit)

    async def _waiting_or_running(self, queue: Queue, states: Sequence[State], cursor: str, limit: int) -> JobPage:
        state, after = states[0], ("", b"")
        if cursor:
            state, score, job_id = read_cursor(cursor, tuple[State, str, bytes])
            after = (score, job_id)
            if state not in states or (score and not SCORE.fullmatch(score)):
                raise of_another_list()
        jobs: list[JobSummary] = []
        for one in states[states.index(state) :]:
            following, listed = await self.scripts.list_jobs(queue.key, one, after=after, wanted=limit - len(jobs))
            jobs += [describe(job, one) for job in listed]
            if following is not None:
                return JobPage(jobs=jobs, next_cursor=write_cursor((one, *following)))
            after = ("", b"")
            if len(jobs) == limit and one != states[-1]:
                return JobPage(jobs=jobs, next_cursor=write_cursor((states[states.index(one) + 1], *after)))
        return JobPage(jobs=jobs, next_cursor=None)

    async def _ended(self, queue: Queue, state: State, cursor: str, limit: int) -> JobPage:
        before = "+"
        if cursor:
            of_state, before = read_cursor(cursor, tuple[State, str])
            if of_state != state or not EVENT_ID.fullmatch(before):
                raise of_another_list()
        jobs: list[JobSummary] = []
        for _ in range(CALLS_A_PAGE):
            before, ends = await self.scripts.list_ends(
                queue.name, f"job.{state}", before=before, wanted=limit - len(jobs), most=ENTRIES_A_CALL
            )
            jobs += [describe_end(end, state) for end in ends if is_of_kept_result(end)]
            if not before or len(jobs) == limit:
                break
        return JobPage(jobs=jobs, next_cursor=write_cursor((state, before)) if before else None)

    async def _failed(self, queue: Queue, cursor: str, limit: int) -> JobPage:
        letters, next_cursor = await self.letters.page(DeadFilter(queue=queue.name), cursor=cursor, limit=limit)
        return JobPage(
            jobs=[
                JobSummary(
                    task_id=letter.task_id,
                    status="failed",
                    task_name=letter.task_name,
                    attempt=letter.attempts,
                    finished_at=letter.failed_at,
                )
                for letter in letters
            ],
            next_cursor=next_cursor,
        )


def describe(job: ListedJob, state: State) -> JobSummary:
    task, enqueued_at = TASK.match(job.head), ENQUEUED_AT.search(job.tail)
    return JobSummary(
        task_id=job.job_id.decode(errors="replace"),
        status=state,
        task_name=read_text(task[1]) if task else None,
        attempt=int(job.attempts) if job.attempts.isdigit() else 0,
        enqueue_time=instant(int(enqueued_at[1])) if enqueued_at else None,
        due_at=None if state == "in_progress" else instant(float(job.score)),
    )


def describe_end(end: ListedEnd, state: State) -> JobSummary:
    return JobSummary(
        task_id=end.job_id.decode(errors="replace"),
        status=state,
        task_name=end.task.decode(errors="replace") or None,
        attempt=int(end.attempt) if end.attempt.isdigit() else 0,
        finished_at=instant(float(end.at_ms)) if end.at_ms.isdigit() else None,
    )


def is_of_kept_result(end: ListedEnd) -> bool:
    """Whether the result is not that of a later job of the same id, which then has an end of its own in the list."""
    started_at = STARTED_AT.search(end.tail)
    return not started_at or int(started_at[1]) <= int(end.at_ms) + CLOCKS_APART_MS


def read_text(quoted: bytes) -> str | None:
    try:
        return msgspec.json.decode(quoted, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def instant(unix_ms: float) -> datetime | None:
    """``None`` for what is no instant: other programs may set any score."""
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
