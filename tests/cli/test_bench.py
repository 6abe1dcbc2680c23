"""``aegis-tasks bench``: on a Valkey of its own, and on the one of the settings."""

import tempfile
from pathlib import Path

from redis import Redis

from bridge import keys
from tests.cli.processes import Commands


def test_bench_measures_on_a_server_that_is_gone_afterwards(cli: Commands, sync_redis: Redis) -> None:
    told = cli.run("bench", "--jobs", "1000", "--json", REDIS_URL="redis://127.0.0.1:1/0").json
    assert told["jobs"] == 1700
    assert min(value for name, value in told.items() if name not in {"redis"}) > 0
    assert "aegis-bench-" in told["redis"]
    assert not (Path(tempfile.gettempdir()) / Path(told["redis"]).name).exists()
    assert sync_redis.dbsize() == 0


def test_bench_here_leaves_no_job_behind(cli: Commands, sync_redis: Redis) -> None:
    command = cli.run("bench", "--jobs", "1000", "--here")
    assert [line.split("  ")[0] for line in command.lines] == [
        "enqueue one by one",
        "enqueue in batches",
        "run by one worker",
        "start, worker idle",
    ]
    assert list(sync_redis.scan_iter(f"{keys.queue('bench')}*")) == []
    assert sync_redis.zcard(keys.queue("load_test")) == 0
