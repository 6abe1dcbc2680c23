"""`aegis-tasks serve`: one that runs, and what it withstands."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest

from bridge.gateway.server import check_address
from tests.cli.processes import Commands, wait_until
from tests.end_to_end.serving import SEED, Serving
from tests.gateway.problem import ENQUEUE, problem_in

PARTS = {"gateway", "worker system", "worker load_test", "keeper", "valkey"}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    commands = Commands(tmp_path_factory.mktemp("serve"))
    try:
        serving = Serving(commands)
        yield serving
        serving.close()
        serving.process.interrupt()
        assert serving.process.wait(5) == 0
    finally:
        commands.close()


def test_serve_prints_the_addresses_and_the_next_command(serving: Serving) -> None:
    lines = [line.strip() for line in serving.process.lines]
    base = f"http://127.0.0.1:{serving.port}"
    assert lines[0] == "aegis-tasks is ready"
    facts = dict(line.split(maxsplit=1) for line in lines[1 : lines.index("")])
    assert facts == {
        "gateway": f"{base}/api/v1/tasks/",
        "docs": f"{base}/",
        "health": f"{base}/health/detailed",
        "redis": f"the embedded Valkey of {serving.data_dir}",
        "workers": "system (2 tasks), load_test (6 tasks)",
        "idle": "media (no tasks defined)",
        "logs": str(serving.data_dir / "logs"),
    }
    assert "aegis-tasks enqueue io_simulation_task --queue load_test --wait" in lines
    assert lines[-1] == "Ctrl-C stops everything."
    for name in ("gateway", "docs", "health"):
        assert serving.client.get(facts[name], follow_redirects=True).status_code == 200
    assert serving.processes().keys() == PARTS
    assert all((serving.data_dir / "logs" / f"{name}.log").exists() for name in ("gateway", "worker-system"))


def test_seeds_requests_work(serving: Serving) -> None:
    task_id = serving.client.post(ENQUEUE, json=SEED).json()["task_id"]

    result = serving.result(task_id)

    assert (result["operations"], result["intact"]) == (2, True)
    assert "io_simulation_task" in serving.client.get("/api/v1/tasks/").json()["available_tasks"]
    status = serving.client.get(f"/api/v1/tasks/status/{task_id}").json()
    assert (status["status"], status["attempt"], status["queue_type"]) == ("succeeded", 1, "load_test")
    assert status["enqueue_time"] <= status["start_time"] <= status["finish_time"]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_seeds_curl_lines_work_letter_for_letter(serving: Serving) -> None:
    def shell(line: str) -> dict[str, object]:
        line = line.replace("localhost:8000", f"localhost:{serving.port}")  # the one thing that tests cannot share
        done = subprocess.run(["sh", "-c", f"{line} -sS"], capture_output=True, check=True, timeout=30)
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    enqueued = shell(
        'curl -X POST http://localhost:8000/api/v1/tasks/enqueue -H "Content-Type: application/json"'
        """ -d '{"task_name": "io_simulation_task", "queue_type": "load_test"}'"""
    )
    task_id = enqueued["task_id"]
    result = f"curl http://localhost:8000/api/v1/tasks/result/{task_id}"
    wait_until(lambda: shell(result)["status"] == "succeeded", what="the job")
    assert shell(result)["result"]
    assert shell("curl http://localhost:8000/api/v1/tasks/")["total_count"] == 8
    assert shell(f"curl http://localhost:8000/api/v1/tasks/status/{task_id}")["status"] == "succeeded"


def test_every_task_of_the_project_runs_without_arguments(serving: Serving) -> None:
    tasks = serving.client.get("/api/v1/tasks/").json()["tasks"]
    ids = {}
    for task in tasks:
        if task["name"] not in {"load_test_orchestrator", "failure_testing_task"}:  # the one enqueues 50 more
            ids[task["name"]] = serving.enqueue(task_name=task["name"], queue_type=task["queue"])
    ids["failure_testing_task"] = serving.enqueue(task_name="failure_testing_task", kwargs={"failure_rate": 0})
    assert len(ids) == len(tasks) - 1
    for task_id in ids.values():
        serving.result(task_id)


def test_commands_in_another_terminal_talk_to_it(serving: Serving) -> None:
    waited = serving.cli.run("enqueue", "io_simulation_task", "--queue", "load_test", "-a", "delay_ms=1", "--wait")
    assert json.loads("\n".join(waited.lines[2:]))["operations"] == 2
    assert serving.client.get(f"/api/v1/tasks/status/{waited.lines[0]}").json()["status"] == "succeeded"
    assert serving.cli.run("health").stdout.startswith("healthy: Valkey ")
    assert serving.client.get("/health/detailed").json()["status"] == "healthy"


def test_bad_requests_are_refused_while_jobs_run(serving: Serving) -> None:
    before = serving.client.get("/health/detailed").json()["queues"]
    assert [queue["queued"] for queue in before] == [0, 0, 0]
    for request, code in (
        ({"task_name": "nothing"}, "invalid_task_name"),
        ({**SEED, "queue_type": "nothing"}, "invalid_queue_type"),
        ({**SEED, "queue_type": "system"}, "invalid_task_name"),
        ({**SEED, "kwargs": {"delay": 1}}, "invalid_arguments"),
        ({**SEED, "kwargs": {"delay_ms": "x"}}, "invalid_arguments"),
    ):
        problem_in(serving.client.post(ENQUEUE, json=request), 400, code)
    after = serving.client.get("/health/detailed").json()["queues"]
    assert [queue["queued"] + queue["in_progress"] + queue["deferred"] for queue in after] == [0, 0, 0]


def test_second_serve_on_the_folder_is_refused_in_one_line(serving: Serving) -> None:
    command = serving.cli.run("serve", exit_code=2)
    assert command.stdout == ""
    assert command.stderr.count("\n") == 1
    assert f"another `aegis-tasks serve` runs on {serving.data_dir}" in command.stderr
    serving.result(serving.enqueue())  # and the first is none the worse


def test_port_that_is_taken_is_told_in_one_line(serving: Serving, embedded_cli: Commands) -> None:
    command = embedded_cli.run("serve", "--port", str(serving.port), exit_code=2)
    assert command.stdout == ""
    assert command.stderr == (
        f"aegis-tasks: cannot listen on 127.0.0.1:{serving.port}: Address already in use; "
        "choose another port with --port or AEGIS_PORT\n"
    )


# --- what it withstands: these come last, since they stop a part of it for a while -----------------


def test_killed_worker_is_started_again(serving: Serving) -> None:
    killed = serving.processes()["worker load_test"]

    killed.kill()

    wait_until(lambda: serving.processes()["worker load_test"] != killed, what="the next worker")
    assert "worker load_test ended with code -9; it starts again in" in serving.process.stderr
    serving.result(serving.enqueue())


def test_killed_gateway_is_started_again(serving: Serving) -> None:
    killed = serving.processes()["gateway"]

    killed.kill()

    wait_until(lambda: serving.processes()["gateway"] != killed, what="the next gateway")
    wait_until(lambda: serving.client.get("/health/ready").status_code == 200, what="the next gateway")
    serving.result(serving.enqueue())


def test_killed_valkey_is_started_again_with_its_data(serving: Serving) -> None:
    task_id = serving.enqueue()
    result = serving.result(task_id)
    killed = serving.processes()["valkey"]

    killed.kill()

    wait_until(lambda: serving.processes()["valkey"] != killed, what="the next Valkey")
    wait_until(lambda: serving.client.post(ENQUEUE, json={**SEED, "task_id": "after"}).status_code in {202, 409})
    serving.result("after", timeout_s=60)
    assert serving.result(task_id) == result
    assert serving.process.is_running


def test_hang_up_of_its_terminal_stops_it(embedded_cli: Commands) -> None:
    serving = Serving(embedded_cli, AEGIS_QUEUES="workers.queues.media")
    serving.close()
    serving.process.process.send_signal(signal.SIGHUP)
    assert serving.process.wait(5) == 0
    check_address("127.0.0.1", serving.port)
