"""Settings that are wrong stop every command with one line that names them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands

LONG_RUNNING = {"serve", "gateway", "worker"}


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("AEGIS_PRT", "8000", "unknown setting AEGIS_PRT; did you mean AEGIS_PORT?"),
        ("AEGIS_ANYTHING", "1", "unknown setting AEGIS_ANYTHING"),
        ("AEGIS_PORT", "http", "AEGIS_PORT='http': Expected `int`"),
        ("AEGIS_PORT", "0", "AEGIS_PORT='0': Expected `int` >= 1"),
        ("AEGIS_PORT", "65536", "AEGIS_PORT='65536': Expected `int` <= 65535"),
        ("AEGIS_ACCEPT_PICKLE", "maybe", "AEGIS_ACCEPT_PICKLE='maybe'"),
        ("AEGIS_MAX_BODY_BYTES", "1MB", "AEGIS_MAX_BODY_BYTES='1MB'"),
        ("AEGIS_EVENTS_MAX_LEN", "-1", "AEGIS_EVENTS_MAX_LEN='-1'"),
        ("WORKER_MAX_TRIES", "many", "WORKER_MAX_TRIES='many'"),
        ("WORKER_KEEP_RESULT_SECONDS", "1.5", "WORKER_KEEP_RESULT_SECONDS='1.5'"),
        ("REDIS_DB", "zero", "REDIS_DB='zero'"),
        ("REDIS_URL", "localhost:6379", "REDIS_URL must start with one of redis://"),
        ("REDIS_URL", "http://localhost", "REDIS_URL must start with one of redis://"),
        ("AEGIS_QUEUES", "no.such.module", "AEGIS_QUEUES: no.such.module cannot be imported"),
        ("AEGIS_QUEUES", "nothing", "AEGIS_QUEUES: nothing cannot be imported"),
        ("AEGIS_QUEUES", "json", "AEGIS_QUEUES: json is neither a settings class nor a module with one"),
        ("AEGIS_QUEUES", "json.JSONDecoder.nope", "AEGIS_QUEUES: json.JSONDecoder.nope cannot be imported"),
        (
            "AEGIS_QUEUES",
            "workers.queues.system,workers.queues.system.WorkerSettings",
            "queue 'system' is defined twice",
        ),
    ],
)
@pytest.mark.parametrize("command", ["tasks", "queues", "serve"])
def test_wrong_setting_is_named_in_one_line(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, command: str, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(variable, value)
    ended = in_process(command)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("aegis-tasks: ")
    assert ended.stderr.count("\n") == 1
    assert told in ended.stderr


@pytest.mark.parametrize("command", ["gateway", "worker", "burst system", "events", "status x", "health"])
def test_no_command_overlooks_a_wrong_setting(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("AEGIS_PRT", "8000")
    ended = in_process(*command.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == "aegis-tasks: unknown setting AEGIS_PRT; did you mean AEGIS_PORT?\n"


def test_command_as_a_process_says_so_too(cli: Commands) -> None:
    command = cli.run("queues", exit_code=2, AEGIS_PORT="http")
    assert (command.stdout, command.stderr) == ("", "aegis-tasks: AEGIS_PORT='http': Expected `int`, got `str`\n")


def test_traceback_is_shown_on_request(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_PORT", "http")
    with pytest.raises(ConfigurationError, match="AEGIS_PORT"):
        in_process("--debug", "queues")


def test_settings_come_from_a_file_too_and_the_environment_wins(
    in_process: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("AEGIS_QUEUES=workers.queues.media\nWORKER_MAX_TRIES=7\n")
    assert json.loads(in_process("tasks", "--json").stdout) == []
    monkeypatch.setenv("AEGIS_QUEUES", "workers.queues.system")
    names = {task["name"] for task in json.loads(in_process("tasks", "--json").stdout)}
    assert names == {"system_health_check", "cleanup_temp_files"}
    (tmp_path / ".env").write_text("AEGIS_PRT=8000\n")
    assert in_process("tasks").exit_code == 2


@pytest.mark.parametrize(("variable", "value"), [("AEGIS_PRT", "8000"), ("WORKER_MAX_TRIES", "many")])
def test_stock_arq_command_stops_at_a_wrong_setting_too(cli: Commands, variable: str, value: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("arq"), "workers.queues.system.WorkerSettings", "--burst"],
        cwd=cli.folder,
        env={**cli.environ, variable: value},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert variable in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "gateway"])
@pytest.mark.parametrize("how", ["option", "setting"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_address_beyond_this_machine_is_refused(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, how: str, host: str
) -> None:
    arguments = ["--host", host] if how == "option" else []
    if how == "setting":
        monkeypatch.setenv("AEGIS_HOST", host)
    ended = in_process(command, *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"aegis-tasks: {host} can be reached from other machines")
    assert "--insecure" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / ".aegis").exists()
