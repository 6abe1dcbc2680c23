"""Tokens across processes: one command changes what every gateway that runs lets through."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.processes import Commands, wait_until
from tests.end_to_end.serving import start_gateway

TASKS = "/api/v1/tasks/"


@pytest.fixture
def commands(tmp_path: Path, valkey_url: str) -> Iterator[Commands]:
    commands = Commands(tmp_path, REDIS_URL=valkey_url)
    yield commands
    commands.close()


def test_two_gateways_close_share_a_limit_and_heed_a_revocation(commands: Commands) -> None:
    ports = [start_gateway(commands)[1] for _ in range(2)]
    urls = [f"http://127.0.0.1:{port}{TASKS}" for port in ports]
    assert [httpx.get(url).status_code for url in urls] == [200, 200]  # open: there is no token yet

    token = commands.run("tokens", "create", "shop", "--scope", "tasks:read", "--rate", "5/h").stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    wait_until(lambda: all(httpx.get(url).status_code == 401 for url in urls), 5, what="both to ask for a token")

    statuses = [httpx.get(urls[number % 2], headers=headers).status_code for number in range(8)]
    assert statuses == [200] * 5 + [429] * 3

    commands.run("tokens", "revoke", "shop")
    wait_until(
        lambda: all(httpx.get(url, headers=headers).status_code == 401 for url in urls), 5, what="both to refuse it"
    )
    assert [httpx.get(url).status_code for url in urls] == [401, 401]
