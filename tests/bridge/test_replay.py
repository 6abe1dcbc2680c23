"""Which events may follow which: legal histories give no finding, one wrong event gives one."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.events import Event
from bridge.replay import Job, Oddity, Replay, is_stock

LATER_MS = 2_000_000_000_000


class Step(msgspec.Struct, frozen=True):
    """An event in short: ``Step("started", 1, "a")``; ``why`` is the reason or, of an abort, what it was."""

    kind: str
    attempt: int = 0
    worker: str = ""
    why: str = ""


def read(text: str) -> Step:
    """``started 1 a``, ``retrying 1 a stalled``, ``aborted 0 - queued``."""
    kind, *rest = text.split()
    attempt, worker, why = (*rest, *("", "", "")[len(rest) :])
    return Step(kind, int(attempt or 0), "" if worker == "-" else worker, why)


def event(step: Step, number: int, job_id: str = "job") -> Event:
    data: dict[str, Any] = {"due_at_ms": LATER_MS} if step.kind in {"enqueued", "deferred", "retrying"} else {}
    if step.why:
        data["was" if step.kind == "aborted" else "reason"] = step.why
    return Event(
        id=f"{number + 1}-0",
        kind=f"job.{step.kind}",
        job_id=job_id,
        queue="mail",
        task="send",
        attempt=step.attempt,
        worker=step.worker,
        data=msgspec.Raw(msgspec.json.encode(data)),
    )


def replay(*steps: str, is_trimmed: bool = False) -> Replay:
    replayed = Replay(is_trimmed=is_trimmed)
    for number, step in enumerate(steps):
        replayed.apply(event(read(step), number))
    return replayed


def job(*steps: str) -> Job:
    return replay(*steps).jobs["job"]


def oddities(*steps: str) -> dict[Oddity, int]:
    replayed = replay(*steps)
    assert replayed.findings == []
    return dict(replayed.oddities)


STALE = ("enqueued", "started 1 a", "retrying 1 b stalled", "started 2 b")
INTERRUPTED = ("enqueued", "started 1 a", "retrying 1 a interrupted")
TRIED_AGAIN = ("enqueued", "started 1 a", "retrying 1 a error")
ENDED = ("enqueued", "started 1 a", "succeeded 1 a")


@pytest.mark.parametrize(
    "steps",
    [
        ENDED,
        ("deferred", "started 1 a", "progressed 1 a", "progressed 1 a", "succeeded 1 a"),
        (*TRIED_AGAIN, "started 2 b", "failed 2 b error"),
        (*INTERRUPTED, "started 1 b", "succeeded 1 b"),
        (*STALE, "succeeded 2 b"),
        (*STALE, "retrying 2 b timeout", "started 3 a", "failed 3 a timeout"),
        ("enqueued", "started 5 a", "retrying 5 a retry", "started 6 a", "failed 6 a tries_exhausted"),
        ("enqueued", "started 5 a", "retrying 5 a interrupted", "started 5 b", "aborted 5 b in_progress"),
        # Endings without a start, and those of a job whose worker was lost.
        ("enqueued", "failed 1 a expired"),
        ("enqueued", "started 1 a", "failed 1 a undecodable"),
        ("enqueued", "started 1 a", "failed 1 a unknown_task"),
        ("enqueued", "started 1 a", "failed 2 b expired"),
        ("enqueued", "started 3 a", "failed 3 b tries_exhausted"),
        ("enqueued", "started 3 a", "failed 4 b unknown_task"),
        (*TRIED_AGAIN, "failed 2 b expired"),
        ("enqueued", "aborted 0 - queued"),
        ("deferred", "aborted 0 - deferred"),
        ("enqueued", "aborted 1 a queued"),
        (*TRIED_AGAIN, "aborted 1 - queued"),
        (*INTERRUPTED, "aborted 0 - queued"),
        ("enqueued", "started 1 a", "aborted 1 - queued"),
        ("enqueued", "started 1 a", "aborted 2 b queued"),
        # Enqueued again, and by a stock producer.
        (*ENDED, "enqueued 0 - requeued", "started 1 b", "succeeded 1 b"),
        ("started 1 a", "succeeded 1 a"),
        ("started 4 a", "succeeded 4 a"),
        ("failed 1 a expired",),
        ("aborted 0 - queued",),
    ],
)
def test_legal_history_gives_no_finding(steps: tuple[str, ...]) -> None:
    assert oddities(*steps) == {}


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ((*ENDED, "succeeded 1 a"), "a second end"),
        ((*ENDED, "failed 1 b expired"), "a second end"),
        ((*ENDED, "aborted 0 - queued"), "a second end"),
        ((*ENDED, "progressed 1 a"), "after the end"),
        ((*ENDED, "retrying 1 a error"), "after the end"),
        ((*ENDED, "retrying 1 b stalled"), "after the end"),
        ((*TRIED_AGAIN, "started 1 a"), "though 2 comes next"),
        ((*TRIED_AGAIN, "started 3 a"), "though 2 comes next"),
        ((*INTERRUPTED, "started 2 a"), "though 1 comes next"),
        (("enqueued", "started 0 a"), "though 1 comes next"),
        (("enqueued", "started 1 a", "started 2 b"), "while attempt 1 was open"),
        (("enqueued", "started 1 a", "enqueued"), "enqueued again while"),
        ((*STALE, "succeeded 1 a"), "is that of b"),
        ((*STALE, "progressed 1 a"), "is that of b"),
        ((*STALE, "retrying 1 a error"), "is that of b"),
        ((*STALE, "failed 1 a expired"), "though 2 had been counted"),
        ((*STALE, "retrying 1 c stalled"), "attempt 1 was lost"),
        (("enqueued", "started 1 a", "succeeded 2 a"), "though 1 was open"),
        (("enqueued", "started 1 a", "progressed 2 a"), "though 1 was open"),
        (("enqueued", "started 1 a", "aborted 1 b in_progress"), "is that of a"),
        (("enqueued", "started 1 a", "failed 3 b tries_exhausted"), "though 1 had been counted"),
        (("enqueued", "started 1 a", "failed 1 - expired"), "though 1 had been counted"),
        (("enqueued", "succeeded 1 a"), "no attempt had started"),
        (("enqueued", "failed 1 a error"), "no attempt had started"),
        (("progressed 1 a",), "no attempt had started"),
        (("succeeded 1 a",), "no attempt had started"),
    ],
)
def test_wrong_event_is_found(steps: tuple[str, ...], says: str) -> None:
    (finding,) = replay(*steps).findings
    assert says in finding.what
    assert (finding.job_id, finding.queue, finding.task, finding.stored) == ("job", "mail", "send", None)
    assert finding.event_id == f"{len(steps)}-0"


@pytest.mark.parametrize(
    ("steps", "derived"),
    [
        (("succeeded 1 a",), "unknown"),
        (("deferred", "succeeded 1 a"), "deferred"),
        ((*INTERRUPTED, "started 1 a", "enqueued"), "in_progress"),
        ((*ENDED, "succeeded 1 a"), "succeeded"),
    ],
)
def test_finding_tells_the_state_before_the_wrong_event(steps: tuple[str, ...], derived: str) -> None:
    assert [finding.derived for finding in replay(*steps).findings] == [derived]


def test_what_follows_from_a_wrong_event_is_not_told_again() -> None:
    assert len(replay("enqueued", "succeeded 1 a", "succeeded 1 a", "progressed 1 a").findings) == 1


def test_data_that_cannot_be_read_is_found() -> None:
    replayed = Replay()
    replayed.apply(Event(id="1-0", kind="job.enqueued", job_id="job", data=msgspec.Raw(b'{"due_at_ms":"soon"}')))
    assert ["cannot be read" in finding.what for finding in replayed.findings] == [True]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((*ENDED, "started 1 b", "succeeded 1 b"), {Oddity.REENQUEUED: 1}),
        (("enqueued", "enqueued", "started 1 a"), {Oddity.REPLACED: 1}),
        ((*TRIED_AGAIN, "enqueued", "started 2 a", "succeeded 2 a"), {Oddity.REPLACED: 1}),
        (("enqueued", "retrying 1 b stalled", "started 2 b"), {Oddity.LOST_CLAIM: 1}),
        (("enqueued", "started 1 a", "retrying 2 b stalled", "started 3 b"), {Oddity.LOST_CLAIM: 1}),
        # A stock worker that was killed, one that takes over, and one whose events come late or never.
        (("enqueued", "started 1 h:1:arq-f", "started 2 b", "succeeded 2 b"), {Oddity.BEST_EFFORT: 1}),
        (("enqueued", "started 1 a", "started 2 h:1:arq-f"), {Oddity.BEST_EFFORT: 1}),
        (("enqueued", "started 1 h:1:arq-f", "started 2 b", "retrying 1 h:1:arq-f retry"), {Oddity.BEST_EFFORT: 2}),
        (("enqueued", "succeeded 1 h:1:arq-f"), {Oddity.BEST_EFFORT: 1}),
        (("enqueued", "started 1 h:1:arq-f", "enqueued"), {Oddity.BEST_EFFORT: 1}),
    ],
)
def test_what_is_legal_but_odd_is_counted(steps: tuple[str, ...], expected: dict[Oddity, int]) -> None:
    assert oddities(*steps) == expected


def test_late_event_of_a_stock_worker_does_not_change_the_state() -> None:
    late = job("enqueued", "started 1 h:1:arq-f", "started 2 b", "retrying 1 h:1:arq-f retry")
    assert (late.state, late.attempt, late.worker) == ("running", 2, "b")


def test_interruption_under_a_stock_worker_spends_the_attempt() -> None:
    assert oddities("enqueued", "started 1 h:1:arq-f", "retrying 1 h:1:arq-f interrupted", "started 2 b") == {}


@pytest.mark.parametrize(
    ("steps", "state", "attempt", "tries"),
    [
        (("enqueued",), "waiting", 0, 0),
        (("deferred",), "waiting", 0, 0),
        (("enqueued", "started 3 a"), "running", 3, 3),
        (TRIED_AGAIN, "waiting", 1, 1),
        (INTERRUPTED, "waiting", 1, 0),
        (ENDED, "succeeded", 1, 1),
        ((*STALE, "failed 2 b error"), "failed", 2, 2),
        (("enqueued", "aborted 0 - queued"), "aborted", 0, 0),
        ((*ENDED, "enqueued"), "waiting", 0, 0),
    ],
)
def test_events_lead_to_a_state(steps: tuple[str, ...], state: str, attempt: int, tries: int) -> None:
    found = job(*steps)
    assert (found.state, found.attempt, found.tries) == (state, attempt, tries)
    assert found.due_at_ms == (LATER_MS if state == "waiting" else 0)
    assert found.event_id == f"{len(steps)}-0"


@pytest.mark.parametrize("first", ["progressed 2 a", "retrying 2 a error", "succeeded 2 a", "started 2 a"])
def test_first_event_of_a_trimmed_stream_may_be_any(first: str) -> None:
    assert replay(first, is_trimmed=True).findings == []


def test_trimmed_job_is_judged_by_what_is_there() -> None:
    replayed = replay("progressed 2 a", "succeeded 2 b", is_trimmed=True)
    assert ["is that of a" in finding.what for finding in replayed.findings] == [True]


def test_events_of_no_job_and_of_other_kinds_are_passed_over() -> None:
    replayed = Replay()
    for kind, job_id in (
        ("worker.started", ""),
        ("queue.paused", ""),
        ("com.example.mail", "job"),
        ("job.other", "job"),
    ):
        replayed.apply(Event(id="1-0", kind=kind, job_id=job_id, worker="h:1:arq-f", queue="mail"))
    assert (replayed.events, replayed.jobs, replayed.stock_queues) == (4, {}, {"mail"})


def test_mark_of_a_stock_worker_is_no_part_of_a_host() -> None:
    assert is_stock("vm:12:arq-c40ebd")
    assert not is_stock("arq-vm:12:c40ebd")


# --- random histories -----------------------------------------------------------------------------

workers = st.sampled_from(["a", "b", "c"])
many = settings(max_examples=300, deadline=None, derandomize=True)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """What the scripts write of one job: enqueues by us or by a stock producer, attempts, ends."""
    steps: list[Step] = []
    for life in range(draw(st.integers(1, 3))):
        if draw(st.booleans()) or life:
            steps.append(Step(draw(st.sampled_from(["enqueued", "deferred"]))))
        steps += draw(attempts())
    return steps


@st.composite
def attempts(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    tries, set_by_producer = 0, draw(st.integers(0, 3))
    while True:
        worker = draw(workers)
        how = draw(st.sampled_from(["expired", "aborted", "exhausted", "by client", *["run"] * 6]))
        claimed = max(tries + 1, set_by_producer)
        match how:
            case "expired":
                return [*steps, Step("failed", claimed, worker, "expired")]
            case "aborted":
                return [*steps, Step("aborted", claimed, worker, "queued")]
            case "exhausted" if tries:
                return [*steps, Step("failed", tries, worker, "tries_exhausted")]
            case "by client":
                return [*steps, Step("aborted", tries, "", draw(st.sampled_from(["queued", "deferred"])))]
        tries = claimed
        if steps and steps[-1].why == "stalled":
            worker = steps[-1].worker
        steps.append(Step("started", tries, worker))
        steps += [Step("progressed", tries, worker)] * draw(st.integers(0, 2))
        end = draw(st.sampled_from(["succeeded", "failed", "aborted", "error", "timeout", "interrupted", "stalled"]))
        match end:
            case "succeeded":
                return [*steps, Step("succeeded", tries, worker)]
            case "failed":
                return [*steps, Step("failed", tries, worker, draw(st.sampled_from(["error", "timeout"])))]
            case "aborted":
                return [*steps, Step("aborted", tries, worker, "in_progress")]
            case "stalled":
                if len(steps) > 20:
                    return [*steps, Step("failed", tries, draw(workers), "tries_exhausted")]
                steps.append(Step("retrying", tries, draw(workers), "stalled"))
            case _:
                steps.append(Step("retrying", tries, worker, end))
                tries -= end == "interrupted"


@many
@given(st.lists(histories(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_legal_histories_side_by_side_give_no_finding(jobs: list[list[Step]], random: Any) -> None:
    replayed = Replay()
    turns = [number for number, steps in enumerate(jobs) for _ in steps]
    random.shuffle(turns)
    left = [iter(steps) for steps in jobs]
    for at, number in enumerate(turns):
        replayed.apply(event(next(left[number]), at, str(number)))
    assert replayed.findings == []
    assert len(replayed.jobs) == len(jobs)


Change = Callable[[list[Step], int], list[Step] | None]


def belongs_to_an_attempt(step: Step) -> bool:
    return step.kind in {"progressed", "succeeded"} or step.why in {"error", "timeout", "interrupted", "in_progress"}


def end_twice(steps: list[Step], at: int) -> list[Step] | None:
    return [*steps[: at + 1], *steps[at:]] if steps[at].kind in {"succeeded", "failed", "aborted"} else None


def end_by_another(steps: list[Step], at: int) -> list[Step] | None:
    step = steps[at]
    if not belongs_to_an_attempt(step):
        return None
    return [*steps[:at], msgspec.structs.replace(step, worker="stale"), *steps[at + 1 :]]


def number_of_another(steps: list[Step], at: int) -> list[Step] | None:
    step = steps[at]
    if not belongs_to_an_attempt(step):
        return None
    return [*steps[:at], msgspec.structs.replace(step, attempt=step.attempt + 1), *steps[at + 1 :]]


def skip_a_number(steps: list[Step], at: int) -> list[Step] | None:
    step = steps[at]
    if step.kind != "started" or not at or steps[at - 1].kind != "retrying":
        return None
    return [*steps[:at], msgspec.structs.replace(step, attempt=step.attempt + 1), *steps[at + 1 :]]


def go_back(steps: list[Step], at: int) -> list[Step] | None:
    step = steps[at]
    if step.kind != "started":
        return None
    return [*steps[:at], msgspec.structs.replace(step, attempt=0), *steps[at + 1 :]]


def lose_the_start(steps: list[Step], at: int) -> list[Step] | None:
    if steps[at].kind != "started" or at + 1 == len(steps) or not belongs_to_an_attempt(steps[at + 1]):
        return None
    return [*steps[:at], *steps[at + 1 :]]


def lose_the_retry(steps: list[Step], at: int) -> list[Step] | None:
    if steps[at].kind != "retrying" or steps[at + 1].kind != "started":
        return None
    return [*steps[:at], *steps[at + 1 :]]


def enqueue_while_it_runs(steps: list[Step], at: int) -> list[Step] | None:
    return [*steps[: at + 1], Step("enqueued"), *steps[at + 1 :]] if steps[at].kind == "started" else None


CHANGES: list[Change] = [
    end_twice,
    end_by_another,
    number_of_another,
    skip_a_number,
    go_back,
    lose_the_start,
    lose_the_retry,
    enqueue_while_it_runs,
]


def changed(steps: list[Step], change: Change) -> Iterator[list[Step]]:
    """The history with this change at each place where it can be made."""
    for at in range(len(steps)):
        if (new := change(steps, at)) is not None:
            yield new


@pytest.mark.parametrize("change", CHANGES)
def test_one_change_of_a_legal_history_is_one_finding(change: Change) -> None:
    changes_seen = 0

    @many
    @given(histories())
    def check(steps: list[Step]) -> None:
        nonlocal changes_seen
        for wrong in changed(steps, change):
            changes_seen += 1
            replayed = Replay()
            for number, step in enumerate(wrong):
                replayed.apply(event(step, number))
            assert len(replayed.findings) == 1, wrong

    check()
    assert changes_seen
