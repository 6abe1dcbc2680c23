"""``abort``, ``pause`` and ``resume``."""

import json

from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess

IO = "io_simulation_task"


def test_abort_ends_a_waiting_job_and_says_so(in_process: InProcess, sync_redis: Redis) -> None:
    assert in_process("enqueue", IO, "--id", "a").exit_code == 0
    aborted = in_process("abort", "a", "--reason", "a mistake")
    assert (aborted.exit_code, aborted.stdout.strip()) == (0, "aborted")
    assert in_process("result", "a").exit_code == 1
    again = in_process("abort", "a", "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout) == {"task_id": "a", "outcome": "ended"}


def test_abort_of_an_unknown_job_ends_with_3(in_process: InProcess) -> None:
    ended = in_process("abort", "nobody")
    assert ended.exit_code == 3
    assert "no job 'nobody'" in ended.stderr


def test_paused_queue_is_shown_as_paused_until_it_is_resumed(in_process: InProcess, sync_redis: Redis) -> None:
    assert in_process("pause", "load_test").stdout.strip() == "load_test: paused"
    assert in_process("pause", "load_test").stdout.strip() == "load_test: paused already"
    states = {queue["name"]: queue["message"] for queue in json.loads(in_process("queues", "--json").stdout)}
    assert states["load_test"] == "paused"
    answer = json.loads(in_process("resume", "load_test", "--json").stdout)
    assert answer == {"queue": "load_test", "paused": False, "changed": True}
    assert not sync_redis.exists(keys.paused("load_test"))


def test_unknown_queue_cannot_be_paused(in_process: InProcess) -> None:
    ended = in_process("pause", "nothing")
    assert ended.exit_code == 2
    assert "there is no queue 'nothing'" in ended.stderr
