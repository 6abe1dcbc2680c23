"""The page has what a report says, and keeps what is written by hand."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.benchmarks.page import BEGIN, END, with_report
from tests.benchmarks.report import Machine, Measurement, Report, here
from tests.docs.pages import ROOT, Page, read_page


def measured(figure: str, contender: str, number: int = 1, failure: str = "", **values: float) -> Measurement:
    return Measurement(figure=figure, contender=contender, round=number, size=100, values=values, failure=failure)


SLEEPERS: Final = {"took_s": 64.0, "ideal_s": 62.5, "ratio": 1.024, "machine_percent": 40.0}
REPORT: Final = Report(
    date=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    commit="abc1234",
    command="make bench",
    rounds=3,
    machine=Machine(processor="A processor", cores=2, memory_gb=8, system="Linux 6", load=0.25),
    versions={"valkey": "valkey 9.1.2", "arq": "arq 0.28.0, Python 3.11.7"},
    left_out={"bullmq": "there is no node and npm on the PATH"},
    measurements=[
        *(measured("drain", "ours", n, jobs_per_s=rate) for n, rate in enumerate([40_000, 44_000, 42_000], 1)),
        *(measured("drain", "arq", n, jobs_per_s=rate) for n, rate in enumerate([1000, 1050, 1100], 1)),
        measured("drain", "saq", failure="ImportError: a | b"),
        measured("drain", "streaq", 1, jobs_per_s=1500),
        measured("drain", "streaq", 2, failure="no answer within 300 s"),
        measured("latency", "ours", p50_ms=1.0, p99_ms=2.5),
        measured("latency", "arq", p50_ms=250.0, p99_ms=500.0),
        measured("enqueue", "ours", one_per_s=7000, at_once_per_s=9000, bulk_per_s=70_000, checked_bulk_per_s=50_000),
        measured("http", "ours", per_s=9000),
        measured("http", "echo", per_s=10_000),
        measured("http", "fastapi", failure="no pool"),
        measured("enqueue", "arq", one_per_s=2500, at_once_per_s=5000),
        Measurement(
            figure="sleepers", contender="ours", round=1, size=20_000, workers=10,
            values={**SLEEPERS, "valkey_percent_of_a_core": 9.0},
        ),
        Measurement(figure="sleepers", contender="ours", round=1, size=20_000, workers=40, failure="no memory"),
    ],
)  # fmt: skip


@pytest.fixture
def page(tmp_path: Path) -> Page:
    path = tmp_path / "benchmarks.md"
    path.write_text(with_report(f"# Speed\n\n{BEGIN}\nold\n{END}\n\n## By hand\n\nKept.\n", REPORT))
    return read_page(path)


def row(page: Page, heading: str, work: str) -> dict[str, str]:
    (table,) = [table for table in page.tables if table.heading == heading]
    (found,) = [row for row in table.rows if row[table.columns[0]] == work]
    return found


def test_what_stands_outside_of_the_marks_is_kept(page: Page) -> None:
    text = page.path.read_text()
    assert text.startswith("# Speed\n")
    assert text.endswith("## By hand\n\nKept.\n")
    assert "old" not in text


def test_page_can_be_written_again(page: Page) -> None:
    text = page.path.read_text()
    assert with_report(text, REPORT) == text


def test_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        with_report("# Speed\n", REPORT)


def test_ratios_come_first_and_more_than_one_is_in_our_favour(page: Page) -> None:
    assert page.headings[1:3] == ["Times as good as", "Measured"]
    assert row(page, "Times as good as", "drain, jobs/s")["arq"] == "40"
    assert row(page, "Times as good as", "start, p50, ms")["arq"] == "250"
    assert row(page, "Times as good as", "enqueue one, jobs/s")["arq"] == "2.80"


def test_cell_is_the_median_with_its_spread(page: Page) -> None:
    cells = row(page, "Measured", "drain, jobs/s")
    assert (cells["aegis-tasks"], cells["arq"]) == ("42 000 ±5%", "1 050 ±5%")
    assert cells["must reach"] == "40 000"
    assert row(page, "Measured", "start, p99, ms")["aegis-tasks"] == "2.50"


def test_failures_stand_where_the_numbers_would(page: Page) -> None:
    cells = row(page, "Measured", "drain, jobs/s")
    assert cells["SAQ"] == "failed: ImportError: a / b"
    assert cells["streaQ"] == "1 500, 1 failed"


def test_what_was_not_measured_says_so(page: Page) -> None:
    assert row(page, "Measured", "memory of a job, bytes")["aegis-tasks"] == "not measured"
    assert row(page, "Measured", "enqueue 500 a call, jobs/s")["arq"] == "–"
    assert row(page, "Recovery and cost", "recovery after kill -9, s")["aegis-tasks"] == "not measured"
    assert row(page, "Measured", "drain, jobs/s")["BullMQ"] == "left out"
    assert "- left out: BullMQ: there is no node and npm on the PATH" in page.path.read_text()


def test_http_has_a_table_of_its_own(page: Page) -> None:
    cells = row(page, "Enqueueing over HTTP", "requests/s, 32 connections")
    assert (cells["aegis-tasks"], cells["Litestar echo"], cells["times Litestar echo"]) == ("9 000", "10 000", "0.90")
    assert (cells["FastAPI"], cells["times FastAPI"]) == ("failed: no pool", "–")


def test_sleepers_have_a_row_for_each_number_of_workers(page: Page) -> None:
    (table,) = [table for table in page.tables if table.heading == "Sleepers"]
    assert [row["worker processes"] for row in table.rows] == ["10", "40"]
    assert [row["ratio"] for row in table.rows] == ["1.02", "failed: no memory"]


def test_circumstances_are_told(page: Page) -> None:
    text = page.path.read_text()
    for told in (
        "2026-01-02 03:04 UTC",
        "abc1234",
        "make bench",
        "A processor, 2 cores",
        "load average 0.25",
        "valkey 9.1.2",
        "arq 0.28.0",
    ):
        assert told in text


def test_report_of_this_machine_survives_json() -> None:
    report = here(command="make bench", rounds=1)
    assert report.machine.processor
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_page_of_the_project_has_its_marks() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert with_report(page, REPORT) != page
