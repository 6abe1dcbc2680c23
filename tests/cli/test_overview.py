"""``aegis-tasks tasks``, ``queues`` and ``health``, and the command's own help."""

import json

import pytest
from redis import Redis

from bridge import keys
from bridge.time_buckets import bucket
from cli.main import COMMANDS
from cli.queues import briefly
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands

IO = "io_simulation_task"


def test_tasks_are_a_table_with_their_arguments(anywhere: InProcess) -> None:
    header, *rows = anywhere("tasks").stdout.splitlines()
    assert header.split() == ["task", "queue", "arguments", "what", "it", "does"]
    assert len(rows) == 8
    (row,) = [row for row in rows if row.startswith(IO)]
    assert row.split()[:5] == [IO, "load_test", "[delay_ms],", "[operations],", "[file_bytes]"]
    assert row.rstrip().endswith("Waits the way network calls do and writes, reads and removes a small file each time.")


def test_tasks_as_json_have_the_schema_of_their_arguments(anywhere: InProcess) -> None:
    tasks = {task["name"]: task for task in json.loads(anywhere("tasks", "--json").stdout)}
    assert tasks[IO]["queue"] == "load_test"
    assert tasks[IO]["timeout_seconds"] == 60
    assert tasks[IO]["max_tries"] == 3
    assert tasks[IO]["arguments"]["properties"]["delay_ms"]["default"] == 100


