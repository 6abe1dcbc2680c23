"""`aegis-tasks serve`: how it starts, ends, and starts again."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.cli.processes import Commands, are_gone, is_free, is_unused, kill, wait_until
from tests.end_to_end.serving import Serving


def test_one_interrupt_stops_everything_and_the_next_serve_finds_the_data(embedded_cli: Commands) -> None:
    first = Serving(embedded_cli)
    task_id = first.enqueue()
    result = first.result(task_id)
    deferred_id = first.enqueue(delay_seconds=3600)
    running_id = first.enqueue(kwargs={"delay_ms": 60_000, "operations": 1})
    wait_until(
        lambda: first.client.get(f"/api/v1/tasks/status/{running_id}").json()["status"] == "in_progress",
        what="the long job to start",
    )
    processes = first.process.children()
    assert len(processes) == 5

    started_s = time.monotonic()
    first.process.interrupt()
    assert first.process.wait(5) == 0
    assert time.monotonic() - started_s < 5

    assert first.process.lines[-1] == "stopped"
    assert first.process.stderr == ""
    assert are_gone(processes)
    assert is_unused(embedded_cli.data_dir)
    assert is_free(first.port)
    assert not (embedded_cli.data_dir / "valkey.url").exists()
    first.close()

    second = Serving(embedded_cli)
    assert second.result(task_id) == result
    assert second.client.get(f"/api/v1/tasks/status/{deferred_id}").json()["status"] == "deferred"
    # The job that the interrupt cut short runs again: it was given back to its queue.
    wait_until(
        lambda: second.client.get(f"/api/v1/tasks/status/{running_id}").json()["status"] == "in_progress",
        what="the long job to start again",
    )
    second.close()
    second.process.process.send_signal(signal.SIGTERM)
    assert second.process.wait(5) == 0
    assert is_unused(embedded_cli.data_dir)


def test_interrupt_while_it_starts_stops_everything_too(embedded_cli: Commands) -> None:
    command = embedded_cli.start("serve")
    wait_until(lambda: (embedded_cli.data_dir / "logs" / "gateway.log").exists(), what="the gateway's start")
    processes = command.children()

    command.interrupt()

    assert command.wait(5) == 0
    assert command.lines == ["stopped"]
    assert are_gone(processes)
    assert is_unused(embedded_cli.data_dir)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not told that its parent has died")
def test_killed_serve_leaves_no_process(embedded_cli: Commands) -> None:
    serving = Serving(embedded_cli)
    processes = serving.process.children()
    assert len(processes) == 5
    serving.close()

    serving.process.process.kill()

    serving.process.process.wait()
    try:
        wait_until(lambda: are_gone(processes), 10, what="its processes to end")
        assert is_unused(embedded_cli.data_dir)
    finally:
        kill(processes)


def test_changed_task_is_picked_up(embedded_cli: Commands) -> None:
    code = """
from workers.worker_settings import queue


async def greet(ctx: dict, name: str) -> str:
    return f"hello {name}"


@queue("greetings")
class WorkerSettings:
    functions = [greet]
"""
    module = embedded_cli.folder / "greetings.py"
    module.write_text(code)
    serving = Serving(embedded_cli, "--reload", AEGIS_QUEUES="greetings")
    greeting = {"task_name": "greet", "queue_type": "greetings", "kwargs": {"name": "Ada"}}
    assert serving.result(serving.enqueue(**greeting)) == "hello Ada"

    module.write_text(code.replace("hello", "good morning").replace("def greet(ctx: dict,", "def greet(ctx: dict, *,"))
    os.utime(module, (time.time() + 2, time.time() + 2))  # Python reads a module anew when its seconds differ

    def greets_anew() -> bool:
        return bool(serving.result(serving.enqueue(**greeting)) == "good morning Ada")

    wait_until(greets_anew, what="the changed task")
    assert "greetings.py changed; starting again" in serving.process.lines
    assert "ended with code" not in serving.process.stderr
    serving.close()
    serving.process.interrupt()
    assert serving.process.wait(5) == 0


def test_redis_inside_the_process_serves_too(embedded_cli: Commands) -> None:
    serving = Serving(embedded_cli, REDIS_URL="memory://")
    assert serving.process.children() == []
    assert serving.result(serving.enqueue())["operations"] == 2
    health = serving.client.get("/health/detailed").json()
    assert (health["status"], health["redis"]["address"]) == ("healthy", "the memory of this process")
    # No other process sees these jobs, so the next command to type goes over HTTP.
    (command,) = [line.strip() for line in serving.process.lines if "io_simulation_task" in line]
    assert command.startswith(f"curl -X POST http://127.0.0.1:{serving.port}/api/v1/tasks/enqueue ")
    serving.close()

    serving.process.interrupt()

    assert serving.process.wait(5) == 0
    assert not embedded_cli.data_dir.exists()


def test_redis_that_cannot_be_reached_is_told_in_one_line(embedded_cli: Commands) -> None:
    command = embedded_cli.run("serve", exit_code=4, REDIS_URL="redis://:s3cret@127.0.0.1:1/0")
    assert command.stdout == ""
    assert command.stderr.startswith("aegis-tasks: Redis at redis://127.0.0.1:1/0 cannot be reached: ")
    assert command.stderr.count("\n") == 1
    assert "s3cret" not in command.stderr


def test_data_folder_that_cannot_be_used_is_told_in_one_line(embedded_cli: Commands, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    command = embedded_cli.run("serve", exit_code=2, AEGIS_DATA_DIR=str(file))
    assert command.stdout == ""
    assert command.stderr.startswith(f"aegis-tasks: AEGIS_DATA_DIR: {file} cannot be used: ")
    assert command.stderr.count("\n") == 1
