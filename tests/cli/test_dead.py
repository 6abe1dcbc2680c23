"""``dead list``, ``dead retry``, ``dead purge`` and ``retry``."""

import json
import os
import pty
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands

IO = "io_simulation_task"
HOUR_S = 3600


def bury(redis: Redis, job_id: str, *, age_s: float = 0, queue: str = "load_test", **changes: Any) -> None:
    """A dead letter as a worker writes it."""
    failure = {
        "type": changes.get("error", "ValueError"),
        "message": "no\nmore",
        "traceback": "File mail.py, line 7",
        "reason": "error",
    }
    times = {"s": False, "r": failure, "st": 5, "ft": 9, "q": keys.queue(queue), "id": job_id}
    letter = {"t": 3, "f": changes.get("task", IO), "a": [], "k": {"delay_ms": 1}, "et": 3, **times}
    redis.set(keys.dead_letter(queue, job_id), msgspec.json.encode(letter), px=keys.DEAD_TTL_MS)
    redis.zadd(keys.dead(queue), {job_id: round((time.time() - age_s) * 1000)})


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal; what is written to this file descriptor has been typed."""
    master, slave = pty.openpty()
    with os.fdopen(slave) as stdin, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stdin)
        yield master
    os.close(master)


def ids(anywhere: InProcess, *arguments: str) -> list[str]:
    return [letter["task_id"] for letter in json.loads(anywhere("dead", "list", "--json", *arguments).stdout)]


# --- list ----------------------------------------------------------------------------------------


def test_list_is_a_table_with_the_latest_first(anywhere: InProcess, sync_redis: Redis) -> None:
    bury(sync_redis, "old", age_s=2 * HOUR_S, task="cleanup_temp_files", queue="system")
    bury(sync_redis, "new", age_s=90, error="TimeoutError")
    header, *rows = anywhere("dead", "list").stdout.splitlines()
    assert header.split() == ["id", "queue", "task", "error", "attempts", "age"]
    assert [row.split()[:6] for row in rows] == [
        ["new", "load_test", IO, "TimeoutError:", "no", "3"],
        ["old", "system", "cleanup_temp_files", "ValueError:", "no", "3"],
    ]
    assert [row.split()[6] for row in rows] == ["1m", "2:00:00"]


def test_list_without_letters_says_so(anywhere: InProcess, sync_redis: Redis) -> None:
    assert anywhere("dead", "list").stdout == "no dead letters\n"
    assert json.loads(anywhere("dead", "list", "--json").stdout) == []


def test_list_as_json_has_the_arguments_and_the_traceback_where_it_is_asked_for(
    anywhere: InProcess, sync_redis: Redis
) -> None:
    bury(sync_redis, "a")
    (letter,) = json.loads(anywhere("dead", "list", "--json").stdout)
    del letter["failed_at"]
    assert letter == {
        "task_id": "a",
        "queue_type": "load_test",
        "task_name": IO,
        "args": [],
        "kwargs": {"delay_ms": 1},
        "attempts": 3,
        "reason": "error",
        "error": {"type": "ValueError", "message": "no\nmore"},
        "obstacle": None,
    }
    (letter,) = json.loads(anywhere("dead", "list", "a", "--json", "--traceback").stdout)
    assert letter["traceback"] == "File mail.py, line 7"
    assert anywhere("dead", "list", "--traceback").stdout.splitlines()[-2:] == ["a", "File mail.py, line 7"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ["new", "odd", "other", "old"]),
        (("--queue", "load_test"), ["new", "odd", "old"]),
        (("--task", "cleanup_temp_files"), ["other"]),
        (("--error", "KeyError"), ["odd"]),
        (("--older-than", "1d"), ["old"]),
        (("--newer-than", "90s"), ["new"]),
        (("--older-than", "1.5m", "--newer-than", "2h"), ["odd"]),
        (("old", "new"), ["new", "old"]),
        (("--limit", "2"), ["new", "odd"]),
    ],
)
def test_list_shows_what_is_asked_for(
    anywhere: InProcess, sync_redis: Redis, arguments: tuple[str, ...], found: list[str]
) -> None:
    bury(sync_redis, "new")
    bury(sync_redis, "odd", age_s=HOUR_S, error="KeyError")
    bury(sync_redis, "other", age_s=3 * HOUR_S, task="cleanup_temp_files", queue="system")
    bury(sync_redis, "old", age_s=25 * HOUR_S)
    assert ids(anywhere, *arguments) == found


def test_list_by_error_counts(anywhere: InProcess, sync_redis: Redis) -> None:
    for number in range(60):
        bury(sync_redis, str(number))
    bury(sync_redis, "odd", error="KeyError")
    header, *rows = [line.split() for line in anywhere("dead", "list", "--by-error").stdout.splitlines()]
    assert header == ["queue", "task", "error", "jobs"]
    assert rows == [["load_test", IO, "ValueError", "60"], ["load_test", IO, "KeyError", "1"]]
    assert json.loads(anywhere("dead", "list", "--by-error", "--error", "KeyError", "--json").stdout) == [
        {"queue_type": "load_test", "task_name": IO, "error_type": "KeyError", "count": 1}
    ]
    assert anywhere("dead", "list", "--by-error", "--queue", "system").stdout == "no dead letters\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "--older-than", "yesterday"], "--older-than 'yesterday' is no age; write 90s, 15m, 2h or 3d"),
        (["list", "--queue", "nothing"], "there is no queue 'nothing'"),
        (["purge", "--queue", "", "--yes"], "there is no queue ''"),
        (["retry"], "say which: ids, or filters such as --queue and --task, or --all"),
        (["purge", "--yes"], "say which: ids, or filters such as --queue and --task, or --all"),
        (["purge", "--all"], "purging asks first, and this is no terminal; say --yes"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    anywhere: InProcess, sync_redis: Redis, arguments: list[str], told: str
) -> None:
    bury(sync_redis, "a")
    ended = anywhere("dead", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("aegis-tasks: ")
    assert ended.stderr.count("\n") == 1
    assert told in ended.stderr
    assert sync_redis.zcard(keys.dead("load_test")) == 1


def test_group_without_a_command_shows_its_commands(anywhere: InProcess) -> None:
    for arguments in (["dead"], ["dead", "-h"]):
        ended = anywhere(*arguments)
        assert all(name in ended.stdout + ended.stderr for name in ("list", "retry", "purge"))


# --- retry ---------------------------------------------------------------------------------------


def test_retry_by_filter_requeues_and_counts(anywhere: InProcess, sync_redis: Redis) -> None:
    for number in range(3):
        bury(sync_redis, f"io-{number}")
    bury(sync_redis, "other", task="cleanup_temp_files", queue="system")
    assert anywhere("dead", "retry", "--task", IO).stdout == "3 requeued\n"
    assert ids(anywhere) == ["other"]
    assert json.loads(anywhere("status", "io-1", "--json").stdout)["status"] == "queued"
    again = anywhere("dead", "retry", "--task", IO)
    assert (again.exit_code, again.stdout) == (0, "no dead letters\n")
    answer = anywhere("dead", "retry", "--all", "--json")
    assert json.loads(answer.stdout) == {"requeued": 1, "refused": [], "not_found": []}


def test_retry_of_many_shows_how_far_it_is(cli: Commands, sync_redis: Redis) -> None:
    for number in range(101):
        bury(sync_redis, str(number))
    command = cli.run("dead", "retry", "--all")
    assert command.stdout == "101 requeued\n"
    assert "101/101" in command.stderr


def test_retry_says_what_it_could_not_do(anywhere: InProcess, sync_redis: Redis) -> None:
    anywhere("enqueue", IO, "--id", "again")
    bury(sync_redis, "again")
    bury(sync_redis, "unreadable", task="<unknown>")
    bury(sync_redis, "good")
    ended = anywhere("dead", "retry", "again", "unreadable", "good", "nobody")
    assert (ended.exit_code, ended.stdout) == (1, "1 requeued\n")
    assert set(ended.stderr.splitlines()) == {
        "again: its id was enqueued again, and that job waits or runs",
        "unreadable: its payload could not be read, so its task and arguments are not known",
        "nobody: no dead letter has this id",
    }
    answer = json.loads(anywhere("dead", "retry", "again", "nobody", "--json").stdout)
    assert (answer["requeued"], answer["not_found"]) == (0, ["nobody"])
    assert [(one["task_id"], one["verdict"]) for one in answer["refused"]] == [("again", "alive")]


def test_id_without_letter_ends_with_3(anywhere: InProcess, sync_redis: Redis) -> None:
    bury(sync_redis, "a")
    for command in (["retry"], ["purge", "--yes"]):
        ended = anywhere("dead", *command, "nobody")
        assert (ended.exit_code, ended.stderr) == (3, "nobody: no dead letter has this id\n")
    assert ids(anywhere) == ["a"]


# --- purge ---------------------------------------------------------------------------------------


def test_purge_forgets_what_is_meant(anywhere: InProcess, sync_redis: Redis) -> None:
    bury(sync_redis, "old", age_s=3 * HOUR_S)
    bury(sync_redis, "new")
    assert anywhere("dead", "purge", "--older-than", "2h", "--yes").stdout == "1 purged\n"
    assert ids(anywhere) == ["new"]
    answer = anywhere("dead", "purge", "--all", "--yes", "--json")
    assert json.loads(answer.stdout) == {"purged": 1, "refused": [], "not_found": []}
    assert sync_redis.keys("aegis:dead:*") == []


@pytest.mark.parametrize(("typed", "exit_code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 2), (b"\n", 1, 2)])
def test_purge_asks_on_a_terminal(
    anywhere: InProcess, sync_redis: Redis, terminal: int, typed: bytes, exit_code: int, left: int
) -> None:
    bury(sync_redis, "a")
    bury(sync_redis, "b")
    os.write(terminal, typed)
    ended = anywhere("dead", "purge", "--all")
    assert ended.exit_code == exit_code
    assert "purge 2 dead letters?" in ended.stderr
    assert sync_redis.zcard(keys.dead("load_test")) == left


def test_purge_of_nothing_does_not_ask(anywhere: InProcess, sync_redis: Redis, terminal: int) -> None:
    assert anywhere("dead", "purge", "--all").stdout == "no dead letters\n"


# --- one job -------------------------------------------------------------------------------------


def test_failed_job_is_retried(anywhere: InProcess, cli: Commands, sync_redis: Redis) -> None:
    anywhere("enqueue", "failure_testing_task", "-a", "failure_rate=1", "--id", "a")
    cli.run("burst", "load_test", exit_code=1)
    assert anywhere("result", "a").exit_code == 1
    assert anywhere("retry", "a").stdout == "requeued on load_test\n"
    assert json.loads(anywhere("status", "a", "--json").stdout)["status"] == "queued"
    events = json.loads(anywhere("events", "--id", "a", "--json").stdout)
    assert (events[-1]["kind"], events[-1]["data"]["reason"]) == ("job.enqueued", "requeued")


def test_retry_as_json_tells_the_queue(anywhere: InProcess, sync_redis: Redis) -> None:
    bury(sync_redis, "a", queue="system")
    answer = json.loads(anywhere("retry", "a", "--json").stdout)
    assert answer == {"task_id": "a", "queue_type": "system", "outcome": "requeued"}


def test_job_that_has_not_failed_is_refused(anywhere: InProcess, sync_redis: Redis) -> None:
    anywhere("enqueue", IO, "--id", "a")
    ended = anywhere("retry", "a")
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "aegis-tasks: job 'a' is queued already: a worker of its queue will run it\n"


def test_unknown_job_ends_with_3(anywhere: InProcess, sync_redis: Redis) -> None:
    ended = anywhere("retry", "nobody")
    assert ended.exit_code == 3
    assert "no job 'nobody'" in ended.stderr
