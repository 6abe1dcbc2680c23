"""One typed async function per Lua file: every state change goes through one of them, in one call.

Scripts are sent by digest; when the server does not know one (it was restarted, or is another one)
redis-py loads it and calls again.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from bridge import keys
from bridge.events import EventData, encode_data

__all__ = [
    "Claims",
    "DeadJob",
    "Depth",
    "Ending",
    "Heartbeat",
    "NewEvent",
    "NewJob",
    "NewProgress",
    "Scripts",
]

IDS_EXAMINED: Final = 5000
HEAD_OF_CLAIMS: Final = 2
"""Values before those of the jobs in what a claim returns."""
NAMED_KEY: Final = re.compile(r"\bKEY\.([A-Z_]+)")
DEFINED: Final = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)
"""Names that a part of the prelude gives; its parts are what blank lines part."""
LOST_AT_A_TIME: Final = 20
NO_TRACES: Final[Mapping[str, str]] = {}


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is ready to be stored.

    Attributes:
        job_id: chosen by the caller or made by `bridge.enqueue.new_job_id`.
        task: registered name of the function.
        queue: short name of the queue.
        queue_key: its zset.
        body: the JSON before and after the enqueue time, which the script puts between them; see
            `bridge.new_job.job_body`.
        delay_ms: earliest start, counted from the server's now.
        due_at_ms: earliest start as an instant; the later of the two counts.
        expires_ms: the job is dropped unless it starts within this time; 0 is never.
        record_key: where it is recorded that the request with its idempotency key has been; ``""`` without one.
        fingerprint: of that request, without spaces and always of the same length.
    """

    job_id: str
    task: str
    queue: str
    queue_key: str
    body: tuple[bytes, bytes]
    delay_ms: int = 0
    due_at_ms: int = 0
    expires_ms: int = 0
    record_key: str = ""
    fingerprint: str = ""


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


class Claims(NamedTuple):
    """What a claim returned.

    Attributes:
        now_ms: the server's time.
        next_due_ms: when the next job is due, within the time asked for; 0 when none is.
        jobs: five values for each job, one after the other: id, body, attempt, due ms, and what to do with it:
            ``run``, or end it as ``expired``, ``aborted`` or ``exhausted``.
    """

    now_ms: int
    next_due_ms: int
    jobs: list[Any]


class Ending(NamedTuple):
    """How an attempt ended; the order is that of ``finish.lua``, which says what the fields hold."""

    job_id: str
    token: str
    kind: str
    task: str
    attempt: int
    data: bytes
    result: bytes
    number: int
    extra: bytes
    wait_bucket: int | str
    run_bucket: int | str


class DeadJob(NamedTuple):
    """A dead job that is to run again; the order is that of ``requeue.lua``.

    Attributes:
        head, tail: the body before and after the enqueue time.
        failed_at_ms: the score of its dead letter; ``""`` when it has none, and its result stands in for one.
        ending: how the result of its last attempt ends: that of a later job of the same id ends otherwise.
    """

    job_id: str
    task: str
    head: bytes
    tail: bytes
    failed_at_ms: int | str
    ending: bytes


class Heartbeat(NamedTuple):
    """What a worker tells of itself; the order is that of ``heartbeat.lua``.

    Attributes:
        host, pid, queue, max_jobs: as in its events.
        runner: ``BatchWorker`` or ``arq``.
        running: attempts it runs now.
        done, failed, retried: attempts that have ended so.
    """

    host: str
    pid: int
    queue: str
    max_jobs: int
    runner: str
    running: int
    done: int
    failed: int
    retried: int


class NewProgress(NamedTuple):
    """What a running job has reported; the order is that of ``progress.lua``, which says what the fields hold."""

    job_id: str
    token: str
    task: str
    attempt: int
    data: bytes
    trace: str = ""


