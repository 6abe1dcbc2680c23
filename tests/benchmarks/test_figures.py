"""Every figure of ours, and the floor, gives its values; how high they are is not a test."""

import json
import shlex
import shutil
import subprocess
import sys
from typing import Final

import pytest

from tests.benchmarks.contenders import ROOT, echo, environment, floor
from tests.benchmarks.http import NO_WRK
from tests.benchmarks.throw_away_valkey import throw_away_valkey

RATES: Final = {"one_per_s", "at_once_per_s", "bulk_per_s"}


def answer_to(*command: str) -> dict[str, float]:
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("figure", "options", "expected"),
    [
        ("drain", ["--jobs", "300"], {"jobs_per_s"}),
        ("latency", ["--jobs", "3"], {"p50_ms", "p99_ms"}),
        ("enqueue", ["--jobs", "100"], RATES | {"checked_bulk_per_s"}),
        ("memory", ["--jobs", "700"], {"bytes_per_job", "stream_bytes_per_event"}),
        ("recovery", ["--jobs", "3"], {"first_s", "seconds"}),
        ("idle", ["--seconds", "0.5"], {"worker_mb", "gateway_mb", "worker_commands_per_s"}),
        (
            "sleepers",
            ["--jobs", "200", "--workers", "2", "--seconds", "0.1"],
            {"took_s", "ideal_s", "ratio", "machine_percent", "valkey_percent_of_a_core"},
        ),
    ],
)
def test_figure_runs_alone(figure: str, options: list[str], expected: set[str]) -> None:
    values = answer_to(sys.executable, "-m", f"tests.benchmarks.{figure}", *options)
    assert set(values) == expected
    may_be_none = {"machine_percent", "valkey_percent_of_a_core", "worker_commands_per_s"}
    assert min(value for name, value in values.items() if name not in may_be_none) > 0


HTTP: Final = {"per_s", "p50_ms", "p99_ms", "idle_p50_ms", "idle_p99_ms", "jobs"}


@pytest.mark.skipif(not shutil.which("wrk"), reason=NO_WRK)
@pytest.mark.parametrize(("server", "stores"), [("", True), (shlex.join(echo().command), False)], ids=["ours", "echo"])
def test_http_is_measured_of_us_and_of_another_server(server: str, stores: bool) -> None:
    values = answer_to(sys.executable, "-m", "tests.benchmarks.http", "--seconds", "1", "--server", server)
    assert set(values) == (HTTP | {"keyed_per_s"} if stores else HTTP)
    assert (values.pop("jobs") > 0) is stores
    assert min(values.values()) > 0


def test_without_wrk_it_is_told_what_to_install() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.http", "--seconds", "1"]
    done = subprocess.run(
        command, cwd=ROOT, env={**environment(), "PATH": ""}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (1, NO_WRK)


@pytest.mark.parametrize(
    ("figure", "jobs", "expected"),
    [("drain", "300", {"jobs_per_s"}), ("latency", "3", {"p50_ms", "p99_ms"}), ("enqueue", "100", RATES)],
)
def test_floor_answers_as_a_peer_does(figure: str, jobs: str, expected: set[str]) -> None:
    with throw_away_valkey() as port:
        values = answer_to(*floor().command, figure, "--jobs", jobs, "--port", str(port))
    assert set(values) == expected
    assert min(values.values()) > 0
