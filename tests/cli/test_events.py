"""``aegis-tasks events``: the latest, those after a point, and as they happen."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from redis import Redis

from tests.cli.conftest import InProcess
from tests.cli.processes import Command, Commands, ValkeyChild, wait_until

IO = "io_simulation_task"


@pytest.fixture
def ids(anywhere: InProcess, sync_redis: Redis) -> list[str]:
    """Ids of the events of four jobs: a, b, c (deferred), d (on another queue)."""
    assert sync_redis.dbsize() == 0
    commands = (
        (IO, "--id", "a"),
        (IO, "--id", "b"),
        (IO, "--id", "c", "--delay", "60"),
        ("cleanup_temp_files", "--id", "d"),
    )
    return [json.loads(anywhere("enqueue", *command, "--json").stdout)["event_id"] for command in commands]


def told(anywhere: InProcess, *arguments: str) -> list[dict[str, Any]]:
    ended = anywhere("events", *arguments, "--json")
    assert ended.exit_code == 0
    events: list[dict[str, Any]] = json.loads(ended.stdout)
    return events


def jobs(anywhere: InProcess, *arguments: str) -> list[str]:
    return [event["job_id"] for event in told(anywhere, *arguments)]


def test_latest_events_come_oldest_first(anywhere: InProcess, ids: list[str]) -> None:
    events = told(anywhere)
    assert [event["id"] for event in events] == ids
    assert [event["job_id"] for event in events] == ["a", "b", "c", "d"]
    assert events[0]["kind"] == "job.enqueued"
    assert events[0]["queue"] == "load_test"
    assert events[0]["task"] == IO
    assert events[0]["data"] == {"due_at_ms": events[0]["at_ms"]}


def test_limit_keeps_the_newest(anywhere: InProcess, ids: list[str]) -> None:
    assert len(ids) == 4
    assert jobs(anywhere, "--limit", "2") == ["c", "d"]


def test_after_an_event_come_those_that_follow_it(anywhere: InProcess, ids: list[str]) -> None:
    assert jobs(anywhere, "--after", ids[1]) == ["c", "d"]
    assert jobs(anywhere, "--after", "0", "--limit", "2") == ["a", "b"]
    assert jobs(anywhere, "--after", ids[3]) == []
    assert jobs(anywhere, "--after", "$") == []
    assert jobs(anywhere, "--after", "2001-01-01T00:00:00Z") == ["a", "b", "c", "d"]
    assert jobs(anywhere, "--after", "2999-01-01T00:00:00Z") == []


def test_events_can_be_chosen(anywhere: InProcess, ids: list[str]) -> None:
    assert len(ids) == 4
    assert jobs(anywhere, "--kind", "job.deferred") == ["c"]
    assert jobs(anywhere, "--kind", "job.deferred", "--kind", "job.enqueued") == ["a", "b", "c", "d"]
    assert jobs(anywhere, "--queue", "system") == ["d"]
    assert jobs(anywhere, "--task", IO, "--limit", "1") == ["c"]
    assert jobs(anywhere, "--id", "b") == ["b"]
    assert jobs(anywhere, "--after", "0", "--id", "b", "--kind", "job.deferred") == []


def test_events_are_lines_for_people(anywhere: InProcess, ids: list[str]) -> None:
    lines = anywhere("events").stdout.splitlines()
    assert len(lines) == len(ids)
    assert [line.split()[1:5] for line in lines[:1]] == [["job.enqueued", "load_test", IO, "a"]]


@pytest.mark.usefixtures("sync_redis")
def test_no_events_yet(anywhere: InProcess) -> None:
    assert anywhere("events")[:2] == (0, "no events yet\n")
    assert told(anywhere) == []


@pytest.mark.usefixtures("sync_redis")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--after", "yesterday"],
        ["--after", "2026-13-01"],
        ["--after", "1-2-3"],
        ["--after", "9" * 30],
        ["--kind", "job.nothing"],
        ["--limit", "0"],
        ["--limit", "x"],
    ],
)
def test_wrong_choice_is_wrong_usage(anywhere: InProcess, arguments: list[str]) -> None:
    ended = anywhere("events", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert arguments[1] in ended.stderr or arguments[0] in ended.stderr


# --- as they happen -------------------------------------------------------------------------------


def followed(command: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command.lines]


def is_followed(redis: Redis) -> bool:
    """Whether a client waits for the next event."""
    clients: dict[str, Any] = redis.info("clients")  # type: ignore[assignment]
    return bool(clients["blocked_clients"])


def follow(cli: Commands, redis: Redis, *arguments: str) -> Command:
    """A command that is known to read the stream."""
    command = cli.start("events", "--follow", "--json", *arguments)
    wait_until(lambda: is_followed(redis), what="the follower")
    return command


def test_follow_tells_what_happens_from_now_on(cli: Commands, sync_redis: Redis) -> None:
    cli.run("enqueue", IO, "-a", "delay_ms=1", "--id", "before")
    following = follow(cli, sync_redis)
    chosen = cli.start("events", "--follow", "--kind", "job.succeeded", "--after", "0")
    cli.run("enqueue", IO, "-a", "delay_ms=1", "--id", "after")

    cli.run("burst", "load_test")

    wait_until(lambda: len(following.lines) == 7, what="the events")
    events = followed(following)
    assert [event["kind"] for event in events if event["job_id"] == "after"] == [
        "job.enqueued",
        "job.started",
        "job.succeeded",
    ]
    assert [event["kind"] for event in events if event["job_id"] == "before"] == ["job.started", "job.succeeded"]
    assert [event["kind"] for event in events if not event["job_id"]] == ["worker.started", "worker.stopped"]
    assert [event["id"] for event in events] == sorted(event["id"] for event in events)
    wait_until(lambda: len(chosen.lines) == 2, what="the chosen events")
    assert all(" job.succeeded " in line for line in chosen.lines)
    for command in (following, chosen):
        command.interrupt()
        assert command.wait(5) == 0
        assert command.stderr == ""


def test_follow_misses_nothing_when_redis_restarts(cli: Commands, valkey: ValkeyChild) -> None:
    cli.environ["REDIS_URL"] = valkey.url
    with Redis.from_url(valkey.url) as redis:
        following = follow(cli, redis, "--kind", "job.enqueued")
        cli.run("enqueue", IO, "--id", "before")
        wait_until(lambda: len(following.lines) == 1, what="the first event")

        valkey.kill()
        wait_until(lambda: "the event stream cannot be read" in following.stderr, what="the follower to notice")
        valkey.start()
        cli.run("enqueue", IO, "--id", "after")  # while the follower may not be back yet

        wait_until(lambda: len(following.lines) == 2, what="the second event")
    assert [event["job_id"] for event in followed(following)] == ["before", "after"]
    assert following.stderr.count("\n") == 1
    following.interrupt()
    assert following.wait(5) == 0


def test_follow_ends_when_nobody_reads_any_more(cli: Commands, sync_redis: Redis) -> None:
    """As in `aegis-tasks events --follow | head -1`."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "events", "--follow", "--json"],
        cwd=cli.folder,
        env=cli.environ,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    try:
        os.close(writer)
        wait_until(lambda: is_followed(sync_redis), what="the follower")
        os.close(reader)

        cli.run("enqueue", IO)

        _, stderr = process.communicate(timeout=10)
        assert b"Traceback" not in stderr
    finally:
        process.kill()
        process.communicate()
