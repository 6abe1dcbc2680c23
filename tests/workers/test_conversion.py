import functools
import inspect
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from uuid import UUID

import pytest
from arq.worker import Function, Worker, func

from bridge import keys
from bridge.aegis_redis import AegisRedis
from bridge.codec import job_deserializer, job_serializer
from bridge.errors import ConfigurationError, InvalidArguments, TaskFailed
from workers.conversion import converting

Context = dict[Any, Any]
QUEUE = keys.queue("lab")


async def report(ctx: Context, day: date, *others: UUID, to: list[UUID] | None = None) -> Any:
    return day, others, to


async def tick(ctx: Context) -> str:
    return "tock"


async def call(task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await converting(func(task, name="the task")).coroutine({}, *args, **kwargs)


async def test_arguments_arrive_as_their_annotated_types() -> None:
    text = "0b7d5c1e-4f0f-4a8e-8d2e-0e6f8f3c7a11"
    assert await call(report, "2026-01-31", to=[text]) == (date(2026, 1, 31), (), [UUID(text)])


async def test_arguments_that_have_their_types_already_stay() -> None:
    assert await call(report, day=date(2026, 1, 31)) == (date(2026, 1, 31), (), None)


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "path"),
    [
        (report, ("yesterday",), {}, "$.args[0]"),
        (report, (), {"day": "2026-01-31", "to": [1]}, "$.kwargs.to[0]"),
        (report, (), {}, "$.kwargs.day"),
        (tick, (1,), {}, "$.args[0]"),
        (tick, (), {"loudly": True}, "$.kwargs.loudly"),
    ],
)
async def test_job_whose_arguments_do_not_fit_fails_before_the_task_runs(
    task: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], path: str
) -> None:
    has_run = False

    @functools.wraps(task)
    async def notice(*args: Any, **kwargs: Any) -> None:
        nonlocal has_run
        has_run = True

    with pytest.raises(InvalidArguments) as caught:
        await call(notice, *args, **kwargs)
    assert (caught.value.task_name, caught.value.path) == ("the task", path)
    assert not has_run


async def test_task_that_takes_nothing_is_just_run() -> None:
    assert await call(tick) == "tock"


async def test_task_may_have_an_argument_named_ctx() -> None:
    async def look(context: Context, ctx: date) -> int:
        return ctx.year

    assert await call(look, ctx="2026-01-31") == 2026


async def test_task_without_ctx_is_refused() -> None:
    async def lonely() -> None: ...

    without_ctx: Any = lonely
    with pytest.raises(ConfigurationError, match="task lonely: its first parameter must be arq's ctx"):
        converting(func(without_ctx, name="lonely"))


def test_converting_twice_is_converting_once() -> None:
    once = converting(func(report))
    assert converting(once) is once


def test_wrapper_around_a_converting_task_is_not_converted_again() -> None:
    once = converting(func(report))

    @functools.wraps(once.coroutine)
    async def observed(ctx: Context, *args: Any) -> None: ...

    wrapped = func(observed, name="report")
    assert converting(wrapped) is wrapped


def test_original_and_its_settings_are_still_found() -> None:
    plain = func(report, name="daily", timeout=3, keep_result=4, keep_result_forever=False, max_tries=5)
    converted = converting(plain)
    assert inspect.unwrap(converted.coroutine) is report
    assert converted == Function("daily", converted.coroutine, 3, 4, False, 5)


async def test_stock_worker_runs_it_with_converted_arguments(redis: AegisRedis) -> None:
    async def read_year(ctx: Context, at: datetime) -> int:
        return at.year

    worker = Worker(
        [converting(func(read_year, name="read_year"))],
        queue_name=QUEUE,
        redis_pool=redis,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
        burst=True,
        handle_signals=False,
    )
    good = await redis.enqueue_job("read_year", "2026-01-31T12:00:00Z", _queue_name=QUEUE)
    bad = await redis.enqueue_job("read_year", "noon", _queue_name=QUEUE)
    await worker.async_run()
    assert good is not None
    assert await good.result(timeout=1) == 2026
    assert bad is not None
    with pytest.raises(TaskFailed, match=r"InvalidArguments: read_year: invalid .* - at \$.args\[0\]"):
        await bad.result(timeout=1)
