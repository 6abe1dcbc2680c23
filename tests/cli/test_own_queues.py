"""A user's own queues, named by AEGIS_QUEUES and found in the current folder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from bridge import keys
from tests.cli.processes import Commands

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


def write(cli: Commands, code: str, name: str = "mail_tasks") -> None:
    (cli.folder / f"{name}.py").write_text(code)
    cli.environ["AEGIS_QUEUES"] = f"{name}.WorkerSettings"


@pytest.mark.parametrize("code", [DECORATED, PLAIN], ids=["decorated", "plain arq"])
async def test_users_task_is_listed_enqueued_and_run(cli: Commands, code: str) -> None:
    write(cli, code)

    (task,) = cli.run("tasks", "--json").json
    cli.run("enqueue", "send_welcome_email", "-a", "user_id=7", "--id", "welcome")
    burst = cli.run("burst", "mail")
    result = cli.run("result", "welcome")
    events = cli.run("events", "--id", "welcome", "--json").json

    assert (task["name"], task["queue"], task["summary"]) == ("send_welcome_email", "mail", "Greets a new user.")
    assert task["arguments"]["properties"]["user_id"] == {"type": "integer"}
    assert burst.stdout == "mail: 1 succeeded\n"
    assert result.json == "8 in en"
    assert [event["kind"] for event in events] == ["job.enqueued", "job.started", "job.succeeded"]


async def test_arguments_of_a_users_task_are_checked(cli: Commands, sync_redis: Redis) -> None:
    write(cli, PLAIN)
    command = cli.run("enqueue", "send_welcome_email", "-a", "user_id=x", exit_code=2)
    assert "expected `int`, got `str` - at $.kwargs.user_id" in command.stderr
    assert sync_redis.dbsize() == 0


async def test_queue_name_may_be_left_to_arq(cli: Commands) -> None:
    write(cli, PLAIN.replace('    queue_name = "arq:queue:mail"\n', ""))
    cli.run("enqueue", "send_welcome_email", "-a", "user_id=7", "--id", "welcome")
    (queue,) = cli.run("queues", "--json").json
    assert queue["queued"] == 1
    cli.run("burst", queue["name"])
    assert cli.run("result", "welcome").json == "8 in en"


async def test_stock_arq_command_runs_a_decorated_class(cli: Commands, sync_redis: Redis) -> None:
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

    assert json.loads(sync_redis.get(keys.result("welcome")) or "")["r"] == "8 in en"  # type: ignore[arg-type]


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
async def test_settings_class_that_is_wrong_is_told_in_one_line(cli: Commands, code: str, told: str) -> None:
    write(cli, code)
    command = cli.run("tasks", exit_code=2)
    assert command.stdout == ""
    assert command.stderr.startswith("aegis-tasks: ")
    assert command.stderr.count("\n") == 1
    assert told in command.stderr
    assert "mail_tasks" in command.stderr or "task f" in command.stderr
