"""The run goes on when a contender fails, and leaves no process behind."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.benchmarks import __main__ as runner
from tests.benchmarks.contenders import ROOT, LeftOut, Program, environment, floor, peer
from tests.benchmarks.plan import Step
from tests.benchmarks.throw_away_valkey import throw_away_valkey
from tests.cli.processes import are_gone, wait_until

A_CHILD = "import time; time.sleep(600)"
STARTS_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {A_CHILD!r}])"


def python(code: str) -> Program:
    return Program((sys.executable, "-c", code), versions="")


@pytest.mark.parametrize("program", [None, floor()], ids=["ours", "floor"])
def test_step_has_the_values_of_the_program(program: Program | None) -> None:
    with throw_away_valkey() as port:
        taken = runner.take(Step("drain", "ours", 1, 300), program, port)
    assert taken.failure == ""
    assert taken.values["jobs_per_s"] > 0


def test_memory_of_a_peer_is_what_its_jobs_add_on_the_server() -> None:
    store = (
        "import sys; from redis import Redis; Redis(port=int(sys.argv[-1])).set('jobs', b'x' * 1_000_000); print({})"
    )
    with throw_away_valkey() as port:
        taken = runner.take(Step("memory", "arq", 1, 1000), python(store), port)
    assert 1000 <= taken.values["bytes_per_job"] < 2000


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no such queue')", "ImportError: no such queue"),
        ("open('/nowhere/at/all')", "FileNotFoundError: [Errno 2] No such file or directory: 'all'"),
        ("raise SystemExit(3)", "it ended with code 3 and said nothing"),
        ("print('ready')", "it ended with code 0 and said nothing"),
    ],
)
def test_failure_of_a_contender_is_its_result(code: str, reason: str) -> None:
    with throw_away_valkey() as port:
        taken = runner.take(Step("drain", "arq", 1, 10), python(code), port)
    assert taken.values == {}
    assert taken.failure == reason


def test_contender_that_does_not_answer_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TIMEOUT_S", 2)
    with pytest.raises(runner.NoAnswer, match="no answer within 2 s"):
        runner.answer_to([sys.executable, "-c", STARTS_A_CHILD], {})
    assert not [child for child in psutil.Process().children(recursive=True) if A_CHILD in child.cmdline()]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_ends_everything_it_has_started(signum: signal.Signals, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    options = ["--quick", "--only", "sleepers", "--peers", "none", "--page", str(page)]
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks", *options],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: len(workers_below(run.pid)) > 1, what="two workers")
        descendants = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signum)
        run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 128 + signum
    wait_until(lambda: are_gone(descendants), what="the end of its processes")
    assert not page.exists()


def workers_below(pid: int) -> list[psutil.Process]:
    return [one for one in psutil.Process(pid).children(recursive=True) if "worker" in one.cmdline()]


@pytest.mark.parametrize("name", ["arq", "bullmq"])
def test_peer_that_is_not_there_is_left_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(LeftOut):
        peer(name, tmp_path)
