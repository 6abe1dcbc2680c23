"""``aegis-tasks verify``: all agree, or what does not."""

import json
from typing import Any

import pytest
from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands

CLEANUP = "cleanup_temp_files"
IO = "io_simulation_task"


@pytest.fixture
def jobs(in_process: InProcess, sync_redis: Redis) -> None:
    """Two that wait, and one that is deferred."""
    assert sync_redis.dbsize() == 0
    for command in ((CLEANUP, "--id", "a"), (IO, "--id", "b"), (IO, "--id", "c", "--delay", "60")):
        assert in_process("enqueue", *command).exit_code == 0


def document(in_process: InProcess, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
    ended = in_process("verify", *arguments, "--json")
    assert (ended.exit_code, ended.stderr) == (exit_code, "")
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@pytest.mark.usefixtures("sync_redis")
def test_nothing_agrees_with_nothing(in_process: InProcess) -> None:
    assert in_process("verify")[:2] == (0, "0 events, 0 jobs\nall agree\n")


@pytest.mark.usefixtures("jobs")
def test_jobs_that_agree_are_counted(in_process: InProcess) -> None:
    ended = in_process("verify")
    assert (ended.exit_code, ended.stdout) == (0, "3 events, 3 jobs: 2 queued, 1 deferred\nall agree\n")
    told = document(in_process)
    assert (told["agrees"], told["events"], told["jobs"]) == (True, 3, {"queued": 2, "deferred": 1})
    assert (told["trimmed_from"], told["unseen"], told["oddities"], told["findings"]) == (None, 0, {}, [])


@pytest.mark.usefixtures("jobs")
def test_jobs_that_disagree_are_told_and_are_a_failure(in_process: InProcess, sync_redis: Redis) -> None:
    sync_redis.delete(keys.queue("load_test"))
    ended = in_process("verify")
    assert ended.exit_code == 1
    _, _, first, second, last = ended.stdout.splitlines()
    assert first.split()[:4] == ["b", "load_test", IO, "queued"]
    assert second.split()[:4] == ["c", "load_test", IO, "deferred"]
    assert "it is in no queue" in first
    assert last == "2 findings, 2 shown"

    told = document(in_process, "--limit", "1", exit_code=1)
    assert (told["agrees"], told["findings_total"]) == (False, 2)
    (finding,) = told["findings"]
    assert finding == {
        "job_id": "b",
        "queue": "load_test",
        "task": IO,
        "derived": "queued",
        "stored": "not queued",
        "what": "it is in no queue",
        "event_id": finding["event_id"],
    }


@pytest.mark.usefixtures("jobs")
def test_what_no_event_mentions_is_told(in_process: InProcess, sync_redis: Redis) -> None:
    entries: Any = sync_redis.xrange(keys.EVENTS)
    first, second, _ = [entry_id.decode() for entry_id, _ in entries]
    told = document(in_process, "--after", first)
    assert (told["events"], told["unseen"], told["trimmed_from"]) == (2, 1, second)
    _, missing, unseen, _ = in_process("verify", "--after", first).stdout.splitlines()
    assert missing == f"earlier events are missing: the first one is {second}"
    assert unseen == "1 jobs in queues that no event mentions"


@pytest.mark.usefixtures("sync_redis")
@pytest.mark.parametrize("arguments", [["--after", "yesterday"], ["--limit", "-1"]])
def test_wrong_choice_is_wrong_usage(in_process: InProcess, arguments: list[str]) -> None:
    ended = in_process("verify", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")


def test_jobs_that_have_run_agree(cli: Commands, sync_redis: Redis) -> None:
    assert sync_redis.dbsize() == 0
    for number in range(3):
        cli.run("enqueue", IO, "-a", "delay_ms=1", "--id", str(number))
    cli.run("burst", "load_test")
    ended = cli.run("verify")
    assert ended.stdout.splitlines() == ["11 events, 3 jobs: 3 succeeded", "all agree"]
    assert "events" in ended.stderr
    assert "11/11" in ended.stderr
