"""``aegis-tasks worker --processes``: several processes of the same queues, under one command."""

import signal

import psutil
import pytest
from redis import Redis

from bridge import keys
from tests.cli.conftest import InProcess
from tests.cli.processes import Command, Commands, are_gone, wait_until

TASKS = '''
import asyncio
import os
import signal

from workers.worker_settings import queue


async def meet(ctx: dict, place: str) -> int:
    """Waits for another run, which has to be in another process: this one runs one job at a time."""
    await ctx["redis"].sadd(place, os.getpid())
    await ctx["redis"].expire(place, 60)
    while await ctx["redis"].scard(place) < 2:
        await asyncio.sleep(0.01)
    return os.getpid()


async def startup(ctx: dict) -> None:
    """The second of two processes dies."""
    if os.environ.get("ONE_DIES") and await ctx["redis"].set("first", 1, nx=True, ex=60) is None:
        os.kill(os.getpid(), signal.SIGKILL)


async def nothing(ctx: dict) -> None:
    """Does nothing."""


@queue("pairs")
class WorkerSettings:
    functions = [meet, nothing]
    on_startup = startup
    max_jobs = 1
'''


@pytest.fixture
def cli(cli: Commands) -> Commands:
    (cli.folder / "pair_tasks.py").write_text(TASKS)
    cli.environ["AEGIS_QUEUES"] = "pair_tasks.WorkerSettings"
    return cli


def meet(cli: Commands, redis: Redis, place: str) -> None:
    """Two jobs have run at the same time, in two processes."""
    for name in ("one", "two"):
        cli.run("enqueue", "meet", "-a", f"place={place}", "--id", f"{place}-{name}")
    wait_until(lambda: redis.exists(keys.result(f"{place}-one"), keys.result(f"{place}-two")) == 2, what="the meeting")


def processes_of(command: Command) -> list[psutil.Process]:
    return [child for child in command.children() if "worker" in child.cmdline()]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_two_processes_work_together_and_one_that_is_killed_is_started_again(
    cli: Commands, sync_redis: Redis, signum: signal.Signals
) -> None:
    command = cli.start("worker", "pairs", "--processes", "2")
    wait_until(lambda: sync_redis.zcard(keys.WORKERS) == 2, what="two workers")
    first = processes_of(command)
    assert len(first) == 2
    meet(cli, sync_redis, "here")

    first[0].kill()

    wait_until(lambda: sync_redis.zcard(keys.WORKERS) == 3, what="another worker")  # the killed one is still listed
    second = processes_of(command)
    assert len(second) == 2
    assert first[1] in second
    meet(cli, sync_redis, "there")
    assert "worker process 1 ended with code -9; it starts again in 0.5 s\n" in command.stderr
    assert command.stderr.count("starting worker of pairs") == 3, "their output is the command's"

    command.process.send_signal(signum)

    assert command.wait(20) == 0
    assert are_gone([*first, *second])
    assert len(sync_redis.zrange(keys.WORKERS, 0, -1)) <= 1, "the killed one"  # type: ignore[arg-type]


def test_processes_of_a_burst_end_when_nothing_is_left(cli: Commands, sync_redis: Redis) -> None:
    for number in range(2):
        cli.run("enqueue", "nothing", "--id", f"job-{number}")
    ended = cli.run("worker", "--burst", "--processes", "2")
    assert sync_redis.exists(keys.result("job-0"), keys.result("job-1")) == 2
    assert "starts again" not in ended.stderr


def test_burst_ends_with_the_worst_exit_code_of_its_processes(cli: Commands) -> None:
    cli.run("worker", "--burst", "--processes", "2", exit_code=128 + signal.SIGKILL, ONE_DIES="1")


def test_processes_start_again_together_when_a_file_changes(cli: Commands, sync_redis: Redis) -> None:
    command = cli.start("worker", "pairs", "--processes", "2", "--watch", ".")
    wait_until(lambda: sync_redis.zcard(keys.WORKERS) == 2, what="two workers")
    before = processes_of(command)
    assert len(before) == 3
    (cli.folder / "pair_tasks.py").write_text(TASKS + "\n")
    wait_until(lambda: are_gone(before), what="the end of the first ones")
    wait_until(lambda: sync_redis.zcard(keys.WORKERS) == 2, what="two more")
    children = command.children()
    command.interrupt()
    command.wait(20)
    wait_until(lambda: are_gone(children), what="the end of all")


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_number_of_processes_that_makes_no_sense_is_refused(in_process: InProcess, number: str) -> None:
    ended = in_process("worker", f"--processes={number}")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "--processes" in ended.stderr


@pytest.mark.parametrize(("queue", "told"), [("nothing", "there is no queue 'nothing'"), ("media", "no tasks defined")])
def test_what_is_wrong_with_a_queue_is_told_once(in_process: InProcess, queue: str, told: str) -> None:
    ended = in_process("worker", queue, "--processes", "2")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert told in ended.stderr
