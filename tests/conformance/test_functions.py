"""Functions, their names and arguments."""

import sys
from types import ModuleType

import pytest
from arq.connections import ArqRedis
from arq.worker import JobExecutionFailed, func

from tests.conformance.conftest import Context, MakeWorker, drain, enqueue, failure_of, named, result_of


async def add(ctx: Context, left: int, right: int = 1) -> int:
    return left + right


async def refuse(ctx: Context) -> None:
    raise ValueError("not today")


async def test_function_goes_by_its_own_name(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "add", 2)
    await drain(make_worker([add]))
    assert await job.result(timeout=5) == 3


async def test_nested_function_goes_by_its_qualified_name(make_worker: MakeWorker, producer: ArqRedis) -> None:
    async def inner(ctx: Context) -> str:
        return "inside"

    name = "test_nested_function_goes_by_its_qualified_name.<locals>.inner"
    job = await enqueue(producer, name)
    await drain(make_worker([inner]))
    assert await job.result(timeout=5) == "inside"


async def test_function_goes_by_the_name_it_is_given(make_worker: MakeWorker, producer: ArqRedis) -> None:
    given, own = await enqueue(producer, "sum", 2), await enqueue(producer, "add", 2)
    await drain(make_worker([func(add, name="sum")]))
    assert await given.result(timeout=5) == 3
    assert isinstance(await failure_of(own), JobExecutionFailed), "its own name is no longer known"


async def test_function_can_be_imported_by_its_path(
    make_worker: MakeWorker, producer: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("calculator")
    monkeypatch.setattr(module, "add", add, raising=False)
    monkeypatch.setitem(sys.modules, "calculator", module)
    job = await enqueue(producer, "calculator.add", 2)
    await drain(make_worker([func("calculator.add")]))
    assert await job.result(timeout=5) == 3


async def test_of_two_functions_with_one_name_the_last_is_run(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "add", 2)
    await drain(make_worker([func(refuse, name="add"), add]))
    assert await job.result(timeout=5) == 3


async def test_arguments_arrive_by_position_and_by_name(make_worker: MakeWorker, producer: ArqRedis) -> None:
    seen: list[object] = []

    async def look(ctx: Context, *args: object, **kwargs: object) -> None:
        seen.extend([args, kwargs])

    await enqueue(producer, "look", 1, "two", three=[3], four=None)
    await drain(make_worker([named(look)]))
    assert seen == [(1, "two"), {"three": [3], "four": None}]


async def test_each_job_has_its_own_arguments(make_worker: MakeWorker, producer: ArqRedis) -> None:
    jobs = [await enqueue(producer, "add", number) for number in range(20)]
    await drain(make_worker([add]))
    assert [await job.result(timeout=5) for job in jobs] == list(range(1, 21))


async def test_job_whose_arguments_do_not_fit_fails(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "add", middle=2)
    await drain(make_worker([add]))
    with pytest.raises(TypeError):
        await job.result(timeout=5)


async def test_exception_fails_the_job(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "refuse")
    worker = make_worker([refuse])
    await drain(worker)
    assert worker.jobs_failed == 1
    with pytest.raises(ValueError, match="not today"):
        await job.result(timeout=5)


async def test_failed_job_does_not_keep_others_from_running(make_worker: MakeWorker, producer: ArqRedis) -> None:
    await enqueue(producer, "refuse")
    job = await enqueue(producer, "add", 2)
    await drain(make_worker([refuse, add], max_jobs=1))
    assert await job.result(timeout=5) == 3


async def test_job_of_an_unknown_function_fails(make_worker: MakeWorker, producer: ArqRedis) -> None:
    job = await enqueue(producer, "subtract", 2, right=1)
    worker = make_worker([add])
    await drain(worker)
    assert await failure_of(job) == JobExecutionFailed("function 'subtract' not found")
    assert worker.jobs_failed == 1


async def test_failed_job_of_an_unknown_function_says_what_was_asked_for(
    make_worker: MakeWorker, producer: ArqRedis
) -> None:
    job = await enqueue(producer, "subtract", 2, right=1, _job_id="job")
    await drain(make_worker([add]))
    result = await result_of(job)
    assert (result.function, list(result.args), result.kwargs) == ("subtract", [2], {"right": 1})
    assert (result.job_id, result.job_try) == ("job", 1)


async def test_job_runs_once_although_its_id_is_enqueued_twice(make_worker: MakeWorker, producer: ArqRedis) -> None:
    runs: list[str] = []

    async def note(ctx: Context, text: str) -> None:
        runs.append(text)

    await enqueue(producer, "note", "first", _job_id="job")
    assert await producer.enqueue_job("note", "second", _job_id="job") is None
    await drain(make_worker([named(note)]))
    assert runs == ["first"]


async def test_job_of_another_queue_is_left_alone(make_worker: MakeWorker, producer: ArqRedis) -> None:
    elsewhere = await enqueue(producer, "add", 2, _queue_name="arq:queue:elsewhere")
    here = await enqueue(producer, "add", 2)
    await drain(make_worker([add]))
    assert await here.result(timeout=5) == 3
    assert await elsewhere.result_info() is None
    assert await producer.zcard("arq:queue:elsewhere") == 1
