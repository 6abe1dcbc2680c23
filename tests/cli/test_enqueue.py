"""``aegis-tasks enqueue`` and the two commands that read a job."""

import json
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from redis import Redis

from bridge import keys
from bridge.events import Event
from cli.wait import what_of
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands, ValkeyChild, wait_until

IO = "io_simulation_task"
FAILING = ("enqueue", "failure_testing_task", "-a", "failure_rate=1")


def the_only_job(redis: Redis, queue: str = "load_test") -> tuple[str, dict[str, Any]]:
    """The id and the body of the one job on a queue."""
    (job_id,) = redis.zrange(keys.queue(queue), 0, -1)  # type: ignore[misc]
    body: dict[str, Any] = msgspec.json.decode(redis.get(keys.job(job_id.decode())))  # type: ignore[arg-type]
    return job_id.decode(), body


def test_enqueue_prints_the_id_and_what_to_type_next(cli: Commands, sync_redis: Redis) -> None:
    command = cli.run("enqueue", IO, "--queue", "load_test")

    job_id, body = the_only_job(sync_redis)
    assert command.lines == [
        job_id,
        f"Task {IO} is on queue load_test",
        "no worker is running; next: aegis-tasks burst load_test",
    ]
    assert (body["f"], body["a"], body["k"]) == (IO, [], {})
    assert command.stderr == ""


def test_with_a_worker_the_next_thing_to_type_asks_for_the_result(anywhere: InProcess, sync_redis: Redis) -> None:
    sync_redis.set(keys.health_check(keys.queue("load_test")), "alive", ex=60)
    job_id, *_, last = anywhere("enqueue", IO, "--queue", "load_test").stdout.splitlines()
    assert last == f"next: aegis-tasks result {job_id} --wait 30"


def test_json_is_one_document(anywhere: InProcess, sync_redis: Redis) -> None:
    enqueued = json.loads(anywhere("enqueue", IO, "-q", "load_test", "--json").stdout)
    assert (enqueued["task_id"], enqueued["queue_type"]) == (the_only_job(sync_redis)[0], "load_test")
    assert sync_redis.xrange(keys.EVENTS, enqueued["event_id"], enqueued["event_id"])


def test_arguments_of_the_command_line_get_the_type_of_the_signature(anywhere: InProcess, sync_redis: Redis) -> None:
    assert anywhere("enqueue", "cleanup_temp_files", "-a", "max_age_hours=1.5", "-a", "dry_run=true").exit_code == 0
    assert the_only_job(sync_redis, "system")[1]["k"] == {"max_age_hours": 1.5, "dry_run": True}


def test_arguments_may_be_a_json_object_over_which_single_ones_win(anywhere: InProcess, sync_redis: Redis) -> None:
    anywhere("enqueue", IO, "--args", '{"delay_ms": 5, "operations": 1}', "--arg", "operations=3")
    assert the_only_job(sync_redis)[1]["k"] == {"delay_ms": 5, "operations": 3}


