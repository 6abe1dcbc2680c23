"""What the events alone say of each job: the state they lead to, and which of them may not follow the ones before.

Events in, states out: nothing here reads the store. `bridge.verifier` replays the stream and compares.

A job waits, runs, and has ended. Legal are, with what follows in brackets:

- ``job.enqueued``, ``job.deferred``: the first event, or after an end [waits]
- ``job.started``: the next attempt of a job that waits; a producer may set the number of the first one [runs]
- ``job.progressed``: of the open attempt, by its worker [runs]
- ``job.retrying``: of the open attempt, by its worker; ``stalled`` by the worker that takes over [waits]. The next
  attempt has the next number, but after ``interrupted`` the same one
- an end: of the open attempt, by its worker; without a start, or by another worker, only those of `ends_unstarted`

Under the stock ``arq`` command events follow the change they tell of, and may be missing: what does not fit there is
an `Oddity`, as is what stock producers leave out.
"""

import sys
from collections import Counter
from enum import StrEnum
from typing import Final, Literal

import msgspec

from bridge.events import STOCK_WORKER_MARK, Event

__all__ = ["ENDED", "Finding", "Job", "Oddity", "Replay", "is_stock", "shown_state"]

JobState = Literal["new", "trimmed", "waiting", "running", "succeeded", "failed", "aborted"]
"""``new``: no event yet; ``trimmed``: likewise, but the stream has lost some."""

ENDED: Final = frozenset({"succeeded", "failed", "aborted"})


class Oddity(StrEnum):
    """What is legal, but worth a count."""

    REENQUEUED = "enqueued again by a stock producer, which writes no event"
    REPLACED = "enqueued again before a worker had found that it had expired"
    LOST_CLAIM = "lost by a worker that had claimed it only to end it"
    BEST_EFFORT = "events of a stock worker that are missing or late"
    UNTOLD_END = "ended by a stock worker without an event"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A job whose events contradict each other, or what is stored.

    Attributes:
        derived: the state that the events lead to; before the wrong event where one is.
        stored: the state that is stored; ``None`` when the events alone are wrong.
        what: what is wrong.
        event_id: the event that is wrong, or the last one of the job.
    """

    job_id: str
    queue: str
    task: str
    derived: str
    stored: str | None
    what: str
    event_id: str


class Job(msgspec.Struct, kw_only=True, gc=False):
    """What the events so far say. Kept small: there is one for each job of the stream.

    Attributes:
        attempt: the latest that an event tells of; 0 when none has started since it was enqueued.
        tries: attempts that count, as ``arq:retry:<id>`` holds them.
        worker: the one of the latest attempt.
        due_at_ms: while it waits, else 0.
        event_id: its latest event.
        is_wrong: whether an event did not fit; what comes later may be a consequence and is not reported.
    """

    state: JobState
    queue: str = ""
    task: str = ""
    attempt: int = 0
    tries: int = 0
    worker: str = ""
    due_at_ms: int = 0
    event_id: str = ""
    is_wrong: bool = False


class Details(msgspec.Struct, frozen=True):
    """The fields of any event's data that matter here."""

    reason: str = ""
    was: str = ""
    due_at_ms: int = 0


MARK: Final = f":{STOCK_WORKER_MARK}"
details_decoder: Final = msgspec.json.Decoder(Details)
NO_DETAILS: Final = Details()
ENDS_UNSTARTED: Final = frozenset({"expired", "undecodable", "unknown_task", "tries_exhausted"})


class Replay:
    """The states of all jobs after the events so far.

    Attributes:
        jobs: by id.
        events: how many there were.
        findings: of each job the first event that did not fit.
        oddities: how many there were of each.
        stock_queues: names of the queues in which a stock worker has written an event.
        is_trimmed: whether earlier events may be missing: then a job's first one may be any.
    """

    def __init__(self, *, is_trimmed: bool = False) -> None:
        self.jobs: dict[str, Job] = {}
        self.events = 0
        self.findings: list[Finding] = []
        self.oddities: Counter[Oddity] = Counter()
        self.stock_queues: set[str] = set()
        self.is_trimmed = is_trimmed

    def forget(self) -> None:
        """Events after those so far are missing: nothing is known of any job."""
        self.jobs.clear()
        self.is_trimmed = True

    def apply(self, event: Event) -> None:
        """The next event of the stream counts; those that tell of no job are passed over."""
        self.events += 1
        if is_stock(event.worker):
            self.stock_queues.add(event.queue)
        if event.kind not in CHECKS or not event.job_id:
            return
        job = self.jobs.get(event.job_id)
        if job is None:
            job = self.jobs[event.job_id] = Job(state="trimmed" if self.is_trimmed else "new")
        try:
            details = details_decoder.decode(event.data)
            verdict = None if job.state == "trimmed" else CHECKS[event.kind](job, event, details)
        except msgspec.MsgspecError:
            details, verdict = NO_DETAILS, f"the data of its {event.kind} cannot be read"
        if verdict is not None and not isinstance(verdict, Oddity) and is_stock(event.worker, job.worker):
            verdict = Oddity.BEST_EFFORT
            if is_late(job, event):
                self.oddities[verdict] += 1
                return
        if isinstance(verdict, Oddity):
            self.oddities[verdict] += 1
        elif verdict is not None and not job.is_wrong:
            self._find(job, event, verdict)
        move(job, event, details)

    def _find(self, job: Job, event: Event, what: str) -> None:
        job.is_wrong = True
        self.findings.append(
            Finding(
                job_id=event.job_id,
                queue=event.queue,
                task=event.task or job.task,
                derived=shown_state(job, event.at_ms),
                stored=None,
                what=what,
                event_id=event.id,
            )
        )


