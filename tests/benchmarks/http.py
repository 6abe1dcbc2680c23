"""Enqueueing over HTTP, by wrk: requests a second and latencies of 32 connections, latencies of one."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import Redis

from tests.benchmarks.contenders import ROOT
from tests.benchmarks.figure import Values, run_figure
from tests.benchmarks.worker_processes import commands_on
from tests.cli.processes import find_free_port, is_free, wait_until

__all__ = ["NO_WRK"]

NO_WRK: Final = "wrk is not on the PATH: install it (apt install wrk, brew install wrk) to measure HTTP"
CONNECTIONS: Final = 32
WARM_UP_S: Final = 1.0
SCRIPT: Final = Path(__file__).with_name("post.lua")
ROUTE: Final = "/api/v1/tasks/enqueue"


class Answers(msgspec.Struct):
    """What ``post.lua`` prints."""

    per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


async def measure(url: str, *, seconds: float, server: str) -> Values:
    """Of our gateway, or of another server that this command, with a port and Redis' port behind it, starts."""
    if not shutil.which("wrk"):
        sys.exit(NO_WRK)
    with gateway(url) if not server else another(server, url) as port:
        post(port, min(WARM_UP_S, seconds))
        loaded = post(port, seconds)
        idle = post(port, seconds, connections=1)
        values = {
            "per_s": loaded.per_s,
            "p50_ms": loaded.p50_ms,
            "p99_ms": loaded.p99_ms,
            "idle_p50_ms": idle.p50_ms,
            "idle_p99_ms": idle.p99_ms,
        }
        if not server:
            values["keyed_per_s"] = post(port, seconds, mode="keyed").per_s
    async with Redis.from_url(url) as redis:
        values["jobs"] = await redis.zcard("arq:queue:bench")
    return values


@contextmanager
def gateway(url: str) -> Iterator[int]:
    """The port of our gateway, which answers."""
    with commands_on(url) as commands:
        command = commands.start("gateway")
        port = int(commands.environ["AEGIS_PORT"])

        def is_up() -> bool:
            command.assert_is_running()
            return not is_free(port)

        wait_until(is_up, what="the gateway")
        yield port


@contextmanager
def another(server: str, url: str) -> Iterator[int]:
    port = find_free_port()
    with subprocess.Popen([*shlex.split(server), str(port), str(urlsplit(url).port)], cwd=ROOT) as process:
        try:
            wait_until(lambda: process.poll() is not None or not is_free(port), what="the server")
            yield port
        finally:
            process.kill()


def post(port: int, seconds: float, *, connections: int = CONNECTIONS, mode: str = "plain") -> Answers:
    """What wrk finds in this time.

    Raises:
        RuntimeError: there were other answers than those of success.
    """
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(SCRIPT)]
    command = ["wrk", *options, f"http://127.0.0.1:{port}{ROUTE}", "--", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Answers)
    if answers.errors:
        raise RuntimeError(f"{answers.errors} requests have failed")
    return answers


if __name__ == "__main__":
    run_figure(measure, __doc__, seconds=5.0, server="")