def test_arguments_may_be_a_json_array_by_position(
    in_process: InProcess, sync_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEGIS_QUEUES", "tests.gateway.mail_queue")
    assert in_process("enqueue", "send_email", "--args", '[7, "news"]', "-a", "urgent=1").exit_code == 0
    body = the_only_job(sync_redis, "mail")[1]
    assert (body["a"], body["k"]) == ([7, "news"], {"urgent": True})


def test_delay_defers_the_job(anywhere: InProcess, sync_redis: Redis) -> None:
    enqueued = json.loads(anywhere("enqueue", IO, "--delay", "90", "--json").stdout)

    start, queued_at = (datetime.fromisoformat(enqueued[name]) for name in ("estimated_start", "queued_at"))
    assert start - queued_at == timedelta(seconds=90)
    assert json.loads(anywhere("status", enqueued["task_id"], "--json").stdout)["status"] == "deferred"
    ((_, fields),) = sync_redis.xrange(keys.EVENTS)  # type: ignore[misc]
    assert fields[b"kind"] == b"job.deferred"


def test_chosen_id_is_refused_the_second_time(cli: Commands, sync_redis: Redis) -> None:
    assert cli.run("enqueue", IO, "--id", "order-17").lines[0] == "order-17"
    command = cli.run("enqueue", IO, "--id", "order-17", exit_code=1)
    assert command.stdout == ""
    assert command.stderr.count("\n") == 1
    assert "'order-17' exists" in command.stderr
    assert the_only_job(sync_redis)[0] == "order-17"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "no queue has a task 'nothing'; tasks: cleanup_temp_files, cpu_intensive_task"),
        ([IO, "--queue", "nothing"], "there is no queue 'nothing'; queues: system, load_test, media"),
        ([IO, "--queue", "system"], "queue 'system' has no task 'io_simulation_task'; tasks: system_health_check"),
        ([IO, "-a", "delay=5"], "there is no argument 'delay'; did you mean 'delay_ms'? - at $.kwargs.delay"),
        ([IO, "-a", "delay_ms=soon"], "expected `int`, got `str` - at $.kwargs.delay_ms"),
        ([IO, "-a", "delay_ms=-1"], "expected `int` >= 0 - at $.kwargs.delay_ms"),
        ([IO, "-a", "delay_ms"], "-a 'delay_ms' is not KEY=VALUE"),
        ([IO, "-a", "=5"], "-a '=5' is not KEY=VALUE"),
        ([IO, "--args", "delay_ms=5"], "--args is not a JSON object or array"),
        ([IO, "--args", "[5]"], f"{IO}: at most 0 positional arguments - at $.args[0]"),
        ([IO, "--args", "5"], "--args is not a JSON object or array"),
        ([IO, "--args", "[" * 5000], "--args is not a JSON object or array"),
        ([IO, "--delay", "inf"], "$.delay_seconds"),
        ([IO, "--id", "a b"], "$.task_id"),
        ([IO, "-a", "delay_ms=\udcff"], "not valid UTF-8"),
    ],
)
def test_what_cannot_be_enqueued_is_told_in_one_line(
    anywhere: InProcess, sync_redis: Redis, arguments: list[str], told: str
) -> None:
    ended = anywhere("enqueue", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("aegis-tasks: ")
    assert ended.stderr.count("\n") == 1
    assert told in ended.stderr
    assert sync_redis.dbsize() == 0


def test_command_that_is_refused_tells_so_in_one_line(cli: Commands, sync_redis: Redis) -> None:
    command = cli.run("enqueue", IO, "-a", "delay_ms=\udcff", exit_code=2)
    assert (command.stdout, command.stderr) == ("", "aegis-tasks: an argument is not valid UTF-8\n")
    assert sync_redis.dbsize() == 0


# --- waiting, and the exit codes ------------------------------------------------------------------


def test_wait_prints_the_result_of_a_job_that_a_burst_elsewhere_runs(cli: Commands) -> None:
    waiting = cli.start("enqueue", IO, "-a", "delay_ms=1", "--wait")
    wait_until(lambda: len(waiting.lines) == 3, what="the enqueue")
    assert waiting.lines[2] == "no worker is running; in another terminal: aegis-tasks burst load_test"

    cli.run("burst", "load_test")

    assert waiting.wait(20) == 0
    result = json.loads("\n".join(waiting.lines[3:]))
    assert result["operations"] == 2
    assert cli.run("result", waiting.lines[0]).json == result
    status = cli.run("status", waiting.lines[0], "--json").json
    assert (status["status"], status["attempt"], status["result_available"]) == ("succeeded", 1, True)


def test_wait_for_a_job_that_fails_ends_with_code_1(cli: Commands, sync_redis: Redis) -> None:
    waiting = cli.start(*FAILING, "--wait", "--json")
    wait_until(lambda: sync_redis.exists(keys.EVENTS), what="the job")

    cli.run("burst", "load_test", exit_code=1)

    assert waiting.wait(20) == 1
    error = waiting.json["error"]
    assert (waiting.json["status"], error["type"]) == ("failed", "IntendedFailure")
    assert error["message"].startswith("failed on purpose")
    assert "traceback" not in error
    failed = cli.run("result", waiting.json["task_id"], exit_code=1)
    assert failed.stdout == f"failed: IntendedFailure: {error['message']}\n"


def test_wait_sees_the_end_of_a_job_whose_result_is_not_kept(cli: Commands, sync_redis: Redis) -> None:
    waiting = cli.start("enqueue", IO, "-a", "delay_ms=1", "--wait", "--json")
    wait_until(lambda: sync_redis.exists(keys.EVENTS), what="the job")

    cli.run("burst", "load_test", WORKER_KEEP_RESULT_SECONDS="0")

    assert waiting.wait(20) == 0
    assert waiting.json["result"]["operations"] == 2
    assert not sync_redis.exists(keys.result(waiting.json["task_id"]))


# One second is also how often the waiting looks: redis-py may swallow a cancellation then.
@pytest.mark.parametrize("timeout", ["0", "0.3", "1"])
def test_wait_ends_with_code_5_when_the_time_is_up(anywhere: InProcess, sync_redis: Redis, timeout: str) -> None:
    ended = anywhere("enqueue", IO, "--id", "order-17", "--wait", "--timeout", timeout, "--json")
    assert ended.exit_code == 5
    assert json.loads(ended.stdout) == {"task_id": "order-17", "status": "queued"}
    assert anywhere("result", "order-17", "--wait", timeout)[:2] == (5, "queued: no result yet\n")
    assert sync_redis.zcard(keys.queue("load_test")) == 1


def test_wait_ends_with_code_4_when_redis_goes_away(cli: Commands, valkey: ValkeyChild) -> None:
    waiting = cli.start("enqueue", IO, "--wait", REDIS_URL=valkey.url)
    wait_until(lambda: len(waiting.lines) == 3, what="the enqueue")

    valkey.kill()

    assert waiting.wait(20) == 4
    assert waiting.stderr.startswith("aegis-tasks: Redis went away: ")
    assert waiting.stderr.count("\n") == 1


def test_result_waits_for_the_end_of_a_job(cli: Commands) -> None:
    cli.run("enqueue", IO, "-a", "delay_ms=1", "--id", "order-17")
    waiting = cli.start("result", "order-17", "--wait", "30", "--json")

    cli.run("burst", "load_test")

    assert waiting.wait(20) == 0
    assert waiting.json["status"] == "succeeded"


@pytest.mark.usefixtures("sync_redis")
@pytest.mark.parametrize(
    "command", [["status", "nothing"], ["result", "nothing"], ["result", "nothing", "--wait", "5"]]
)
def test_id_that_does_not_exist_ends_with_code_3(anywhere: InProcess, command: list[str]) -> None:
    told = "aegis-tasks: no job 'nothing': it never existed, or its result has expired\n"
    assert anywhere(*command) == (3, "", told)


@pytest.mark.usefixtures("sync_redis")
def test_status_is_a_list_of_facts_for_people(anywhere: InProcess) -> None:
    anywhere("enqueue", IO, "--id", "order-17")
    facts = {line[:17].strip(): line[17:] for line in anywhere("status", "order-17").stdout.splitlines()}
    assert facts["task id"] == "order-17"
    assert facts["status"] == "queued"
    assert facts["queue type"] == "load_test"
    assert facts["result available"] == "False"


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        ({"current": 30, "total": 100, "message": "resizing"}, "30 of 100 (30%), resizing"),
        ({"current": 2.50001}, "2.5"),
        ({"current": 123456789, "total": 0}, "123456789 of 0"),
        ({"current": 1, "message": "[red]a\n\x1b[31mb"}, "1, [red]a  [31mb"),
    ],
)
def test_status_tells_how_far_a_running_job_is(
    anywhere: InProcess, sync_redis: Redis, progress: dict[str, Any], told: str
) -> None:
    anywhere("enqueue", IO, "--id", "order-17")
    sync_redis.set(keys.in_progress("order-17"), "w:1", px=60_000)
    sync_redis.set(keys.retry("order-17"), 1, px=60_000)
    sync_redis.set(keys.progress("order-17"), msgspec.json.encode({"token": "w:1", "at_ms": 1, **progress}), px=60_000)
    assert f"progress         {told}\n" in anywhere("status", "order-17").stdout
    assert json.loads(anywhere("status", "order-17", "--json").stdout)["progress"] == progress


def test_wait_shows_what_the_job_reports() -> None:
    progressed = Event(id="1-0", kind="job.progressed", data=msgspec.Raw(b'{"current":1,"total":4,"message":"[x"}'))
    assert what_of(progressed) == "1 of 4 (25%), [x"
    assert what_of(Event(id="2-0", kind="job.started")) == "started"


def test_long_error_is_neither_cut_nor_wrapped(anywhere: InProcess, sync_redis: Redis) -> None:
    message = "word " * 1000 + "end"
    failure = {"type": "ValueError", "message": message, "traceback": "Traceback: secret"}
    result = {
        "t": 1,
        "f": IO,
        "a": [],
        "k": {},
        "et": 1,
        "s": False,
        "r": failure,
        "st": 1,
        "ft": 2,
        "q": "",
        "id": "x",
    }
    sync_redis.set(keys.result("long"), msgspec.json.encode(result), ex=60)
    assert anywhere("result", "long")[:2] == (1, f"failed: ValueError: {message}\n")
    status = anywhere("status", "long")
    assert f"ValueError: {message}\n" in status.stdout
    assert "secret" not in status.stdout
