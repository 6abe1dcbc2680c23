"""How many jobs run at once, and that each runs once."""

import asyncio
from collections import Counter

import pytest
from arq.connections import ArqRedis

from tests.conformance.conftest import QUEUE, Context, Holding, MakeWorker, drain, enqueue, named, running, until


def options(max_jobs: int | None) -> dict[str, int]:
    return {} if max_jobs is None else {"max_jobs": max_jobs}


OF_ALL_SIZES = pytest.mark.parametrize(
    ("max_jobs", "size"), [(1, 1), (3, 3), (None, 10)], ids=["one", "three", "ten by default"]
)


@OF_ALL_SIZES
async def test_worker_runs_as_many_jobs_at_once_as_allowed(
    make_worker: MakeWorker, producer: ArqRedis, max_jobs: int | None, size: int
) -> None:
    async def meet(ctx: Context) -> None:
        await barrier.wait()

    barrier = asyncio.Barrier(size)
    for _ in range(size * 3):
        await enqueue(producer, "meet")
    worker = make_worker([named(meet)], **options(max_jobs))
    await drain(worker)
    assert worker.jobs_complete == size * 3


@OF_ALL_SIZES
async def test_worker_leaves_further_jobs_to_others(
    make_worker: MakeWorker, producer: ArqRedis, max_jobs: int | None, size: int
) -> None:
    async def hold(ctx: Context) -> None:
        run_by[ctx["worker"]] += 1
        await asyncio.Event().wait()

    run_by: Counter[str] = Counter()
    for _ in range(size * 2):
        await enqueue(producer, "hold")
    worker = make_worker([named(hold)], burst=False, ctx={"worker": "full"}, **options(max_jobs))
    other = make_worker([named(hold)], burst=False, ctx={"worker": "other"}, max_jobs=100)
    async with running(worker):
        await until(lambda: run_by["full"] >= size)
        async with running(other):
            await until(lambda: run_by.total() == size * 2)
            assert run_by == {"full": size, "other": size}


@pytest.mark.parametrize("max_jobs", [1, 3])
async def test_no_more_jobs_than_allowed_run_at_any_time(
    make_worker: MakeWorker, producer: ArqRedis, max_jobs: int
) -> None:
    async def count(ctx: Context) -> None:
        present.append(ctx["job_id"])
        most_present.append(len(present))
        await producer.ping()
        present.remove(ctx["job_id"])

    present: list[str] = []
    most_present: list[int] = []
    for _ in range(50):
        await enqueue(producer, "count")
    await drain(make_worker([named(count)], max_jobs=max_jobs))
    assert len(most_present) == 50
    assert max(most_present) <= max_jobs


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
