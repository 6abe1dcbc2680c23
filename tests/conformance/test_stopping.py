"""Workers that are stopped: by a signal, in a process of their own, or by `close()`."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import JobStatus
from arq.worker import Worker

from bridge import keys
from tests.conformance.conftest import (
    QUEUE,
    Context,
    Holding,
    MakeWorker,
    close,
    drain,
    enqueue,
    running,
    until,
)

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
PATIENT = {"job_completion_wait": 20}


class Child:
    """A worker in a process of its own, see `signalled_worker`."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def listen(self, line: str) -> None:
        """It has said this line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while line not in self.said:
                said = await self.process.stdout.readline()
                assert said, f"it ended without a word of {line!r}; before, it said {self.said}"
                self.said.append(said.decode().rstrip())

    def open_gate(self) -> None:
        """Its job may end."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def end(self, signum: signal.Signals, *, is_told: bool = False) -> int:
        """Its exit code, after it was told to end: as often as it takes, since stock arq can miss it.

        One that is told already may be on its last steps, where a signal would end it at once.
        """
        assert self.process.stdout is not None
        rest = asyncio.create_task(self.process.stdout.read())
        async with asyncio.timeout(20):
            if is_told:
                await asyncio.wait({rest}, timeout=2)
            while not rest.done():
                self.process.send_signal(signum)
                await asyncio.wait({rest}, timeout=2)
        self.said += (await rest).decode().splitlines()
        return await self.process.wait()


StartChild = Callable[..., Any]


@pytest.fixture
def child(runner: type[Worker], valkey_url: str, producer: ArqRedis) -> StartChild:
    """Starts a worker in a process of its own, which has started when the block begins, and is gone when it ends."""

    @asynccontextmanager
    async def start(**options: Any) -> AsyncIterator[Child]:
        class_path = f"{runner.__module__}:{runner.__qualname__}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.conformance.signalled_worker"),
            *(class_path, valkey_url, json.dumps({"queue_name": QUEUE, "poll_delay": 0.1, **options})),
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
        )
        worker = Child(process)
        try:
            await worker.listen("ready")
            yield worker
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    return start


@BOTH
async def test_signal_gives_a_running_job_back_to_the_queue(
    child: StartChild, producer: ArqRedis, signum: signal.Signals
) -> None:
    job = await enqueue(producer, "hold")
    async with child() as worker:
        await worker.listen("started")
        assert await worker.end(signum) == 0
        assert "finished" not in worker.said
    assert await job.status() == JobStatus.queued
    assert not await producer.exists(keys.in_progress(job.job_id))


async def test_job_of_a_stopped_worker_is_run_by_the_next(
    child: StartChild, make_worker: MakeWorker, producer: ArqRedis
) -> None:
    job = await enqueue(producer, "hold")
    async with child() as worker:
        await worker.listen("started")
        await worker.end(signal.SIGTERM)
    holding = Holding()
    holding.gate.set()
    await drain(make_worker([holding.function]))
    assert await job.result(timeout=5) == "held"


@BOTH
async def test_signal_lets_a_job_finish_where_there_is_time(
    child: StartChild, producer: ArqRedis, signum: signal.Signals
) -> None:
    job = await enqueue(producer, "hold")
    async with child(**PATIENT) as worker:
        await worker.listen("started")
        worker.process.send_signal(signum)
        worker.open_gate()
        await worker.listen("finished")
        assert await worker.end(signum, is_told=True) == 0
        assert await job.result(timeout=5) == worker.process.pid


async def test_worker_that_waits_for_its_job_starts_no_other(child: StartChild, producer: ArqRedis) -> None:
    await enqueue(producer, "hold")
    async with child(**PATIENT) as worker:
        await worker.listen("started")
        worker.process.send_signal(signal.SIGTERM)
        other = await enqueue(producer, "quick")
        worker.open_gate()
        await worker.listen("finished")
        await worker.end(signal.SIGTERM, is_told=True)
    assert await other.status() == JobStatus.queued


async def test_job_that_outlasts_the_wait_is_given_back(child: StartChild, producer: ArqRedis) -> None:
    job = await enqueue(producer, "hold")
    async with child(job_completion_wait=0.2) as worker:
        await worker.listen("started")
        assert await worker.end(signal.SIGTERM) == 0
        assert "finished" not in worker.said
    assert await job.status() == JobStatus.queued


async def test_stopped_worker_is_closed(child: StartChild, producer: ArqRedis) -> None:
    async with child() as worker:
        await until(lambda: producer.exists(keys.health_check(QUEUE)))
        await worker.end(signal.SIGTERM)
        assert worker.said[-1] == "shut down"
    assert not await producer.exists(keys.health_check(QUEUE))


async def test_on_stop_is_told_the_signal(child: StartChild) -> None:
    async with child() as worker:
        await worker.end(signal.SIGTERM)
        assert "stopped by SIGTERM" in worker.said


async def test_closing_gives_a_running_job_back_to_the_queue(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold", _job_id="job")
    async with running(make_worker([holding.function], burst=False)):
        await until(lambda: holding.started)
    assert holding.cancelled == ["job"]
    assert await job.status() == JobStatus.queued


async def test_job_that_was_given_back_runs_again(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold", _job_id="job")
    async with running(make_worker([holding.function], burst=False)):
        await until(lambda: holding.started)
    holding.gate.set()
    await drain(make_worker([holding.function]))
    assert await job.result(timeout=5) == "held"
    assert holding.started == ["job", "job"]


async def test_running_job_fails_where_the_worker_retries_nothing(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    job = await enqueue(producer, "hold")
    async with running(make_worker([holding.function], retry_jobs=False, burst=False)):
        await until(lambda: holding.started)
    assert await job.status() == JobStatus.complete
    with pytest.raises(asyncio.CancelledError):
        await job.result(timeout=5)


async def test_hooks_of_a_job_run_when_it_is_given_back(make_worker: MakeWorker, producer: ArqRedis) -> None:
    def note(name: str) -> Callable[[Context], Awaitable[None]]:
        async def hook(ctx: Context) -> None:
            called.append(name)

        return hook

    called: list[str] = []
    names = ["on_job_start", "on_job_end", "after_job_end", "on_shutdown"]
    holding = Holding()
    await enqueue(producer, "hold")
    async with running(make_worker([holding.function], burst=False, **{name: note(name) for name in names})):
        await until(lambda: holding.started)
    assert called == names


async def test_worker_that_never_ran_can_be_closed(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await close(make_worker([Holding().function]))
