"""One attempt of a job, from its claim to its end, and how claims become such attempts."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, Literal

from arq.cron import CronJob
from arq.worker import Function

from bridge.scripts import Claims

__all__ = ["Run", "StopReason", "runs_of"]

logger = logging.getLogger("aegis.workers")

StopReason = Literal["timeout", "abort", "stop", "lost"]
FIELDS = 5


class Run:
    """An attempt that this worker has claimed.

    Attributes:
        job_id, token: what finishes it.
        body: the job as stored, ``b""`` when it is gone.
        attempt: from 1.
        due_ms: when it was due; of a job that another worker lost, when its lease ended.
        verdict: ``run``, or how to end it before it runs: ``expired``, ``aborted``, ``exhausted``.
        claimed_at_ms, started_ms, ended_ms: by Redis' clock; 0 when it has not come to that.
        task, args, kwargs, enqueued_at_ms, function: from the body, once it is decoded.
        ctx: arq's context of the job, made when it runs.
        is_spliceable: whether the body is the JSON that our codec and arq's order give.
        timeout_s, max_tries: of this job, where its producer asked for them; else ``None``.
        trace: the traceparent that it was enqueued with, ``""`` without one.
        deadline_s: when its timeout is over, by the event loop's clock.
        handle: its asyncio task.
        is_calling: whether the task function is running, so that cancelling it makes sense.
        stop_reason: why it was told to stop, if it was.
        note: who aborted it and why, a JSON object.
    """

    __slots__ = (
        "args", "attempt", "body", "claimed_at_ms", "ctx", "deadline_s", "due_ms", "ended_ms", "enqueued_at_ms",
        "function", "handle", "is_calling", "is_spliceable", "job_id", "kwargs", "max_tries", "note", "started_ms",
        "stop_reason", "task", "timeout_s", "token", "trace", "verdict",
    )  # fmt: skip

    def __init__(
        self, job_id: str, token: str, body: bytes, attempt: int, due_ms: int, verdict: str, claimed_at_ms: int
    ) -> None:
        self.job_id = job_id
        self.token = token
        self.body = body
        self.attempt = attempt
        self.due_ms = due_ms
        self.verdict = verdict
        self.claimed_at_ms = claimed_at_ms
        self.started_ms = self.ended_ms = 0
        self.enqueued_at_ms = due_ms if body else 0
        self.task = ""
        self.args: Any = ()
        self.kwargs: dict[str, Any] = {}
        self.ctx: dict[Any, Any] = {}
        self.function: Function | CronJob | None = None
        self.is_spliceable = False
        self.timeout_s: float | None = None
        self.max_tries: int | None = None
        self.trace = ""
        self.deadline_s = math.inf
        self.handle: asyncio.Task[None] | None = None
        self.is_calling = False
        self.stop_reason: StopReason | None = None
        self.note = b"{}"

    @property
    def queued_ms(self) -> int:
        """How long it was due before it was claimed."""
        due_ms = self.due_ms if self.due_ms > self.enqueued_at_ms else self.enqueued_at_ms
        return self.claimed_at_ms - due_ms if self.claimed_at_ms > due_ms else 0

    @property
    def ran_ms(self) -> int:
        """How long the task function ran."""
        return self.ended_ms - self.started_ms if self.ended_ms > self.started_ms else 0

    def stop(self, reason: StopReason) -> None:
        """Tells it to stop; what it returns from here on still counts if it does not heed."""
        if self.stop_reason is None or reason == "lost":
            self.stop_reason = reason
            if self.is_calling and self.handle is not None:
                self.handle.cancel()


def runs_of(claims: Claims, token: str) -> list[Run]:
    """The attempts of a claim's answer, without jobs whose id is not UTF-8: nobody can have enqueued them."""
    jobs, now_ms = claims.jobs, claims.now_ms
    runs = []
    for at in range(0, len(jobs), FIELDS):
        try:
            job_id = jobs[at].decode()
        except UnicodeDecodeError:
            logger.error("a queue holds an id that is not UTF-8, and it is left there: %r", jobs[at])
            continue
        verdict = jobs[at + 4].decode()
        runs.append(Run(job_id, token, jobs[at + 1], jobs[at + 2], int(jobs[at + 3]), verdict, now_ms))
    return runs
