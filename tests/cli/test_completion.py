"""What the shell offers after Tab: the protocol of the installed completion, as bash speaks it."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis

from bridge import keys
from tests.cli.processes import Commands, is_unused, wait_until

IO: Final = "io_simulation_task"


def offered(commands: Commands, line: str, **environ: str) -> list[str]:
    """What can follow this line, whose last word is being typed."""
    words = line.split(" ")
    told = {"_AEGIS_TASKS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    told |= {**commands.environ, **environ}
    program = Path(sys.executable).with_name("aegis-tasks")
    ended = subprocess.run([program], cwd=commands.folder, env=told, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()


def assert_offered(commands: Commands, line: str, words: list[str]) -> None:
    """These words can follow; asked more than once, since on a busy machine an answer may come too late to be told."""
    wait_until(lambda: offered(commands, line) == words, what=line)


@pytest.fixture(params=["redis", "gateway"])
def commands(request: pytest.FixtureRequest, cli: Commands) -> Commands:
    if request.param == "gateway":
        cli.environ["AEGIS_URL"] = request.getfixturevalue("gateway_url")
        cli.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    return cli


def test_commands_and_options_are_offered(cli: Commands) -> None:
    assert offered(cli, "aegis-tasks wor") == ["worker", "workers"]
    assert "retry" in offered(cli, "aegis-tasks dead ")
    assert offered(cli, "aegis-tasks enqueue --ur") == ["--url"]
    assert offered(cli, "aegis-tasks worker --ur") == []


def test_tasks_and_queues_are_offered(commands: Commands) -> None:
    assert offered(commands, "aegis-tasks enqueue io") == [IO]
    assert IO not in offered(commands, "aegis-tasks enqueue --queue system ")
    assert offered(commands, "aegis-tasks pause ") == ["system", "load_test", "media"]
    assert offered(commands, "aegis-tasks enqueue noop_task --queue l") == ["load_test"]


def test_ids_of_the_latest_jobs_are_offered_where_they_fit(commands: Commands, sync_redis: Redis) -> None:
    for number, kind in enumerate(["job.enqueued", "job.started", "job.failed", "job.succeeded"]):
        event: dict[Any, Any] = {"kind": kind, "job_id": f"job-{number}", "queue": "load_test", "task": IO}
        sync_redis.xadd(keys.EVENTS, event)
    assert_offered(commands, "aegis-tasks status job-", ["job-3", "job-2", "job-1", "job-0"])
    assert_offered(commands, "aegis-tasks abort ", ["job-1", "job-0"])
    assert_offered(commands, "aegis-tasks retry job", ["job-2"])


def test_kinds_of_events_are_offered(cli: Commands) -> None:
    assert offered(cli, "aegis-tasks events --kind job.re") == ["job.retrying"]


@pytest.mark.parametrize("place", [{"REDIS_URL": "redis://127.0.0.1:1"}, {"AEGIS_URL": "http://127.0.0.1:1"}])
def test_nothing_is_said_when_nobody_answers(cli: Commands, place: dict[str, str]) -> None:
    assert offered(cli, "aegis-tasks status ", **place) == []


def test_wrong_settings_are_not_told_of(cli: Commands) -> None:
    assert offered(cli, "aegis-tasks pause ", AEGIS_QUEUES="nothing.here") == []


def test_completion_starts_no_server(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    assert offered(commands, "aegis-tasks status ") == []
    assert not commands.data_dir.exists()
    following = commands.start("events", "--follow")  # the server goes with its last user
    commands.run("enqueue", IO, "--id", "order-17")
    following.assert_is_running()
    assert_offered(commands, "aegis-tasks status ", ["order-17"])
    commands.close()
    assert offered(commands, "aegis-tasks status ") == []
    assert is_unused(commands.data_dir)
