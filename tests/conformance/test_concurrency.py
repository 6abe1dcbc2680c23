"""How many jobs run at once, and that each runs once."""

import asyncio
from collections import Counter

import pytest
from arq.connections import ArqRedis

from tests.conformance.conftest import QUEUE, Context, Holding, MakeWorker, drain, enqueue, named, running, until


class Meeting:
    """A function whose runs last until so many of them run at once."""

    def __init__(self, size: int) -> None:
        self.present = self.most_present = 0
        barrier = asyncio.Barrier(size)

        async def meet(ctx: Context) -> None:
            self.present += 1
            self.most_present = max(self.most_present, self.present)
            await barrier.wait()
            self.present -= 1

        self.function = named(meet)


@pytest.mark.parametrize("max_jobs", [1, 3])
async def test_as_many_jobs_run_at_once_as_allowed_and_no_more(
    make_worker: MakeWorker, producer: ArqRedis, max_jobs: int
) -> None:
    meeting = Meeting(size=max_jobs)
    for _ in range(max_jobs * 4):
        await enqueue(producer, "meet")
    worker = make_worker([meeting.function], max_jobs=max_jobs)
    await drain(worker)
    assert meeting.most_present == max_jobs
    assert worker.jobs_complete == max_jobs * 4


async def test_ten_jobs_at_once_are_the_default(make_worker: MakeWorker, producer: ArqRedis) -> None:
    meeting = Meeting(size=10)
    for _ in range(30):
        await enqueue(producer, "meet")
    await drain(make_worker([meeting.function]))
    assert meeting.most_present == 10


async def test_place_that_becomes_free_is_taken_while_others_still_run(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    async def quick(ctx: Context) -> None:
        runs.append(ctx["job_id"])

    runs: list[str] = []
    holding = Holding()
    await enqueue(producer, "hold", _job_id="a")
    for job_id in "bcdef":
        await enqueue(producer, "quick", _job_id=job_id)
    async with running(make_worker([holding.function, named(quick)], max_jobs=2, burst=False)):
        await until(lambda: len(runs) == 5)
        assert holding.started == ["a"]
    assert holding.cancelled == ["a"], "it was running all the time"


async def test_full_worker_leaves_jobs_to_another(make_worker: MakeWorker, producer: ArqRedis) -> None:
    holding = Holding()
    workers = [make_worker([holding.function], max_jobs=1, burst=False) for _ in range(2)]
    for job_id in ("one", "other"):
        await enqueue(producer, "hold", _job_id=job_id)
    async with running(*workers):
        await until(lambda: len(holding.started) == 2)
    assert sorted(holding.started) == ["one", "other"]


async def test_worker_leaves_a_job_alone_that_another_runs(make_worker: MakeWorker, producer: ArqRedis) -> None:
    busy, idle = Holding(), Holding()
    idle.gate.set()
    held, later = [await enqueue(producer, "hold", _job_id=job_id) for job_id in "ab"]
    async with running(make_worker([busy.function], max_jobs=1, burst=False)):
        await until(lambda: busy.started)
        async with running(make_worker([idle.function], burst=False)):
            assert await later.result(timeout=5, poll_delay=0.01) == "held"
            busy.gate.set()
            assert await held.result(timeout=5, poll_delay=0.01) == "held"
    assert (busy.started, idle.started) == (["a"], ["b"])


@pytest.mark.parametrize("workers", [2, 3])
async def test_each_job_is_run_by_one_of_several_workers(
    make_worker: MakeWorker, producer: ArqRedis, workers: int
) -> None:
    async def note(ctx: Context) -> None:
        runs[ctx["job_id"]] += 1

    runs: Counter[str] = Counter()
    for number in range(100):
        await enqueue(producer, "note", _job_id=str(number))
    await asyncio.gather(*(drain(make_worker([named(note)])) for _ in range(workers)))
    assert len(runs) == 100
    assert set(runs.values()) == {1}
    assert await producer.zcard(QUEUE) == 0
