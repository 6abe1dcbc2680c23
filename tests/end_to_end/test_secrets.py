"""Passwords, tokens and arguments are in no log and in nothing that a command prints, whatever goes wrong."""

from pathlib import Path

import httpx
import pytest
from redis import Redis

from bridge import keys
from bridge.tokens import Tokens
from tests.cli.conftest import InProcess, in_process
from tests.cli.processes import Commands, ValkeyChild, wait_until
from tests.end_to_end.serving import start_gateway
from tests.gateway.problem import ENQUEUE, problem_in

__all__ = ["in_process"]

PASSWORD = "pa55-0f-redis"
ARGUMENT = "s3cret-argument"
COMMANDS = [
    *("tasks", "queues", "workers", "health", "health --detailed", "status x", "result x", "events", "verify"),
    *("dead list", "enqueue noop_task", "abort x", "retry x", "pause system", "resume system", "burst system"),
]


@pytest.fixture
def valkey_with_password(valkey: ValkeyChild) -> ValkeyChild:
    with Redis(port=valkey.port) as client:
        client.config_set("requirepass", PASSWORD)
    return valkey


def url_of(valkey: ValkeyChild, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{valkey.port}/0"


def test_log_of_a_gateway_in_all_kinds_of_trouble(valkey_with_password: ValkeyChild, tmp_path: Path) -> None:
    valkey = valkey_with_password
    tokens_file = tmp_path / "tokens.json"
    token, other = (Tokens(tokens_file).create(name, ["admin"], rate="1000/s")[0] for name in ("one", "two"))
    wrong = f"{token[:-4]}0000"
    url = url_of(valkey, PASSWORD)
    commands = Commands(tmp_path, REDIS_URL=url, AEGIS_TOKENS_FILE=str(tokens_file))
    try:
        process, port = start_gateway(commands)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:
            asked = {"task_name": "noop_task", "kwargs": {"secret": ARGUMENT}}
            problem_in(client.post(ENQUEUE, json=asked), 400, "invalid_arguments")
            problem_in(client.post(ENQUEUE, json=asked, headers={"Authorization": wrong}), 401, "unauthorized")
            problem_in(client.get(f"/api/v1/tasks/status/unknown?token={other}"), 404, "job_not_found")
            with Redis.from_url(url) as redis:
                redis.set(keys.EVENTS, "no stream")
            problem_in(client.post(ENQUEUE, json={"task_name": "noop_task"}), 500, "internal_error")
            Tokens(tokens_file).revoke("two")
            valkey.kill()
            problem_in(client.post(ENQUEUE, json={"task_name": "noop_task"}), 503, "store_unreachable")
            assert PASSWORD not in client.get("/health/ready").text
            assert PASSWORD not in client.get("/health/detailed").text
            valkey.start()  # without its password: the connection is refused in another way
            wait_until(lambda: client.get("/health/ready").status_code in {200, 503}, what="an answer")
        told = process.stdout + process.stderr
        assert '"level":"error"' in told  # the log is what is looked at
    finally:
        commands.close()
    for secret in (PASSWORD, ARGUMENT, token, wrong, other, token.split("_", 2)[2], other.split("_", 2)[2]):
        assert secret not in told


@pytest.mark.parametrize("password", [PASSWORD, "wr0ng-pa55"])
def test_commands_do_not_print_the_password(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, valkey_with_password: ValkeyChild, password: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url_of(valkey_with_password, password))
    for command in COMMANDS:
        ended = in_process(*command.split())
        assert password not in ended.stdout + ended.stderr, command
        assert (ended.exit_code == 4) == (password != PASSWORD) or command == "tasks", (command, ended)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@127.0.0.1:1/0",
        f"redis://user:{PASSWORD}@127.0.0.1:1",
        f"redis://127.0.0.1:1?password={PASSWORD}",
        f"redis://:{PASSWORD}@127.0.0.1:port",
        f"redis://:{PASSWORD}/x@127.0.0.1:1",
        f"redis://:{PASSWORD}#x@127.0.0.1:1",
        f"redis://:x/{PASSWORD}@127.0.0.1:1",
        f"redis://:x#{PASSWORD}@127.0.0.1:1",
        f"redis://:x?{PASSWORD}@127.0.0.1:1",
        f"redis://127.0.0.1:1?{PASSWORD}=x",
        f"sentinel://:{PASSWORD}@127.0.0.1:1/m",
        f"sentinel://:{PASSWORD}@127.0.0.1:port/m",
        f"unix://:{PASSWORD}@/nowhere/valkey.sock",
        f"http://:{PASSWORD}@127.0.0.1",
        f":{PASSWORD}@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("command", ["queues", "health --detailed", "events"])
def test_commands_do_not_print_a_url_that_is_wrong_or_leads_nowhere(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, url: str, command: str
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    ended = in_process(*command.split())
    assert ended.exit_code in {2, 4}, ended
    assert PASSWORD not in ended.stdout + ended.stderr