class Scripts:
    """The scripts, bound to a connection.

    Args:
        redis: where they run.
        events_max_len: entries that the event stream keeps, approximately.
    """

    def __init__(self, redis: Redis, *, events_max_len: int) -> None:
        self.events_max_len = events_max_len
        self._redis = redis
        self._enqueue = redis.register_script(source("enqueue"))
        self._report = redis.register_script(source("report"))
        self._depth = redis.register_script(source("depth"))
        self._claim = redis.register_script(source("claim"))
        self._finish = redis.register_script(source("finish"))
        self._progress = redis.register_script(source("progress"))
        self._renew = redis.register_script(source("renew"))
        self._abort = redis.register_script(source("abort"))
        self._pause = redis.register_script(source("pause"))
        self._requeue = redis.register_script(source("requeue"))
        self._purge = redis.register_script(source("purge"))
        self._heartbeat = redis.register_script(source("heartbeat"))

    async def enqueue(self, jobs: Sequence[NewJob], *, cron_run: str = "") -> tuple[int, list[str]]:
        """Stores each job whose id is free, with its event and a wake-up, all in one step.

        Args:
            jobs: those to store.
            cron_run: names the run of a cron job, of which ``jobs`` is the one job: of a run that was stored within
                the last hour, by whomever, nothing is.

        Returns:
            the server's time in ms, and for each job its event's stream id, or ``""`` when its id or the run is taken.
            Of a job whose record is there it is ``reused``, if that is of a request with another fingerprint, or else
            ``again <when, ms> <event id> <job id>``, of the job that was stored then.
        """
        arguments: list[Any] = [self.events_max_len, cron_run, len(jobs)]
        records: list[Any] = []
        for number, job in enumerate(jobs, 1):
            head, tail = job.body
            arguments += (
                job.job_id, job.task, job.queue, job.queue_key, head, tail, job.delay_ms, job.due_at_ms, job.expires_ms
            )  # fmt: skip
            if job.record_key:
                records += (number, job.record_key, job.fingerprint)
        arguments += records
        now_ms, *event_ids = await self._enqueue(args=arguments)
        return int(now_ms), [event_id.decode() for event_id in event_ids]

    async def report(self, events: Sequence[NewEvent]) -> list[str]:
        """Writes events and nothing else; returns their ids."""
        arguments: list[Any] = [self.events_max_len]
        for event in events:
            kind, data = encode_data(event.data)
            arguments += (kind, event.job_id, event.queue, event.task, event.attempt, event.worker, event.trace, data)
        return [event_id.decode() for event_id in await self._report(args=arguments)]

    async def claim(
        self,
        queue: str,
        queue_key: str,
        *,
        worker: str,
        token: str,
        wanted: int,
        ahead_ms: int,
        most_tries: bytes,
        heeds_aborts: bool,
        valid_until_ms: int = 0,
        rung_by: Sequence[str] = (),
        block_s: float = 0,
    ) -> Claims:
        """Takes up to ``wanted`` due jobs: each has this token, its lease, and a ``job.started`` event.

        With ``rung_by`` it does so once there is something in one of these lists, or ``block_s`` seconds are over: the
        server goes from the one to the other by itself, which saves a round trip.

        Args:
            queue: short name.
            queue_key: its zset.
            worker: who claims, for the events.
            token: unique to this claim; only who presents it can finish the jobs.
            wanted: jobs, at most.
            ahead_ms: how far ahead a due time matters.
            most_tries: JSON object, task -> most attempts, ``""`` -> those of the others.
            heeds_aborts: whether entries of arq's abort set count.
            valid_until_ms: when the caller gives up, by Redis' clock: a claim that Redis comes to later, because it
                was silent, takes nothing. 0: not known.
            rung_by: lists, from one of which something is taken first.
            block_s: how long to wait for that.
        """
        arguments = (self.events_max_len, queue, worker, token, wanted, keys.LEASE_MS, ahead_ms, most_tries)
        call = (1, queue_key, *arguments, int(heeds_aborts), valid_until_ms)
        reply = await self._claim_when_rung(rung_by, block_s, call) if rung_by else None
        if reply is None:
            reply = await self._claim(keys=(queue_key,), args=call[2:])
        return Claims(int(reply[0]), int(reply[1]), reply[HEAD_OF_CLAIMS:])

    async def _claim_when_rung(self, lists: Sequence[str], block_s: float, call: tuple[Any, ...]) -> list[Any] | None:
        """The answer of the claim; ``None`` when the server does not know the script."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.blpop(list(lists), timeout=block_s)  # type: ignore[arg-type]  # Redis takes fractions since 6
            pipe.execute_command("EVALSHA", self._claim.sha, *call)
            rung, reply = await pipe.execute(raise_on_error=False)
        if isinstance(reply, NoScriptError):
            return None
        if isinstance(reply, Exception):
            raise reply
        claims: list[Any] = reply
        if isinstance(rung, Exception) and len(claims) == HEAD_OF_CLAIMS:
            raise rung
        return claims

    async def finish(
        self,
        queue: str,
        queue_key: str,
        *,
        worker: str,
        endings: Sequence[Ending],
        traces: Mapping[str, str] = NO_TRACES,
    ) -> list[int]:
        """Writes the ends of attempts; each 1 in the answer is committed, each 0 had lost its token and is not.

        ``traces``: of the jobs that have one, id -> traceparent.
        """
        arguments: list[Any] = [self.events_max_len, queue, worker, msgspec.json.encode(traces) if traces else ""]
        for ending in endings:
            arguments += ending
        committed: list[int] = await self._finish(keys=(queue_key,), args=arguments)
        return committed

    async def progress(self, queue: str, *, worker: str, reports: Sequence[NewProgress]) -> list[int]:
        """Stores what running jobs report; each 1 in the answer is written, each 0 had lost its token and is not."""
        arguments: list[Any] = [self.events_max_len, queue, worker]
        for report in reports:
            arguments += report
        written: list[int] = await self._progress(args=arguments)
        return written

    async def renew(self, queue_key: str, leases: Sequence[tuple[str, str]]) -> list[int]:
        """Extends the leases, each an id and a token; returns the positions of those that are lost."""
        arguments: list[Any] = [keys.LEASE_MS]
        for lease in leases:
            arguments += lease
        lost: list[int] = await self._renew(keys=(queue_key,), args=arguments)
        return lost

    async def abort(self, queue: str, queue_key: str, job_id: str, *, keep_result_ms: int, note: bytes = b"{}") -> str:
        """Ends a job that no worker has, or tells its worker to.

        Args:
            queue: short name.
            queue_key: its zset.
            job_id: the job.
            keep_result_ms: how long the result is kept, if it ends now; 0 for ever, -1 not at all.
            note: ``by`` and ``reason`` for the event, a JSON object.

        Returns:
            ``aborted``, ``asked`` (its worker was told), ``ended`` (before), or ``unknown``.
        """
        arguments = (self.events_max_len, queue, job_id, keep_result_ms, note)
        answer: bytes = await self._abort(keys=(queue_key,), args=arguments)
        return answer.decode()

    async def pause(self, queue: str, *, is_paused: bool, note: bytes = b"{}") -> bool:
        """Pauses a queue or resumes it; whether that changed anything. ``note``: ``by``, a JSON object."""
        return bool(await self._pause(args=(self.events_max_len, queue, int(is_paused), note)))

    async def requeue(self, queue: str, queue_key: str, jobs: Sequence[DeadJob]) -> list[str]:
        """Puts dead jobs back into their queue, each with its event and without its dead letter and its result.

        Returns:
            for each ``requeued``, or why nothing was done: ``gone`` (that letter, or result, is not there any more),
            ``alive`` (a job of that id waits or runs), ``superseded`` (a later job of that id has a result).
        """
        arguments: list[Any] = [self.events_max_len, queue]
        for job in jobs:
            arguments += job
        verdicts: list[bytes] = await self._requeue(keys=(queue_key,), args=arguments)
        return [verdict.decode() for verdict in verdicts]

    async def purge(self, queue: str, letters: Sequence[tuple[str, int]]) -> list[int]:
        """Removes dead letters, each an id and when it failed, in ms; each 1 in the answer was there."""
        arguments: list[Any] = [queue]
        for letter in letters:
            arguments += letter
        purged: list[int] = await self._purge(args=arguments)
        return purged

    async def heartbeat(self, worker: str, sign: Heartbeat, *, started_at_ms: int = 0) -> int:
        """The worker is registered as alive, and some that have been silent for too long are registered no more.

        Args:
            worker: its id.
            sign: what it tells.
            started_at_ms: what its first heartbeat returned; 0 is now.

        Returns:
            when it started, by Redis' clock.
        """
        bounds = (keys.WORKER_LOST_MS, LOST_AT_A_TIME, keys.WORKER_TTL_MS)
        return int(await self._heartbeat(args=(self.events_max_len, worker, 1, *bounds, started_at_ms, *sign)))

    async def leave(self, worker: str) -> None:
        """The worker is registered no more."""
        await self._heartbeat(args=(self.events_max_len, worker, 0))

    async def depth(self, queue_key: str) -> Depth:
        """Counts the jobs of a queue by state."""
        queued, in_progress, deferred, oldest_due, now = await self._depth(
            keys=[queue_key], args=[IDS_EXAMINED, keys.LEASE_MS]
        )
        oldest_age_ms = int(now) - int(float(oldest_due)) if oldest_due != b"0" else 0
        return Depth(queued=queued, in_progress=in_progress, deferred=deferred, oldest_age_ms=oldest_age_ms)


@cache
def source(name: str) -> str:
    """The text of ``lua/<name>.lua`` below what it uses of the prelude, with every ``KEY.…`` as the key it stands for.

    A script runs from its first line each time: what it does not use would cost it about a command.
    """
    folder = files("bridge") / "lua"
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    for part in reversed((folder / "prelude.lua").read_text(encoding="utf-8").split("\n\n")):
        if any(re.search(rf"\b{defined}\b", text) for defined in DEFINED.findall(part)):
            text = f"{part}\n\n{text}"
    return NAMED_KEY.sub(lambda found: repr(keys.LUA_CONSTANTS[found[1]]), text)
