"""What becomes of requests when the gateway is told to stop."""

import signal
import socket
import threading
from collections import Counter
from typing import Final

import httpx
import pytest
from redis import Redis

from bridge import keys
from tests.cli.processes import Commands, ValkeyChild, wait_until
from tests.end_to_end.serving import start_gateway
from tests.gateway.problem import ENQUEUE

BODY: Final = b'{"task_name": "io_simulation_task"}'
REQUEST: Final = (
    f"POST {ENQUEUE} HTTP/1.1\r\nHost: localhost\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY
CLIENTS: Final = 8


@pytest.fixture
def cli(embedded_cli: Commands, valkey: ValkeyChild) -> Commands:
    """Commands on a Valkey of the test's own."""
    embedded_cli.environ["REDIS_URL"] = valkey.url
    return embedded_cli


class Client(threading.Thread):
    """Sends one request after the other on a connection that it keeps as long as it may, until it is refused one."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        try:
            while self.use_one_connection():
                pass
        except ConnectionRefusedError:
            self.outcomes["refused"] += 1

    def use_one_connection(self) -> bool:
        """Whether the server closed it in an orderly way, with an answer that said so.

        A new connection whose request the server has not read when it stops is closed: that is a refusal as well, and
        nothing of it may have been stored.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            is_new = True
            while True:
                try:
                    connection.sendall(REQUEST)
                    head = self.read_answer(connection)
                except OSError as error:
                    if is_new and isinstance(error, ConnectionError):
                        self.outcomes["refused"] += 1
                        return False
                    self.outcomes[f"lost: {error!r}"] += 1
                    return False
                is_new = False
                self.outcomes[head.split()[1].decode()] += 1
                if b"connection: close" in head.lower():
                    return True

    @staticmethod
    def read_answer(connection: socket.socket) -> bytes:
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += read_some(connection)
        head, _, body = answer.partition(b"\r\n\r\n")
        (length,) = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line.lower()]
        while len(body) < length:
            body += read_some(connection)
        return head


def read_some(connection: socket.socket) -> bytes:
    part = connection.recv(65_536)
    if not part:
        raise ConnectionError("closed without an answer")
    return part


def test_no_request_is_lost_when_the_gateway_is_told_to_stop_under_load(valkey: ValkeyChild, cli: Commands) -> None:
    process, port = start_gateway(cli)
    clients = [Client(port) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    wait_until(lambda: all(client.outcomes["202"] > 20 for client in clients), what="load")

    process.process.send_signal(signal.SIGTERM)

    for client in clients:
        client.join(20)
    outcomes = sum((client.outcomes for client in clients), Counter())
    assert set(outcomes) == {"202", "refused"}
    assert outcomes["refused"] == CLIENTS
    assert process.wait(5) == 0
    assert "Traceback" not in process.stderr
    with Redis.from_url(valkey.url) as redis:
        assert redis.zcard(keys.queue("load_test")) == outcomes["202"]


def test_request_in_flight_is_answered_and_one_that_takes_too_long_is_cut_off(
    valkey: ValkeyChild, cli: Commands
) -> None:
    """A Redis that is silent for a while holds the request."""
    process, port = start_gateway(cli)
    valkey.signal(signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(REQUEST)
        wait_until(lambda: in_flight(port) >= 2, what="the request")
        process.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(port), what="the end of new connections")
        valkey.signal(signal.SIGCONT)
        assert b" 202 " in Client.read_answer(connection)
    assert process.wait(5) == 0

    process, port = start_gateway(cli)
    valkey.signal(signal.SIGSTOP)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(REQUEST)
        wait_until(lambda: in_flight(port) >= 2, what="the request")
        process.process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert "Traceback" not in process.stderr


def in_flight(port: int) -> float:
    """Requests that are being answered, this one included."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
    (line,) = [line for line in text.splitlines() if line.startswith("aegis_http_requests_in_flight{")]
    return float(line.split()[-1])


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