def shown_state(job: Job, now_ms: int) -> str:
    """A job's state in the words of `bridge.inspector`."""
    match job.state:
        case "new" | "trimmed":
            return "unknown"
        case "running":
            return "in_progress"
        case "waiting":
            return "deferred" if job.due_at_ms > now_ms else "queued"
        case _:
            return job.state


def is_stock(*workers: str) -> bool:
    """Whether one of these is a worker of the stock ``arq`` command."""
    return any(MARK in worker for worker in workers)


def is_late(job: Job, event: Event) -> bool:
    """Whether a stock worker tells of an attempt after the job has gone on without it."""
    if not is_stock(event.worker) or event.kind == "job.started":
        return False
    is_other = (event.worker, event.attempt) != (job.worker, job.attempt)
    return job.state in ENDED or (job.state == "running" and is_other)


# --- what may follow: `None`, an oddity, or what is wrong ----------------------------------------------

Verdict = Oddity | str | None


def check_enqueue(job: Job, event: Event, details: Details) -> Verdict:
    if job.state == "running":
        return f"enqueued again while its attempt {job.attempt} was open"
    return Oddity.REPLACED if job.state == "waiting" else None


def check_start(job: Job, event: Event, details: Details) -> Verdict:
    if job.state == "running":
        return f"attempt {event.attempt} started while attempt {job.attempt} was open"
    is_new_job = job.state != "waiting"
    expected = 1 if is_new_job else job.tries + 1
    is_first = is_new_job or not job.attempt
    if event.attempt < expected or (event.attempt > expected and not is_first):
        return f"attempt {event.attempt} started, though {expected} comes next"
    return Oddity.REENQUEUED if job.state in ENDED else None


def check_open(job: Job, event: Event, details: Details) -> Verdict:
    """The event belongs to the open attempt and comes from its worker."""
    if job.state in ENDED:
        return f"{event.kind} after the end, and no new enqueue between"
    if job.state != "running":
        return f"{event.kind}, though no attempt had started"
    if event.worker != job.worker:
        return f"{event.kind} by {event.worker or 'nobody'}, though attempt {job.attempt} is that of {job.worker}"
    if event.attempt != job.attempt:
        return f"{event.kind} of attempt {event.attempt}, though {job.attempt} was open"
    return None


def check_retry(job: Job, event: Event, details: Details) -> Verdict:
    if details.reason != "stalled" or job.state in ENDED:
        return check_open(job, event, details)
    lost = job.attempt if job.state == "running" else job.tries + 1
    if event.attempt < lost:
        return f"attempt {event.attempt} was lost, though it was over"
    # A claim that is to end a job, since it is aborted or has no try left, writes no start.
    return None if job.state == "running" and event.attempt == lost else Oddity.LOST_CLAIM


def check_end(job: Job, event: Event, details: Details) -> Verdict:
    if job.state in ENDED:
        return f"a second end: {event.kind} after job.{job.state}, and no new enqueue between"
    problem = check_open(job, event, details)
    if problem is None or not ends_unstarted(event, details):
        return problem
    if not event.worker:
        if event.kind == "job.aborted":
            fits = event.attempt >= job.tries
        else:  # an enqueue has found that an earlier job of its id has expired
            fits = details.reason == "expired" and event.attempt > job.tries
    elif details.reason == "tries_exhausted":
        fits = event.attempt <= job.tries + 1
    else:
        fits = event.attempt > job.tries
    return None if fits else f"{event.kind} as attempt {event.attempt}, though {job.tries} had been counted"


def ends_unstarted(event: Event, details: Details) -> bool:
    """Whether a job may end like this without a start, also while an attempt is open whose worker is lost."""
    if event.kind == "job.aborted":
        return details.was in {"queued", "deferred"}
    return event.kind == "job.failed" and details.reason in ENDS_UNSTARTED


CHECKS: Final = {
    "job.enqueued": check_enqueue,
    "job.deferred": check_enqueue,
    "job.started": check_start,
    "job.progressed": check_open,
    "job.retrying": check_retry,
    "job.succeeded": check_end,
    "job.failed": check_end,
    "job.aborted": check_end,
}
STATE_AFTER: Final[dict[str, JobState]] = {
    "job.succeeded": "succeeded",
    "job.failed": "failed",
    "job.aborted": "aborted",
}


def move(job: Job, event: Event, details: Details) -> None:
    """The job is in the state that the event leads to."""
    # Millions of jobs share a few names.
    job.queue = sys.intern(event.queue)
    job.task = sys.intern(event.task) if event.task else job.task
    job.event_id = event.id
    if event.kind == "job.progressed" and job.state != "trimmed":
        return
    job.due_at_ms = details.due_at_ms
    match event.kind:
        case "job.enqueued" | "job.deferred":
            if job.state not in {"waiting", "running"}:
                job.tries = 0
            job.state, job.attempt = "waiting", 0
        case "job.started" | "job.progressed":
            job.state, job.attempt, job.tries = "running", event.attempt, event.attempt
            job.worker = sys.intern(event.worker)
        case "job.retrying":
            counts = details.reason != "interrupted" or is_stock(event.worker)
            job.state, job.attempt = "waiting", event.attempt
            job.tries = event.attempt if counts else event.attempt - 1
            job.worker = sys.intern(event.worker)
        case _:
            job.state, job.attempt = STATE_AFTER[event.kind], event.attempt
