"""`aegis-tasks serve` as a process of a test's own."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from tests.cli.processes import Command, Commands, find_free_port, wait_until
from tests.gateway.problem import ENQUEUE

__all__ = ["SEED", "START_TIMEOUT_S", "Serving", "start_gateway"]

SEED: Final = {"task_name": "io_simulation_task", "queue_type": "load_test"}
START_TIMEOUT_S: Final = 40
"""Four Python processes and a Valkey, beside other tests on two cores."""


def start_gateway(cli: Commands, **environ: str) -> tuple[Command, int]:
    """A gateway process that is ready, and its port."""
    port = find_free_port()
    process = cli.start("gateway", "--port", str(port), **environ)

    def is_ready() -> bool:
        process.assert_is_running()
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200

    wait_until(is_ready, START_TIMEOUT_S, what="the gateway")
    return process, port


class Serving:
    """A `serve` that is ready.

    Attributes:
        process: it.
        client: speaks HTTP with its gateway.
    """

    def __init__(self, cli: Commands, *options: str, **environ: str) -> None:
        self.cli = cli
        self.port = find_free_port()
        self.process: Command = cli.start("serve", "--port", str(self.port), *options, **environ)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        wait_until(self.is_ready, START_TIMEOUT_S, what="serve")

    def is_ready(self) -> bool:
        self.process.assert_is_running()
        return "Ctrl-C stops everything." in self.process.stdout

    @property
    def data_dir(self) -> Path:
        return self.cli.data_dir

    def processes(self) -> dict[str, psutil.Process]:
        """What it runs, by name: gateway, worker system, worker load_test, keeper, valkey."""
        found = {}
        for child in self.process.children():
            with suppress(psutil.NoSuchProcess):
                words = child.cmdline()
                if "bridge.valkey_keeper" in words:
                    found["keeper"] = child
                elif words and words[0].endswith("valkey-server"):
                    found["valkey"] = child
                elif "cli" in words:
                    name = words[words.index("cli") + 1]
                    found[f"worker {words[-1]}" if name == "worker" else name] = child
        return found

    def enqueue(self, **request: Any) -> str:
        """The id of a new job, by default of the seed's task."""
        answer = self.client.post(ENQUEUE, json={**SEED, **request})
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["task_id"]
        return task_id

    def result(self, task_id: str, timeout_s: float = 30) -> Any:
        """The job's result, once it has succeeded."""
        deadline_s = time.monotonic() + timeout_s
        while (answer := self.client.get(f"/api/v1/tasks/result/{task_id}")).status_code == 202:
            assert time.monotonic() < deadline_s, f"{answer.text}\n{self.process.stderr}"
            time.sleep(0.05)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "succeeded", answer.text
        return answer.json()["result"]

    def close(self) -> None:
        self.client.close()
