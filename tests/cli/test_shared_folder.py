"""Without REDIS_URL and without `serve`: commands share the Valkey of their data folder, and leave nothing running."""

import json

import psutil

from tests.cli.processes import Commands, is_unused, wait_until

IO = "io_simulation_task"


def is_left_alone(cli: Commands) -> bool:
    """Whether no process uses the data folder any more."""
    folder = str(cli.data_dir)
    named = [process for process in psutil.process_iter(["cmdline"]) if folder in (process.info["cmdline"] or ())]
    return is_unused(cli.data_dir) and not named


def test_job_goes_through_three_commands_without_serve(embedded_cli: Commands) -> None:
    job_id = embedded_cli.run("enqueue", "cpu_intensive_task", "--queue", "load_test").lines[0]
    wait_until(lambda: is_left_alone(embedded_cli), what="the server to end after its last user")

    burst = embedded_cli.run("burst", "load_test")
    result = embedded_cli.run("result", job_id)

    assert burst.stdout == "load_test: 1 succeeded\n"
    assert result.json["iterations"] == 200_000
    wait_until(lambda: is_left_alone(embedded_cli), what="the server to end after its last user")
    assert embedded_cli.data_dir.stat().st_mode & 0o777 == 0o700


def test_commands_at_the_same_time_share_one_server(embedded_cli: Commands) -> None:
    waiting = embedded_cli.start("enqueue", IO, "-a", "delay_ms=1", "--wait")
    following = embedded_cli.start("events", "--follow", "--json", "--after", "0")
    wait_until(lambda: len(following.lines) == 1, what="the event of the job")

    embedded_cli.run("burst", "load_test")

    assert waiting.wait(20) == 0
    wait_until(lambda: len(following.lines) == 5, what="the events of the job")
    assert [json.loads(line)["kind"] for line in following.lines] == [
        "job.enqueued",
        "worker.started",
        "job.started",
        "job.succeeded",
        "worker.stopped",
    ]
    assert not is_unused(embedded_cli.data_dir)
    following.interrupt()
    assert following.wait(5) == 0
    wait_until(lambda: is_left_alone(embedded_cli), what="the server to end after its last user")


def test_killed_command_leaves_no_server_behind(embedded_cli: Commands) -> None:
    following = embedded_cli.start("events", "--follow")
    wait_until(lambda: (embedded_cli.data_dir / "valkey.url").exists(), what="the server")

    following.process.kill()
    following.wait()

    wait_until(lambda: is_left_alone(embedded_cli), what="the server to end after its last user")


def test_folder_with_a_long_name_works(embedded_cli: Commands) -> None:
    """A unix socket in it could not: the path of one is limited to about a hundred characters."""
    embedded_cli.data_dir = embedded_cli.folder / ("x" * 100) / ("y z" * 40) / "data"
    embedded_cli.environ["AEGIS_DATA_DIR"] = str(embedded_cli.data_dir)
    assert embedded_cli.run("enqueue", IO, "--id", "far-away").lines[0] == "far-away"
    assert embedded_cli.data_dir.exists()


def test_folder_that_cannot_be_used_is_told_in_one_line(embedded_cli: Commands) -> None:
    file = embedded_cli.folder / "file"
    file.touch()
    command = embedded_cli.run("enqueue", IO, exit_code=2, AEGIS_DATA_DIR=str(file))
    assert command.stdout == ""
    assert command.stderr.startswith(f"aegis-tasks: AEGIS_DATA_DIR: {file} cannot be used: ")
    assert command.stderr.count("\n") == 1
