"""``aegis-tasks workers``, and several processes of one worker command."""

import json

from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands, wait_until


def test_workers_are_shown_until_they_are_gone(cli: Commands, anywhere: InProcess, sync_redis: Redis) -> None:
    worker = cli.start("worker", "system", "load_test")
    wait_until(lambda: sync_redis.zcard(keys.WORKERS) == 2, what="the workers")

    header, *rows = [line.split() for line in anywhere("workers").stdout.splitlines()]
    found = json.loads(anywhere("workers", "--json").stdout)

    assert header == ["worker", "queue", "state", "runner", "running", "done", "failed", "retried", "heartbeat"]
    assert [row[1] for row in rows] == [worker["queue"] for worker in found] == ["load_test", "system"]
    assert [row[0] for row in rows] == [worker["id"] for worker in found]
    assert {worker["pid"] for worker in found} == {worker.process.pid}
    assert (found[0]["state"], found[0]["max_jobs"], found[0]["runner"]) == ("running", 50, "BatchWorker")

    worker.interrupt()
    assert worker.wait() == 0
    assert anywhere("workers", "--json").stdout == "[]\n"
