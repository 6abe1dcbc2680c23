"""``aegis-tasks burst`` and ``aegis-tasks worker --burst``: run what is there, then end."""

from typing import Any

import pytest
from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands, wait_until

IO = "io_simulation_task"


def status(redis: Redis, job_id: str) -> bool:
    return bool(redis.exists(keys.result(job_id)))


def test_burst_empties_the_queue_and_counts(cli: Commands, sync_redis: Redis, in_process_ids: list[str]) -> None:
    command = cli.run("burst", "load_test", exit_code=1)

    assert command.stdout == "load_test: 3 succeeded, 1 failed\n"
    assert "4/4" in command.stderr  # the last state of the progress bar
    assert all(status(sync_redis, job_id) for job_id in in_process_ids)
    assert sync_redis.zcard(keys.queue("load_test")) == 0


@pytest.fixture
def in_process_ids(sync_redis: Redis, in_process: InProcess) -> list[str]:
    """Three jobs that will succeed and one that will fail."""
    assert sync_redis.dbsize() == 0
    for name in ("a", "b"):
        in_process("enqueue", IO, "-a", "delay_ms=1", "--id", name)
    in_process("enqueue", IO, "-a", "delay_ms=1", "--id", "late", "--delay", "0.5")
    in_process("enqueue", "failure_testing_task", "-a", "failure_rate=1", "--id", "d")
    return ["a", "b", "late", "d"]


def test_burst_as_json_is_one_document(cli: Commands, in_process_ids: list[str]) -> None:
    command = cli.run("burst", "load_test", "--json", exit_code=1)
    assert len(in_process_ids) == 4
    assert command.json == {"succeeded": 3, "failed": 1, "retried": 0}


def test_burst_of_an_empty_queue_is_done_at_once(cli: Commands) -> None:
    command = cli.run("burst", "system")
    assert command.stdout == "system: 0 succeeded\n"


@pytest.mark.usefixtures("sync_redis")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["burst", "nothing"], "there is no queue 'nothing'"),
        (["burst", "media"], "queue 'media' has no tasks defined"),
        (["worker", "nothing"], "there is no queue 'nothing'"),
        (["worker", "media"], "queue 'media' has no tasks defined"),
    ],
)
def test_queue_that_cannot_be_run_is_told_in_one_line(in_process: InProcess, arguments: list[str], told: str) -> None:
    ended = in_process(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("aegis-tasks: ")
    assert ended.stderr.count("\n") == 1
    assert told in ended.stderr


def test_worker_runs_every_queue_that_has_tasks_until_it_is_interrupted(cli: Commands, sync_redis: Redis) -> None:
    worker = cli.start("worker")
    for task, job_id in ((IO, "a"), ("cleanup_temp_files", "b")):
        cli.run("enqueue", task, "--id", job_id)

    wait_until(lambda: status(sync_redis, "a") and status(sync_redis, "b"), what="both jobs")
    health = cli.run("health", "--json").json

    assert (health["status"], health["offline"]) == ("healthy", [])
    worker.interrupt()
    assert worker.wait(5) == 0
    assert worker.stdout == ""
    assert not sync_redis.exists(keys.health_check(keys.queue("load_test")))


def test_job_that_an_interrupt_cuts_short_goes_back_to_its_queue(cli: Commands, sync_redis: Redis) -> None:
    worker = cli.start("worker", "load_test")
    cli.run("enqueue", IO, "-a", "delay_ms=60000", "--id", "long")
    wait_until(lambda: sync_redis.exists(keys.in_progress("long")), what="the job to start")

    worker.interrupt()

    assert worker.wait(5) == 0
    status: dict[str, Any] = cli.run("status", "long", "--json").json
    assert status["status"] == "queued"
    events = [event["kind"] for event in cli.run("events", "--id", "long", "--json").json]
    assert events == ["job.enqueued", "job.started", "job.retrying"]
