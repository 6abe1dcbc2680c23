"""A chaos run: workers killed at random under load, Redis restarted and paused, connections cut; then the books.

Some workers are stopped rather than killed, and the clock of every second one is an hour off. At the end a task
blocks the event loop of a worker for longer than a lease, and running jobs are taken from workers.

``python -m tests.faults.chaos --jobs 100000 --kills 50`` is the long form (``make chaos``); a test runs a
short one. The books: every acknowledged job has exactly one terminal event and one result, no attempt was
ended twice, no worker's commit came after its job had been given to another, and what the events say of each job is
what is stored.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from bridge import keys
from bridge.broker import is_away, open_redis
from bridge.catalog import load_catalog
from bridge.event_stream import EventStream
from bridge.events import TERMINAL_KINDS
from bridge.new_job import job_body, new_job_id
from bridge.scripts import NewJob, Scripts
from bridge.settings import Settings
from bridge.verifier import Report, Verifier
from tests.cli.processes import Command, Commands, ValkeyChild
from tests.faults.chaos_queue import QUEUE
from tests.faults.wrong_clock import wrong_clock

__all__ = ["Books", "read_books", "run_chaos"]

BATCH = 100
UNTIL_EMPTY_S = 60
END_S = 60
"""For a worker to end: one whose event loop is blocked hears of a signal only afterwards."""
BLOCK_S = keys.LEASE_MS / 1000 + 2
STEAL = 5
REFUSALS = ("the lease was lost, another worker has it", "its lease was over, the outcome is dropped")
"""What a worker logs of a job that was taken from it."""
PAUSE_S = 0.4
"""Between two kills, about: jobs keep coming until the last one."""
STOP_EVERY = 5
"""So many workers end until one of them does so by a SIGTERM; the others are killed."""
SKEWS_S = (0, 3600, 0, -3600)
"""Of the workers' clocks."""


class Books:
    """What the stream and the store say at the end."""

    def __init__(self, acknowledged: set[str], *, stolen: int, report: Report) -> None:
        self.acknowledged = acknowledged
        self.kills = self.stops = self.restarts = 0
        self.stolen = stolen
        self.refused = 0
        self.report = report
        self.ends: Counter[str] = Counter()
        self.starts = 0
        self.stalled = 0
        self.stale_commits: list[str] = []
        self.results = 0
        self.left_in_queue = 0

    @property
    def lost(self) -> list[str]:
        """Acknowledged jobs that never ended."""
        return [job_id for job_id in self.acknowledged if not self.ends[job_id]]

    @property
    def doubled(self) -> list[str]:
        """Jobs with more than one end."""
        return [job_id for job_id, ends in self.ends.items() if ends > 1]

    def __str__(self) -> str:
        return (
            f"{self.kills} workers killed, {self.stops} stopped, Redis restarted {self.restarts} times; "
            f"{len(self.acknowledged)} jobs, {self.starts} starts, {self.stalled} taken over from dead workers: "
            f"{len(self.lost)} lost, {len(self.doubled)} ended twice, {len(self.stale_commits)} stale commits, "
            f"{self.results} results, {self.left_in_queue} left in the queue, {self.stolen} stolen, "
            f"{self.refused} outcomes refused; "
            f"{self.report.events} events verified, {len(self.report.findings)} findings {self.report.findings[:5]}, "
            f"{self.report.oddities}"
        )

    def check(self) -> None:
        """Raises an AssertionError that says what is wrong, if anything is."""
        assert not self.lost, self
        assert not self.doubled, self
        assert not self.stale_commits, self
        assert self.results == len(self.acknowledged), self
        assert self.left_in_queue == 0, self
        assert self.refused >= self.stolen >= STEAL, self
        assert self.report.agrees, self
        assert self.report.trimmed_from is None, self


async def read_books(redis: Redis, acknowledged: set[str], *, stolen: int) -> Books:
    """Replays the stream, and counts what is stored."""
    report = await Verifier(redis, load_catalog(["tests.faults.chaos_queue"])).verify()
    books = Books(acknowledged, stolen=stolen, report=report)
    owner: dict[str, str] = {}
    after = "0"
    stream = EventStream(redis)
    while page := await stream.history(after):
        after = page[-1].id
        for event in page:
            if event.kind == "job.started":
                books.starts += 1
                owner[event.job_id] = event.worker
            elif event.kind == "job.retrying" and b'"stalled"' in bytes(event.data):
                books.stalled += 1
            elif event.kind in TERMINAL_KINDS:
                books.ends[event.job_id] += 1
                if owner.get(event.job_id) != event.worker:
                    books.stale_commits.append(event.job_id)
    for start in range(0, len(ids := list(acknowledged)), 1000):
        books.results += await redis.exists(*[keys.result(job_id) for job_id in ids[start : start + 1000]])
    books.left_in_queue = await redis.zcard(QUEUE)
    return books


async def enqueue(url: str, jobs: int, acknowledged: set[str], *, pause_s: float) -> None:
    """Every id in ``acknowledged`` has been acknowledged; ids of a call that failed are tried again."""
    redis = open_redis(Settings(redis_url=url))
    scripts = Scripts(redis, events_max_len=10_000_000)
    while len(acknowledged) < jobs:
        batch = [
            new_job("count", seconds=random.choice([0, 0, 0, 0.02]))
            for _ in range(min(BATCH, jobs - len(acknowledged)))
        ]
        while True:
            try:
                await scripts.enqueue(batch)
                break
            except Exception as error:
                if not is_away(error):
                    raise
                await asyncio.sleep(0.1)
        acknowledged.update(job.job_id for job in batch)
        await asyncio.sleep(pause_s)
    await redis.aclose(close_connection_pool=True)


