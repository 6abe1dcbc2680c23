"""``aegis-tasks enqueue --stdin``: one job for each line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess
from tests.cli.processes import Command, Commands, ValkeyChild, wait_until

IO = "io_simulation_task"
REFUSED = b"""\
{"delay_ms": 1}

not JSON
{"delay_ms": -1}
  {"delay_ms": 2}\t
5
[]
{"delay": 1}"""


@pytest.fixture(params=["redis", "gateway"])
def commands(request: pytest.FixtureRequest, cli: Commands) -> Commands:
    """Commands on Redis, and through a gateway while no Redis is to be reached."""
    if request.param == "gateway":
        cli.environ["AEGIS_URL"] = request.getfixturevalue("gateway_url")
        cli.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    return cli


def bodies(redis: Redis, queue: str = "load_test") -> list[dict[str, Any]]:
    ids: list[bytes] = redis.zrange(keys.queue(queue), 0, -1)  # type: ignore[assignment]
    return [msgspec.json.decode(redis.get(keys.job(job_id.decode()))) for job_id in ids]  # type: ignore[arg-type]


def test_each_line_is_the_arguments_of_a_job(commands: Commands, sync_redis: Redis) -> None:
    lines = b"".join(b'{"delay_ms": %d}\n' % number for number in range(2500))
    command = commands.run_reading(lines, "enqueue", IO, "--stdin")
    assert command.stdout.startswith("2500 enqueued in ")
    assert command.stderr == ""
    assert sorted(body["k"]["delay_ms"] for body in bodies(sync_redis)) == list(range(2500))


def test_refused_lines_are_told_with_their_numbers_and_do_not_keep_the_others_back(
    commands: Commands, sync_redis: Redis
) -> None:
    command = commands.run_reading(REFUSED, "enqueue", IO, "--stdin", exit_code=1)
    assert command.stdout.startswith("3 enqueued, 4 refused in ")
    told = command.stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["line 3", "line 6", "line 4", "line 8"]
    assert "not JSON" in told[0]
    assert told[2] == f"line 4: {IO}: expected `int` >= 0 - at $.kwargs.delay_ms"
    assert len(bodies(sync_redis)) == 3


def test_json_has_a_line_for_each_that_is_refused_and_the_sum(commands: Commands) -> None:
    lines = b'{"task_name": "%b", "task_id": "a"}\n' % IO.encode()
    command = commands.run_reading(lines * 2 + b'{"task_name": 7}\n', "enqueue", "--stdin", "--json", exit_code=1)
    taken, wrong, total = map(json.loads, command.lines)
    assert (taken["line"], taken["status"], taken["task_id"]) == (2, "duplicate", "a")
    assert (wrong["line"], wrong["error"]["path"]) == (3, "$.task_name")
    assert total["per_second"] >= 0
    counted = {"enqueued": 1, "duplicates": 1, "refused": 1, "unknown": 0, "untried": 0, "complete": True}
    assert {name: total[name] for name in counted} == counted


def test_options_are_for_all_lines_and_a_request_wins_over_them(commands: Commands, sync_redis: Redis) -> None:
    lines = b'{"task_name": "%b"}\n{"task_name": "%b", "delay_seconds": 0}\n' % (IO.encode(), IO.encode())
    commands.run_reading(lines, "enqueue", "--stdin", "--delay", "600", "--queue", "load_test")
    entries: list[tuple[bytes, dict[bytes, bytes]]] = sync_redis.xrange(keys.EVENTS)  # type: ignore[assignment]
    assert [fields[b"kind"] for _, fields in entries] == [b"job.deferred", b"job.enqueued"]


def test_no_lines_are_no_jobs(commands: Commands) -> None:
    assert commands.run_reading(b"\n", "enqueue", IO, "--stdin").stdout.startswith("0 enqueued in ")


def test_long_list_of_refused_lines_is_cut(cli: Commands) -> None:
    command = cli.run_reading(b"x\n" * 2000, "enqueue", IO, "--stdin", exit_code=1)
    assert len(command.stderr.splitlines()) == 11
    assert command.stderr.endswith("… and 1990 more lines\n")


def test_endless_line_is_refused(cli: Commands) -> None:
    command = cli.run_reading(b'{"delay_ms": 1}\n' + b"x" * 20_000_000, "enqueue", IO, "--stdin", exit_code=2)
    assert command.stderr == "aegis-tasks: line 2 is longer than 16777216 bytes\n"
    assert command.stdout.startswith("stopped: 1 enqueued in ")


@pytest.mark.parametrize("option", ["-a x=1", "--args {}", "--id a", "--wait", "--idempotency-key k"])
def test_options_of_one_job_are_refused(in_process: InProcess, option: str) -> None:
    ended = in_process("enqueue", IO, "--stdin", *option.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"aegis-tasks: {option.split()[0]}: not together with --stdin")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of one: what is written to the second can be read from the first."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        os.close(end)


def enqueued(redis: Redis, number: int) -> bool:
    return redis.zcard(keys.queue("load_test")) == number


def test_lines_of_a_slow_pipe_are_enqueued_as_they_come(
    commands: Commands, sync_redis: Redis, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    command = commands.start_reading(reader, "enqueue", IO, "--stdin")
    for number in (1, 2):
        os.write(writer, b'{"delay_ms": 1}\n{"delay_')
        wait_until(lambda number=number: enqueued(sync_redis, number), what="the job")  # type: ignore[misc]
        os.write(writer, b'ms": 1}\n' if number == 2 else b'ms": 1, "operations": 1}\n')
        wait_until(lambda: command.is_running)
        break
    wait_until(lambda: enqueued(sync_redis, 2), what="the second job")

    command.interrupt()

    assert command.wait(10) == 130
    assert command.stdout.startswith("stopped: 2 enqueued in ")
    assert command.stderr == ""


def test_redis_that_goes_away_ends_it_with_what_was_enqueued(
    cli: Commands, valkey: ValkeyChild, pipe: tuple[int, int], tmp_path: Path
) -> None:
    reader, writer = pipe
    command: Command = cli.start_reading(reader, "enqueue", IO, "--stdin", REDIS_URL=valkey.url)
    os.write(writer, b'{"delay_ms": 1}\n')
    with Redis.from_url(valkey.url) as redis:
        wait_until(lambda: enqueued(redis, 1), what="the job")
    valkey.kill()
    os.write(writer, b'{"delay_ms": 1}\n')
    assert command.wait(20) == 4
    assert command.stdout.startswith("stopped: 1 enqueued, 1 perhaps in ")
    assert command.stderr.startswith("aegis-tasks: Redis")
    assert command.stderr.count("\n") == 1
