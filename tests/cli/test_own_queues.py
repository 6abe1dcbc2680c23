"""A user's own queues, named by AEGIS_QUEUES and found in the current folder."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess
from tests.cli.processes import Commands, are_gone, wait_until

DECORATED = '''
from workers.worker_settings import queue


async def send_welcome_email(ctx: dict, user_id: int, *, language: str = "en") -> str:
    """Greets a new user."""
    return f"{user_id + 1} in {language}"


@queue("mail")
class WorkerSettings:
    functions = [send_welcome_email]
    max_jobs = 15
'''

PLAIN = '''
async def send_welcome_email(ctx, user_id: int, *, language: str = "en") -> str:
    """Greets a new user."""
    return f"{user_id + 1} in {language}"


async def startup(ctx):
    ctx["greeting"] = "hello"


class WorkerSettings:
    """As arq's documentation has it."""

    functions = [send_welcome_email]
    on_startup = startup
    queue_name = "arq:queue:mail"
'''


def write(cli: Commands, code: str) -> None:
    (cli.folder / "mail_tasks.py").write_text(code)


@pytest.fixture
def cli(cli: Commands, in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands, in processes and inside this one (which is set up first), that know the class in `mail_tasks.py`."""
    cli.environ["AEGIS_QUEUES"] = "mail_tasks.WorkerSettings"
    monkeypatch.setenv("AEGIS_QUEUES", "mail_tasks.WorkerSettings")
    return cli


@pytest.mark.parametrize("code", [DECORATED, PLAIN], ids=["decorated", "plain arq"])
def test_users_task_is_listed_enqueued_and_run(cli: Commands, in_process: InProcess, code: str) -> None:
    write(cli, code)

    (task,) = cli.run("tasks", "--json").json
    in_process("enqueue", "send_welcome_email", "-a", "user_id=7", "--id", "welcome")
    burst = cli.run("burst", "mail")
    result = in_process("result", "welcome")
    events = json.loads(in_process("events", "--id", "welcome", "--json").stdout)

    assert (task["name"], task["queue"], task["summary"]) == ("send_welcome_email", "mail", "Greets a new user.")
    assert task["arguments"]["properties"]["user_id"] == {"type": "integer"}
    assert burst.stdout == "mail: 1 succeeded\n"
    assert json.loads(result.stdout) == "8 in en"
    assert [event["kind"] for event in events] == ["job.enqueued", "job.started", "job.succeeded"]


def test_arguments_of_a_users_task_are_checked(cli: Commands, in_process: InProcess, sync_redis: Redis) -> None:
    write(cli, PLAIN)
    ended = in_process("enqueue", "send_welcome_email", "-a", "user_id=x")
    assert ended.exit_code == 2
    assert "expected `int`, got `str` - at $.kwargs.user_id" in ended.stderr
    assert sync_redis.dbsize() == 0


def test_queue_name_may_be_left_to_arq(cli: Commands, in_process: InProcess) -> None:
    write(cli, PLAIN.replace('    queue_name = "arq:queue:mail"\n', ""))
    in_process("enqueue", "send_welcome_email", "-a", "user_id=7", "--id", "welcome")
    (queue,) = json.loads(in_process("queues", "--json").stdout)
    assert (queue["name"], queue["queued"]) == ("default", 1)
    cli.run("burst", queue["name"])
    assert json.loads(in_process("result", "welcome").stdout) == "8 in en"


def test_stock_arq_command_runs_a_decorated_class(cli: Commands, sync_redis: Redis) -> None:
    write(cli, DECORATED)
    cli.run("enqueue", "send_welcome_email", "-a", "user_id=7", "--id", "welcome")

    subprocess.run(
        [Path(sys.executable).with_name("arq"), "mail_tasks.WorkerSettings", "--burst"],
        cwd=cli.folder,
        env=cli.environ,
        capture_output=True,
        timeout=30,
        check=True,
    )

    assert result_of(sync_redis, "welcome") == "8 in en"


def test_worker_that_watches_a_folder_starts_again_with_the_changed_task(cli: Commands, sync_redis: Redis) -> None:
    write(cli, DECORATED)
    worker = cli.start("worker", "mail", "--watch", ".")
    cli.run("enqueue", "send_welcome_email", "-a", "user_id=7", "--id", "old")
    wait_until(lambda: sync_redis.exists(keys.result("old")), what="the first job")

    write(cli, DECORATED.replace("user_id + 1", "user_id + 1000"))

    wait_until(lambda: len(started_workers(sync_redis)) >= 2, what="the second worker")
    cli.run("enqueue", "send_welcome_email", "-a", "user_id=7", "--id", "new")
    wait_until(lambda: sync_redis.exists(keys.result("new")), what="the second job")
    assert result_of(sync_redis, "old") == "8 in en"
    assert result_of(sync_redis, "new") == "1007 in en"
    # Other files in the folder, such as this test's and those of an embedded Valkey, start nothing again.
    assert len(started_workers(sync_redis)) == 2
    children = worker.children()
    assert children
    worker.process.terminate()
    assert worker.wait(10) == 0
    wait_until(lambda: are_gone(children), what="the worker to end")


def started_workers(redis: Redis) -> list[dict[bytes, bytes]]:
    entries: list[tuple[bytes, dict[bytes, bytes]]] = redis.xrange(keys.EVENTS)  # type: ignore[assignment]
    return [fields for _, fields in entries if fields[b"kind"] == b"worker.started"]


def result_of(redis: Redis, job_id: str) -> Any:
    return json.loads(redis.get(keys.result(job_id)) or "{}")["r"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import no_such_module_anywhere", "mail_tasks.WorkerSettings cannot be imported"),
        ("async def f(ctx): ...", "mail_tasks.WorkerSettings cannot be imported"),
        ("class WorkerSettings:\n    functions = ['no.such.function']", "functions"),
        ("async def f(): ...\nclass WorkerSettings:\n    functions = [f]", "its first parameter must be arq's ctx"),
        ("class WorkerSettings:\n    functions = [3]", "functions"),
        ("def f(ctx): ...\nclass WorkerSettings:\n    functions = [f]", "functions"),
        ("class WorkerSettings:\n    functions = 3", "functions"),
        (
            "import threading\nasync def f(ctx, e: threading.Event): ...\nclass WorkerSettings:\n    functions = [f]",
            "task f: a parameter's type cannot be read from JSON",
        ),
        ("this is no Python", "mail_tasks.WorkerSettings cannot be imported"),
        ("1 / 0", "mail_tasks.WorkerSettings cannot be imported"),
    ],
)
def test_settings_class_that_is_wrong_is_told_in_one_line(
    cli: Commands, in_process: InProcess, code: str, told: str
) -> None:
    write(cli, code)
    ended = in_process("tasks")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("aegis-tasks: ")
    assert ended.stderr.count("\n") == 1
    assert told in ended.stderr
    assert "mail_tasks" in ended.stderr or "task f" in ended.stderr
