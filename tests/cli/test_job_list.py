"""``aegis-tasks jobs``: the jobs of a queue by state, page by page."""

import json

import pytest
from redis import Redis

from tests.cli.conftest import InProcess

IO = "io_simulation_task"


@pytest.fixture
def listing(anywhere: InProcess, sync_redis: Redis) -> InProcess:
    """A queue that holds a, b and c, and d for later."""
    assert sync_redis.dbsize() == 0
    for name in "abc":
        anywhere("enqueue", IO, "--id", name)
    anywhere("enqueue", IO, "--id", "d", "--delay", "600")
    return anywhere


def test_jobs_are_a_table(listing: InProcess) -> None:
    header, *rows = listing("jobs", "load_test").stdout.splitlines()
    assert header.split() == ["id", "state", "task", "attempt", "enqueued", "due", "or", "ended"]
    assert [row.split()[:4] for row in rows] == [
        ["a", "queued", IO, "0"],
        ["b", "queued", IO, "0"],
        ["c", "queued", IO, "0"],
        ["d", "deferred", IO, "0"],
    ]
    assert " ago " in rows[0]
    assert " in 9m " in rows[3]


def test_state_chooses(listing: InProcess) -> None:
    found = json.loads(listing("jobs", "load_test", "--state", "deferred", "--json").stdout)
    assert [job["task_id"] for job in found["jobs"]] == ["d"]
    assert listing("jobs", "load_test", "--state", "failed")[:2] == (0, "no jobs\n")


def test_list_that_is_cut_tells_how_to_go_on(listing: InProcess) -> None:
    ended = listing("jobs", "load_test", "--limit", "3")
    assert len(ended.stdout.splitlines()) == 4
    cursor = ended.stderr.split()[4].rstrip(",")
    assert ended.stderr == f"there are more: --cursor {cursor}, or --all\n"
    rest = json.loads(listing("jobs", "load_test", "--cursor", cursor, "--json").stdout)
    assert ([job["task_id"] for job in rest["jobs"]], rest["next_cursor"]) == (["d"], None)


def test_all_are_listed_whatever_the_size_of_a_page(listing: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.job_list.PAGE", 1)
    found = json.loads(listing("jobs", "load_test", "--all", "--json").stdout)
    assert [job["task_id"] for job in found["jobs"]] == ["a", "b", "c", "d"]


@pytest.mark.usefixtures("sync_redis")
@pytest.mark.parametrize("arguments", [["nothing"], ["load_test", "--state", "lost"], ["load_test", "--cursor", "x"]])
def test_wrong_choice_is_wrong_usage(anywhere: InProcess, arguments: list[str]) -> None:
    ended = anywhere("jobs", *arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
