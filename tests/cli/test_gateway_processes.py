"""``aegis-tasks gateway --processes``: several processes behind one port, under one command."""

import signal
import sys

import httpx
import psutil
import pytest
from redis import Redis

from tests.cli.conftest import InProcess
from tests.cli.processes import Command, Commands, are_gone, find_free_port, is_free, wait_until
from tests.gateway.test_metrics import labels_in, samples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes do not share a port")
ASKED = 'aegis_http_requests_total{method="GET",route="/api/v1/tasks",status="200"}'


class Gateways:
    """Two gateway processes, and who asks them, each time on a connection of its own."""

    def __init__(self, cli: Commands, *options: str, **environ: str) -> None:
        self.port = find_free_port()
        self.asked = 0
        # No connection is kept, so that each request may reach either process.
        transport = httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))
        self.client = httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{self.port}")
        self.command: Command = cli.start("gateway", "--port", str(self.port), "--processes", "2", *options, **environ)
        wait_until(lambda: len(self.who_answers()) == 2, what="both processes")

    def get(self, path: str) -> httpx.Response:
        self.command.assert_is_running()
        return self.client.get(path)

    def who_answers(self, tries: int = 20) -> set[str]:
        """A process makes request ids that begin alike."""
        return {self.get("/health/ready").headers["X-Request-ID"].partition("-")[0] for _ in range(tries)}

    def processes(self) -> list[psutil.Process]:
        return [child for child in self.command.children() if "gateway" in child.cmdline()]


def metrics(gateways: Gateways) -> tuple[str, dict[str, float]]:
    """Which process answered, and the counters that it told."""
    answer = gateways.get("/metrics")
    told = {f"{name}{labels_in(labels)}": value for name, labels, value in samples(answer.text)}
    counters = {name: value for name, value in told.items() if "_total" in name or "_bucket" in name}
    return answer.headers["X-Request-ID"].partition("-")[0], counters


def test_two_processes_share_a_port_and_tell_the_same(cli: Commands) -> None:
    gateways = Gateways(cli)
    first, answering = gateways.processes(), gateways.who_answers()
    check_that_metrics_never_go_backwards(gateways)
    asked_before = gateways.asked

    first[0].kill()

    wait_until(lambda: len(gateways.who_answers()) == 1, what="the other one alone")
    wait_until(lambda: len(gateways.who_answers() - answering) == 1, what="another process")
    second = gateways.processes()
    assert len(second) == 2
    assert first[1] in second
    assert "ended with code -9; it starts again in 0.5 s" in gateways.command.stderr
    check_that_metrics_never_go_backwards(gateways)

    gateways.command.process.send_signal(signal.SIGTERM)

    assert gateways.command.wait(10) == 0
    assert are_gone(second)
    assert is_free(gateways.port)
    written = gateways.command.stderr.count('"route":"/api/v1/tasks"')
    assert written >= gateways.asked - asked_before, "all but what the killed one had not written yet"
    assert gateways.command.stderr.count("starts again") == 1


def check_that_metrics_never_go_backwards(gateways: Gateways) -> None:
    seen: set[str] = set()
    before: dict[str, float] = {}
    while len(seen) < 2:
        for _ in range(3):
            assert gateways.get("/api/v1/tasks").status_code == 200
            gateways.asked += 1
        who, counters = metrics(gateways)
        seen.add(who)
        assert [name for name, value in before.items() if counters.get(name, 0) < value] == []
        before = counters
    wait_until(lambda: metrics(gateways)[1].get(ASKED) == gateways.asked, 10, what="the counts of both")
    assert {name for name in before if name.startswith("process_cpu")} == {
        f'process_cpu_seconds_total{{process="{number}"}}' for number in (1, 2)
    }


def test_embedded_valkey_is_started_once_and_lines_can_be_left_out(embedded_cli: Commands) -> None:
    gateways = Gateways(embedded_cli, "--no-access-log")
    health = gateways.get("/health/detailed").json()
    assert health["redis"]["reachable"]
    assert "embedded" in health["redis"]["address"]
    processes = gateways.processes()
    gateways.command.interrupt()
    assert gateways.command.wait(10) == 0
    assert are_gone(processes)
    assert gateways.command.stderr == ""


def test_memory_cannot_be_shared(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "memory://")
    ended = in_process("gateway", "--processes", "2")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "leave out --processes" in ended.stderr


def test_wrong_queue_is_told_once(in_process: InProcess, sync_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_QUEUES", "no_such_module")
    ended = in_process("gateway", "--processes", "2")
    assert ended.exit_code == 2
    assert ended.stderr.count("\n") == 1