def new_job(task: str, **kwargs: float) -> NewJob:
    return NewJob(job_id=new_job_id(), task=task, queue="chaos", queue_key=QUEUE, body=job_body(task, [], kwargs))


async def steal(redis: Redis, acknowledged: set[str]) -> int:
    """Some running jobs have been taken from their workers, one of which is blocked: how many."""
    scripts = Scripts(redis, events_max_len=10_000_000)
    jobs = [new_job("block", seconds=BLOCK_S), *(new_job("count", seconds=10) for _ in range(4 * STEAL))]
    await scripts.enqueue(jobs)
    acknowledged.update(job.job_id for job in jobs)
    stolen: set[str] = set()
    async with asyncio.timeout(UNTIL_EMPTY_S):
        while len(stolen) < STEAL:
            await asyncio.sleep(0.1)
            job = random.choice(jobs)
            score = await redis.zscore(QUEUE, job.job_id)
            if score is None or job.task == "block":
                continue
            async with redis.pipeline(transaction=True) as pipe:
                pipe.delete(keys.in_progress(job.job_id))
                pipe.zadd(QUEUE, {job.job_id: score - 6 * keys.LEASE_MS}, xx=True)  # half a ms stays: it was leased
                was_running, _ = await pipe.execute()
            if was_running:
                stolen.add(job.job_id)
    return len(stolen)


async def run_chaos(
    folder: Path, *, jobs: int, kills: int, workers: int = 2, restarts: int = 1, say: Any = lambda text: None
) -> Books:
    """The books of a run in which ``kills`` workers were killed and Redis was restarted ``restarts`` times.

    Args:
        folder: for logs and data.
        jobs: how many are enqueued while that happens.
        kills: by SIGKILL; a quarter as many are stopped by SIGTERM.
        workers: how many processes there are at a time.
        restarts: of Redis; as often it is silent for a second, and all connections are cut.
        say: told how far it is.
    """
    valkey = ValkeyChild(folder)
    valkey.start()
    commands = Commands(
        folder, REDIS_URL=valkey.url, AEGIS_QUEUES="tests.faults.chaos_queue", AEGIS_EVENTS_MAX_LEN=str(10**7)
    )
    acknowledged: set[str] = set()
    try:
        running = [start_worker(commands, number) for number in range(workers)]
        ends = kills + kills // (STOP_EVERY - 1)
        enqueuing = asyncio.create_task(enqueue(valkey.url, jobs, acknowledged, pause_s=ends * PAUSE_S * BATCH / jobs))
        for number in range(ends):
            await asyncio.sleep(PAUSE_S * (0.5 + random.random()))
            victim = random.randrange(workers)
            is_stop = number % STOP_EVERY == STOP_EVERY - 1
            await asyncio.to_thread(end, running[victim], by=signal.SIGTERM if is_stop else signal.SIGKILL)
            match number % 6 if number < 6 * restarts else None:
                case 1:
                    await asyncio.to_thread(pause, valkey)
                case 3:
                    await cut_connections(valkey.url)
                case 5:
                    await asyncio.to_thread(restart, valkey)
            running[victim] = start_worker(commands, victim)
            say(f"{number + 1}/{ends} workers ended, {len(acknowledged)} jobs acknowledged")
        await enqueuing
        redis = open_redis(Settings(redis_url=valkey.url))
        stolen = await steal(redis, acknowledged)
        await until_empty(redis)
        for worker in running:
            worker.assert_is_running()
            await asyncio.to_thread(end, worker, by=signal.SIGTERM)
        books = await read_books(redis, acknowledged, stolen=stolen)
        books.kills, books.stops, books.restarts = kills, ends - kills, min(restarts, ends // 6)
        books.refused = sum(worker.stderr.count(text) for worker in running for text in REFUSALS)
        await redis.aclose(close_connection_pool=True)
        return books
    finally:
        commands.close()
        valkey.close()


def start_worker(commands: Commands, number: int) -> Command:
    """A worker whose clock is right or wrong, as its number says."""
    skew_s = SKEWS_S[number % len(SKEWS_S)]
    return commands.start("worker", **(wrong_clock(commands.folder / f"skew{skew_s}", skew_s) if skew_s else {}))


def end(worker: Command, *, by: signal.Signals) -> None:
    worker.process.send_signal(by)
    worker.wait(END_S)


def pause(valkey: ValkeyChild) -> None:
    """Redis is silent for a second."""
    valkey.signal(signal.SIGSTOP)
    time.sleep(1)
    valkey.signal(signal.SIGCONT)


def restart(valkey: ValkeyChild) -> None:
    """Redis ends, having written everything, and is back a second later."""
    valkey.signal(signal.SIGTERM)
    assert valkey.process is not None
    valkey.process.wait()
    time.sleep(1)
    valkey.start()


async def cut_connections(url: str) -> None:
    redis = Redis.from_url(url)
    await redis.client_kill_filter(_type="normal", skipme=True)
    await redis.aclose()


async def until_empty(redis: Redis) -> None:
    async with asyncio.timeout(UNTIL_EMPTY_S):
        while await redis.zcard(QUEUE):  # noqa: ASYNC110 - it is in Redis
            await asyncio.sleep(0.1)


def main() -> None:
    """Runs chaos and prints the books; exit code 1 when they do not balance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--restarts", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        books = asyncio.run(
            run_chaos(
                Path(folder),
                jobs=options.jobs,
                kills=options.kills,
                workers=options.workers,
                restarts=options.restarts,
                say=lambda text: print(f"\r{text}", end="", file=sys.stderr, flush=True),
            )
        )
    print(f"\n{books}")
    books.check()


if __name__ == "__main__":
    main()
