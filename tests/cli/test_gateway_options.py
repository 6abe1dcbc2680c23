"""``--url`` and ``--token``: before or after a command's name, or from the environment."""

import json

import pytest
from redis import Redis

from cli.main import COMMANDS, NEED_REDIS
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands, wait_until
from tests.end_to_end.serving import start_gateway

IO = "io_simulation_task"


@pytest.fixture
def without_redis(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Commands that no Redis answers."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    return in_process


@pytest.mark.usefixtures("sync_redis")
def test_address_may_be_before_or_after_the_name(without_redis: InProcess, gateway_url: str) -> None:
    for command in (
        ["--url", gateway_url, "queues"],
        ["queues", "--url", gateway_url],
        ["--url", "http://127.0.0.1:1", "queues", "--url", gateway_url],
        ["dead", "--url", gateway_url, "list"],
        ["dead", "list", "--url", gateway_url],
    ):
        assert without_redis(*command).exit_code == 0, command


@pytest.mark.usefixtures("sync_redis")
def test_option_wins_over_the_environment(
    in_process: InProcess, gateway_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEGIS_URL", "http://127.0.0.1:1")
    assert in_process("queues").exit_code == 4
    assert in_process("queues", "--url", gateway_url).exit_code == 0
    assert in_process("queues", "--url", "").exit_code == 0  # Redis itself
    assert in_process("queues").exit_code == 4  # what was said is not kept


@pytest.mark.parametrize("command", sorted(NEED_REDIS & set(COMMANDS) - {"tokens"}))
def test_command_that_needs_redis_says_so(in_process: InProcess, command: str) -> None:
    words = [command, *(["load_test"] if command == "burst" else [])]
    for line in (["--url", "http://localhost", *words], [*words, "--url", "http://localhost"]):
        ended = in_process(*line)
        told = f"aegis-tasks: `aegis-tasks {command}` works on Redis itself, not through a gateway: leave --url out\n"
        assert ended == (2, "", told)


def test_gateway_that_is_away_ends_with_code_4(in_process: InProcess) -> None:
    for command in ("queues", f"enqueue {IO}", "status x", "events", "events --follow", "top", "health", "tasks"):
        ended = in_process(*command.split(), "--url", "http://127.0.0.1:1")
        assert (ended.exit_code, ended.stdout) == (4, "")
        assert ended.stderr.startswith("aegis-tasks: the gateway at http://127.0.0.1:1 cannot be reached: ")
        assert ended.stderr.count("\n") == 1


def test_address_that_is_none_is_wrong_usage(in_process: InProcess) -> None:
    ended = in_process("queues", "--url", "localhost:8000", "--token", "s3cret")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("aegis-tasks: --url (or AEGIS_URL) must be like https://")
    assert "s3cret" not in ended.stderr


def test_token_opens_what_its_scope_allows(cli: Commands, sync_redis: Redis) -> None:
    assert sync_redis.dbsize() == 0
    cli.environ["AEGIS_TOKENS_FILE"] = str(cli.folder / "tokens.json")
    reader = cli.run("tokens", "create", "reader", "--scope", "tasks:read").lines[0]
    _, port = start_gateway(cli)
    cli.environ |= {"AEGIS_URL": f"http://127.0.0.1:{port}", "REDIS_URL": "redis://127.0.0.1:1/0"}

    nobody = cli.run("queues", exit_code=1).stderr
    assert nobody.startswith(f"aegis-tasks: the gateway at http://127.0.0.1:{port} wants a token (")
    assert nobody.endswith("): give it with --token or AEGIS_TOKEN\n")
    assert cli.run("queues", "--json", "--token", reader).json[0]["name"] == "system"
    refused = cli.run("pause", "system", AEGIS_TOKEN=reader, exit_code=1).stderr
    assert refused == "aegis-tasks: the token 'reader' lacks the scope admin\n"
    assert cli.run("top", "--json", AEGIS_TOKEN=reader).json["events"] == []


def test_wait_and_follow_through_a_gateway(cli: Commands, sync_redis: Redis, gateway_url: str) -> None:
    assert sync_redis.dbsize() == 0
    remote = {"AEGIS_URL": gateway_url, "REDIS_URL": "redis://127.0.0.1:1/0"}
    following = cli.start("events", "--follow", "--json", "--after", "0", **remote)
    waiting = cli.start("enqueue", IO, "-a", "delay_ms=1", "--wait", "--json", **remote)
    wait_until(lambda: len(following.lines) == 1, what="the enqueue")

    cli.run("burst", "load_test")

    assert waiting.wait(20) == 0
    assert waiting.json["result"]["operations"] == 2
    wait_until(lambda: any("job.succeeded" in line for line in following.lines), what="the end of the job")
    kinds = [event["kind"] for event in map(json.loads, following.lines) if event["job_id"]]
    assert kinds == ["job.enqueued", "job.started", "job.succeeded"]
    following.interrupt()
    assert following.wait(5) == 0
    assert following.stderr == ""