def test_tasks_are_listed_without_redis(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    assert in_process("tasks").exit_code == 0


def test_queues_show_their_jobs_and_whether_a_worker_is_there(anywhere: InProcess, sync_redis: Redis) -> None:
    for name in ("running", "waiting"):
        anywhere("enqueue", IO, "--id", name)
    anywhere("enqueue", IO, "--delay", "60")
    sync_redis.set(keys.in_progress("running"), b"1", px=60_000)
    sync_redis.set(keys.health_check(keys.queue("load_test")), "alive", ex=60)

    rows = [line.split() for line in anywhere("queues").stdout.splitlines()]
    queues = {queue["name"]: queue for queue in json.loads(anywhere("queues", "--json").stdout)}

    assert rows[0] == ["wait", "run"]
    assert rows[1][:8] == ["queue", "state", "queued", "running", "deferred", "dead", "oldest", "done/s"]
    assert rows[2] == ["system", "offline", "0", "0", "0", "0", "-", "0.0", "-", "-", "-"]
    assert rows[3][:5] == ["load_test", "ready", "1", "1", "1"]
    assert rows[4][:5] == ["media", "no", "tasks", "0", "0"]
    assert {name: queue["message"] for name, queue in queues.items()} == {
        "system": "worker offline",
        "load_test": "ready",
        "media": "no tasks defined",
    }
    load_test = queues["load_test"]
    assert (load_test["queued"], load_test["in_progress"], load_test["deferred"]) == (1, 1, 1)


def test_queues_show_what_came_of_their_latest_jobs_within_100_columns(anywhere: InProcess, sync_redis: Redis) -> None:
    seconds, _ = sync_redis.time()  # type: ignore[misc]
    for minute in (seconds // 60, seconds // 60 - 1):
        fields = {"job.succeeded": 59_999, "job.failed": 15_000, f"wait:{bucket(870)}": 1, f"run:{bucket(75_000)}": 1}
        sync_redis.hset(keys.stats("load_test", minute), mapping=fields)
        sync_redis.expire(keys.stats("load_test", minute), 60)

    lines = anywhere("queues").stdout.splitlines()
    queues = {queue["name"]: queue for queue in json.loads(anywhere("queues", "--json").stdout)}

    *_, done, failed, wait, run = lines[3].split()
    assert 410 < int(done) <= 500
    assert failed == "20.0%"
    assert wait == "800ms/864ms"
    assert run == "1m/1m"
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert queues["load_test"]["recent"]["failed"] == 30_000
    assert queues["system"]["recent"]["run_p95_ms"] is None


@pytest.mark.parametrize(
    ("milliseconds", "told"),
    [
        (0, "0ms"), (999, "999ms"), (1000, "1.0s"), (9949, "9.9s"), (9950, "9s"), (59_999, "59s"), (60_000, "1m"),
        (3_599_999, "59m"), (47 * 3_600_000, "47h"), (48 * 3_600_000, "2d"),
    ],
)  # fmt: skip
def test_times_in_the_table_are_short(milliseconds: int, told: str) -> None:
    assert briefly(milliseconds) == told


def test_health_is_1_while_a_queue_with_tasks_has_no_worker(anywhere: InProcess, sync_redis: Redis) -> None:
    sync_redis.set(keys.health_check(keys.queue("system")), "alive", ex=60)

    people = anywhere("health")
    programs = anywhere("health", "--json")

    assert people.exit_code == programs.exit_code == 1
    assert people.stdout.startswith("degraded: Valkey ")
    assert "queue load_test has no worker; start one with: aegis-tasks worker load_test" in people.stdout
    assert "queue system" not in people.stdout
    report = json.loads(programs.stdout)
    assert (report["offline"], report["reasons"]) == (["load_test"], ["queue load_test has no worker"])


def test_health_is_0_when_everything_is_there(anywhere: InProcess, sync_redis: Redis) -> None:
    for name in ("system", "load_test"):
        sync_redis.set(keys.health_check(keys.queue(name)), "alive", ex=60)
    ended = anywhere("health", "--detailed")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("healthy: Valkey ")
    assert "append only file: " in ended.stdout
    assert "load_test  ready" in ended.stdout


@pytest.mark.parametrize("command", ["health", "queues", "events", "status x", f"enqueue {IO}", "burst load_test"])
def test_redis_that_is_away_ends_with_code_4(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://user:s3cret@127.0.0.1:1/0")
    ended = in_process(*command.split())
    assert (ended.exit_code, ended.stdout) == (4, "")
    assert ended.stderr.startswith("aegis-tasks: Redis at redis://127.0.0.1:1/0 cannot be reached: ")
    assert ended.stderr.count("\n") == 1
    assert "s3cret" not in ended.stderr


@pytest.mark.parametrize(
    "command", ["health", "queues", f"enqueue {IO}", "status x", "events", "burst load_test", "worker"]
)
def test_redis_inside_another_process_is_refused(
    in_process: InProcess, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A job enqueued into this process's own memory would be gone with it."""
    monkeypatch.setenv("REDIS_URL", "memory://")
    ended = in_process(*command.split())
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "memory://" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [*COMMANDS, ""])
def test_every_command_explains_itself(in_process: InProcess, command: str) -> None:
    ended = in_process(*command.split(), "--help")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "Usage:" in ended.stdout
    if not command:
        assert all(name in ended.stdout for name in COMMANDS)
    elif command not in {"status", "result"}:
        assert f"aegis-tasks {command}" in ended.stdout  # an example, or the usage


@pytest.mark.parametrize("arguments", [["nothing"], ["jobs"], ["status"], ["status", "a", "b"], ["tasks", "--nope"]])
def test_wrong_usage_ends_with_code_2(anywhere: InProcess, arguments: list[str]) -> None:
    ended = anywhere(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Usage:" in ended.stderr


def test_nothing_is_coloured_or_cut_in_a_pipe(cli: Commands, anywhere: InProcess) -> None:
    name = "x" * 200
    anywhere("enqueue", IO, "--id", name)

    tasks, events = (cli.run(command).stdout for command in ("tasks", "events"))

    for output in (tasks, events):
        assert "\x1b" not in output
        assert "…" not in output
    assert name in events
    assert max(map(len, tasks.splitlines())) > 200


def test_colours_can_be_switched_off_and_on(cli: Commands) -> None:
    coloured = cli.run("queues", FORCE_COLOR="1")
    plain = cli.run("queues", FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b[33m" in coloured.stdout
    assert "\x1b[3" not in plain.stdout
    assert "offline" in plain.stdout
