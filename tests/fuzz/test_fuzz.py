"""Whatever is sent to a gateway that runs, it is never the gateway's fault, and what it answers is documented."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.tokens import Tokens
from tests.cli.processes import Commands
from tests.end_to_end.serving import start_gateway
from tests.fuzz.raw_requests import addresses, assert_is_no_fault, raw_requests, said
from tests.fuzz.schema_run import run_schemathesis

TIMEOUT_S = 120
EXAMPLES = 5
RAW_REQUESTS = 400


class Running:
    """A gateway process that asks for tokens, and a token."""

    def __init__(self, folder: Path, valkey_url: str) -> None:
        tokens_file = folder / "tokens.json"
        self.commands = Commands(folder, REDIS_URL=valkey_url, AEGIS_TOKENS_FILE=str(tokens_file))
        self.token = Tokens(tokens_file).create("fuzz", ["admin"])[0]
        self.process, self.port = start_gateway(self.commands)
        self.url = f"http://127.0.0.1:{self.port}"
        self.paths = addresses(self.url)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("fuzz"), valkey_url)
    yield running
    assert running.process.is_running
    for line in running.process.stderr.splitlines():
        assert '"level":"error"' not in line, line
    assert running.token not in running.process.stderr
    running.commands.close()


def test_every_route_keeps_to_its_schema(running: Running, tmp_path: Path) -> None:
    run = run_schemathesis(running.url, tmp_path, token=running.token, examples=EXAMPLES, seed=1, timeout_s=TIMEOUT_S)
    assert run.failures == [], run.output
    assert run.cases > 100


@settings(
    max_examples=RAW_REQUESTS,
    deadline=None,
    derandomize=True,  # the same inputs in every run: a red run of the suite is never bad luck
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(data=st.data())
def test_any_bytes(running: Running, data: st.DataObject) -> None:
    request = data.draw(raw_requests(running.paths, b"Bearer " + running.token.encode()))
    assert_is_no_fault(said(running.port, request))


def test_gateway_still_serves(running: Running) -> None:
    answer = httpx.get(f"{running.url}/api/v1/tasks/", headers={"Authorization": f"Bearer {running.token}"})
    assert answer.status_code == 200
