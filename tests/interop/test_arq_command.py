"""The stock ``arq`` command runs our settings classes as they are."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from arq.jobs import Job

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.codec import job_deserializer
from bridge.event_stream import EventStream
from bridge.settings import Settings
from workers import pools

ARQ = [sys.executable, "-m", "arq"]
SYSTEM = "workers.queues.system.WorkerSettings"
LOAD_TEST = "workers.queues.load_test.WorkerSettings"
ROOT = Path(__file__).parents[2]


def environment(settings: Settings, **changes: str) -> dict[str, str]:
    return {**os.environ, "REDIS_URL": settings.redis_url, **changes}


def arq(settings: Settings, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ARQ, *arguments],
        env=environment(settings, **changes),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(settings: Settings, log: Path, *arguments: str, cwd: Path = ROOT) -> Iterator["subprocess.Popen[bytes]"]:
    path = {"PYTHONPATH": str(ROOT)}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*ARQ, *arguments], env=environment(settings, **path), cwd=cwd, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield process
        finally:
            while process.poll() is None:  # stock arq can miss one, see workers/run.py
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=2)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)


async def test_burst_runs_what_is_queued_and_ends(settings: Settings, redis: AegisRedis) -> None:
    job = await redis.enqueue_job("io_simulation_task", _queue_name=keys.queue("load_test"), delay_ms=1)
    assert job is not None
    ended = arq(settings, LOAD_TEST, "--burst")
    assert ended.returncode == 0, ended.stderr
    assert (await job.result(timeout=5))["intact"] is True
    kinds = [event.kind for event in await EventStream(redis).history()]
    assert kinds == ["job.enqueued", "worker.started", "job.started", "job.succeeded", "worker.stopped"]


async def test_check_tells_whether_a_worker_is_there(settings: Settings, redis: AegisRedis, tmp_path: Path) -> None:
    assert arq(settings, SYSTEM, "--check").returncode == 1
    log = tmp_path / "log"
    with running(settings, log, SYSTEM):
        wait_for(lambda: "Starting worker" in log.read_text())
        wait_for(lambda: arq(settings, SYSTEM, "--check").returncode == 0)
    assert arq(settings, SYSTEM, "--check").returncode == 1, "a worker that is gone does not count"


async def test_watch_starts_again_when_a_file_changes(settings: Settings, redis: AegisRedis, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    log = tmp_path / "log"
    with running(settings, log, SYSTEM, "--watch", str(watched)):
        wait_for(lambda: "Starting worker" in log.read_text())
        attempts = iter(range(10_000))

        def has_reloaded() -> bool:
            (watched / "task.py").write_text(f"# {next(attempts)}")  # the watcher may not be there yet
            return "reloading arq worker" in log.read_text() and log.read_text().count("Starting worker") > 1

        wait_for(has_reloaded)


def test_wrong_setting_is_one_line_under_arq_too(settings: Settings) -> None:
    ended = arq(settings, SYSTEM, "--check", AEGIS_PROT="1")
    assert ended.returncode == 1
    assert ended.stderr == "aegis-tasks: unknown setting AEGIS_PROT; did you mean AEGIS_PORT?\n"


def test_importing_the_settings_starts_nothing(tmp_path: Path) -> None:
    code = "import workers.queues.system, workers.queues.load_test, workers.queues.media"
    empty = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": ""}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=empty, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


WELCOME = '''
from workers.worker_settings import queue

async def send_welcome_email(ctx, user_id: int) -> str:
    """Sends the first mail."""
    return f"welcome {user_id}"

@queue("welcome")
class WorkerSettings:
    functions = [send_welcome_email]
'''


async def test_added_task_is_enqueued_through_its_pool_and_runs(
    settings: Settings, redis: AegisRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "welcome_queue.py").write_text(WELCOME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("AEGIS_QUEUES", "welcome_queue.WorkerSettings")
    pools.catalog.cache_clear()
    try:
        pool, queue_name = await pools.get_queue_pool("welcome")
        job = await pool.enqueue_job("send_welcome_email", 7)
    finally:
        pools.catalog.cache_clear()
    assert job is not None
    assert queue_name == keys.queue("welcome")
    assert await redis.zscore(queue_name, job.job_id) is not None
    log = tmp_path / "log"
    with running(settings, log, "welcome_queue.WorkerSettings", "--burst", cwd=tmp_path) as process:
        process.wait(timeout=30)
    assert await Job(job.job_id, redis, queue_name, job_deserializer).result(timeout=5) == "welcome 7"
    assert re.search(r"send_welcome_email\(…\)", log.read_text())
    await pool.aclose(close_connection_pool=True)
