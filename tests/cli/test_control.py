"""``abort``, ``pause`` and ``resume``."""

import json

from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess

IO = "io_simulation_task"


def test_abort_ends_a_waiting_job_and_says_so(anywhere: InProcess, sync_redis: Redis) -> None:
    assert anywhere("enqueue", IO, "--id", "a").exit_code == 0
    aborted = anywhere("abort", "a", "--reason", "a mistake")
    assert (aborted.exit_code, aborted.stdout.strip()) == (0, "aborted")
    assert anywhere("result", "a").exit_code == 1
    again = anywhere("abort", "a", "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout) == {"task_id": "a", "outcome": "ended"}


def test_abort_of_an_unknown_job_ends_with_3(anywhere: InProcess) -> None:
    ended = anywhere("abort", "nobody")
    assert ended.exit_code == 3
    assert "no job 'nobody'" in ended.stderr


def test_paused_queue_is_shown_as_paused_until_it_is_resumed(anywhere: InProcess, sync_redis: Redis) -> None:
    assert anywhere("pause", "load_test").stdout.strip() == "load_test: paused"
    assert anywhere("pause", "load_test").stdout.strip() == "load_test: paused already"
    states = {queue["name"]: queue["message"] for queue in json.loads(anywhere("queues", "--json").stdout)}
    assert states["load_test"] == "paused"
    answer = json.loads(anywhere("resume", "load_test", "--json").stdout)
    assert answer == {"queue": "load_test", "paused": False, "changed": True}
    assert not sync_redis.exists(keys.paused("load_test"))


def test_unknown_queue_cannot_be_paused(anywhere: InProcess) -> None:
    ended = anywhere("pause", "nothing")
    assert ended.exit_code == 2
    assert "there is no queue 'nothing'" in ended.stderr
