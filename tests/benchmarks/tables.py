"""The tables of a report: the same rows for the terminal and for the page."""

from dataclasses import dataclass
from typing import Final

from tests.benchmarks.contenders import OF_HTTP_ALONE, TITLES
from tests.benchmarks.report import Report

__all__ = ["NOT_MEASURED", "Table", "number", "tables"]

NOTHING: Final = "–"
NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True)
class Table:
    """Cells as text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Work:
    """A row: a value of a figure, and what it must reach. ``is_rate``: more is better."""

    title: str
    figure: str
    value: str
    target: str
    is_rate: bool = True


CONTESTED: Final = (
    Work("drain, jobs/s", "drain", "jobs_per_s", "40 000"),
    Work("start, p50, ms", "latency", "p50_ms", "1.0", is_rate=False),
    Work("start, p99, ms", "latency", "p99_ms", "2.5", is_rate=False),
    Work("enqueue one, jobs/s", "enqueue", "one_per_s", "7 000"),
    Work("enqueue 50 at once, jobs/s", "enqueue", "at_once_per_s", NOTHING),
    Work("enqueue 500 a call, jobs/s", "enqueue", "bulk_per_s", "70 000"),
    Work("memory of a job, bytes", "memory", "bytes_per_job", "330", is_rate=False),
)
HTTP: Final = (
    Work("requests/s, 32 connections", "http", "per_s", "0.75 × echo, 6 × FastAPI"),
    Work("p50 of them, ms", "http", "p50_ms", NOTHING, is_rate=False),
    Work("p99 of them, ms", "http", "p99_ms", NOTHING, is_rate=False),
    Work("p50 of one connection, ms", "http", "idle_p50_ms", NOTHING, is_rate=False),
    Work("p99 of one connection, ms", "http", "idle_p99_ms", NOTHING, is_rate=False),
    Work("requests/s, each with an Idempotency-Key", "http", "keyed_per_s", NOTHING),
)
OURS_ALONE: Final = (
    Work("recovery after kill -9, s", "recovery", "seconds", "10"),
    Work("enqueue 500 a call, arguments checked, jobs/s", "enqueue", "checked_bulk_per_s", NOTHING),
    Work("memory of an event in the stream, bytes", "memory", "stream_bytes_per_event", NOTHING),
    Work("memory of an idle worker, MB", "idle", "worker_mb", "60"),
    Work("memory of an idle gateway, MB", "idle", "gateway_mb", "80"),
    Work("commands of an idle worker, a second", "idle", "worker_commands_per_s", "2"),
)
SLEEPERS: Final = (
    ("took_s", "took, s"),
    ("ideal_s", "ideal, s"),
    ("ratio", "ratio"),
    ("machine_percent", "all cores busy, %"),
    ("valkey_percent_of_a_core", "Valkey, % of a core"),
)


def tables(report: Report) -> list[Table]:
    """Ratios first, then what was measured."""
    others = [name for name in TITLES if name not in {"ours", *OF_HTTP_ALONE}]
    titles = [TITLES[name] for name in others]
    return [
        Table(
            "Times as good as",
            ["work", *titles],
            [[work.title, *(ratio(report, work, name) for name in others)] for work in CONTESTED],
        ),
        Table(
            "Measured",
            ["work", "aegis-tasks", "must reach", *titles],
            [
                [work.title, cell(report, work, "ours"), work.target, *(cell(report, work, name) for name in others)]
                for work in CONTESTED
            ],
        ),
        Table(
            "Enqueueing over HTTP",
            [
                "work",
                "aegis-tasks",
                "must reach",
                *(title for name in OF_HTTP_ALONE for title in (TITLES[name], f"times {TITLES[name]}")),
            ],
            [
                [work.title, cell(report, work, "ours"), work.target]
                + [part for name in OF_HTTP_ALONE for part in (cell(report, work, name), ratio(report, work, name))]
                for work in HTTP
            ],
        ),
        Table(
            "Sleepers",
            ["jobs of 1 s", "worker processes", *(title for _, title in SLEEPERS), "must reach"],
            sleepers(report) or [[NOT_MEASURED, *[NOTHING] * (len(SLEEPERS) + 1), "1.05"]],
        ),
        Table(
            "Recovery and cost",
            ["what", "aegis-tasks", "must reach"],
            [[work.title, cell(report, work, "ours"), work.target] for work in OURS_ALONE],
        ),
    ]


def ratio(report: Report, work: Work, other: str) -> str:
    mine = report.median(work.figure, work.value)
    theirs = report.median(work.figure, work.value, other)
    if not mine or not theirs:
        return NOTHING
    times = mine / theirs if work.is_rate else theirs / mine
    return f"{times:.0f}" if times >= 10 else f"{times:.2f}"


def cell(report: Report, work: Work, contender: str) -> str:
    """The median of the rounds, and half the way from the lowest to the highest of them, in percent of it."""
    measured = report.of(work.figure, contender)
    values = report.values(work.figure, work.value, contender)
    failures = [one.failure for one in measured if one.failure]
    middle = report.median(work.figure, work.value, contender)
    if contender in report.left_out:
        return "left out"
    if middle is None:
        if failures:
            return f"failed: {failures[0]}"
        return NOTHING if measured or report.of(work.figure) else NOT_MEASURED
    text = number(middle)
    if len(values) > 1:
        text += f" ±{50 * (max(values) - min(values)) / middle:.0f}%"
    return f"{text}, {len(failures)} failed" if failures else text


def sleepers(report: Report) -> list[list[str]]:
    return [
        [
            f"{number(one.size)}",
            str(one.workers),
            *(number(one.values[value]) if one.values else f"failed: {one.failure}" for value, _ in SLEEPERS),
            "1.05",
        ]
        for one in report.of("sleepers")
    ]


def number(value: float) -> str:
    """Three digits or all before the point; thousands apart."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
