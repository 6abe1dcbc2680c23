"""The gateway as a process of its own: what only a real HTTP server can get wrong."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import httpx
import msgspec
import pytest

from tests.cli.processes import Command, Commands, is_free
from tests.end_to_end.serving import start_gateway
from tests.gateway.problem import ENQUEUE, JSON, problem_in

SEED = {"task_name": "io_simulation_task", "queue_type": "load_test"}
TWENTY_MB = 20 * 1024 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[tuple[Command, int]]:
    """A gateway process and its port."""
    commands = Commands(tmp_path_factory.mktemp("gateway"), REDIS_URL=valkey_url)
    process, port = start_gateway(commands)
    yield process, port
    assert process.is_running
    commands.close()


@pytest.fixture
def gateway(running: tuple[Command, int]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{running[1]}", timeout=20) as client:
        yield client


def said(port: int, request: bytes) -> bytes:
    """What the server answers to these very bytes before it closes the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        with suppress(OSError):  # it may have closed the connection before all was sent
            connection.sendall(request)
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                answer += part
    return answer


def test_location_is_a_header_of_its_own(gateway: httpx.Client) -> None:
    answer = gateway.post(ENQUEUE, json={**SEED, "task_id": "50%25?#&a=b"})
    assert answer.status_code == 202
    assert gateway.get(answer.headers["location"]).json()["task_id"] == "50%25?#&a=b"


def test_body_of_twenty_megabytes_is_refused(gateway: httpx.Client) -> None:
    body = msgspec.json.encode({**SEED, "kwargs": {"delay_ms": "x" * TWENTY_MB}})
    problem_in(gateway.post(ENQUEUE, content=body, headers=JSON), 413, "request_too_large")
    assert gateway.get("/health").status_code == 200


def test_chunks_without_a_length_are_refused_once_they_are_too_many(gateway: httpx.Client) -> None:
    chunks = (b" " * 65_536 for _ in range(TWENTY_MB // 65_536))
    problem_in(gateway.post(ENQUEUE, content=chunks, headers=JSON), 413, "request_too_large")
    assert gateway.get("/health").status_code == 200


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_is_told_that_its_twenty_megabytes_are_too_large(running: tuple[Command, int]) -> None:
    url = f"http://127.0.0.1:{running[1]}{ENQUEUE}"
    curl = ["curl", "-sS", "-X", "POST", url, "-H", "Content-Type: application/json", "--data-binary", "@-"]
    done = subprocess.run(curl, input=b" " * TWENTY_MB, capture_output=True, timeout=30, check=False)
    assert msgspec.json.decode(done.stdout)["code"] == "request_too_large", done.stderr


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /api/v1/tasks/status/%zz HTTP/1.1",
        b"GET /api/v1/tasks/status/\xff HTTP/1.1",
        b"GET /api/v1/tasks/status/" + b"x" * 30_000 + b" HTTP/1.1",
        b"GET /api/v1/tasks/status/a%00b HTTP/1.1",
        b"GET /api/v1/tasks/status/..%2f..%2f HTTP/1.1",
        b"GET /../../etc/passwd HTTP/1.1",
        b"GET http://elsewhere/health/nothing HTTP/1.1",
        b"POST /api/v1/tasks/enqueue HTTP/1.1",
        b"BREW /api/v1/tasks/ HTTP/1.1",
        b"GET /api/v1/tasks/status/" + b"x" * 1_000_000 + b" HTTP/1.1",
        b"nonsense",
    ],
    ids=lambda line: repr(line[:45]),
)
def test_odd_request_is_refused_and_the_server_goes_on(
    running: tuple[Command, int], gateway: httpx.Client, request_line: bytes
) -> None:
    answer = said(running[1], request_line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    is_http = b"HTTP/1.1" in request_line and len(request_line) < 500_000  # else it may be refused without a word
    assert answer.startswith(b"HTTP/1.1 4") or (answer == b"" and not is_http), answer[:200]
    assert gateway.get("/health").status_code == 200


def test_headers_of_every_answer_arrive_and_do_not_tell_what_the_server_is_made_of(gateway: httpx.Client) -> None:
    for answer in (gateway.get("/health"), gateway.get("/nothing"), gateway.get("/schema")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["server"] == "aegis-tasks"


def test_log_has_a_line_of_json_for_each_record_and_no_payload(
    running: tuple[Command, int], gateway: httpx.Client
) -> None:
    process, _ = running
    gateway.post(ENQUEUE, json={"task_name": "io_simulation_task", "kwargs": {"delay_ms": "s3cret-argument"}})
    gateway.get("/api/v1/tasks/status/nothing")
    for line in process.stderr.splitlines():
        msgspec.json.decode(line)
    assert "s3cret-argument" not in process.stderr
    assert process.stdout == ""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_gateway_ends_at_a_signal_although_a_client_stays_connected(
    tmp_path_factory: pytest.TempPathFactory, valkey_url: str, signum: int
) -> None:
    commands = Commands(tmp_path_factory.mktemp("gateway"), REDIS_URL=valkey_url)
    try:
        process, port = start_gateway(commands)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            client.get("/health")

            process.process.send_signal(signum)

            assert process.wait(5) == 0
        assert is_free(port)
    finally:
        commands.close()
