import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from arq.worker import Function, func

from bridge.errors import ConfigurationError, InvalidArguments
from workers.retry import RetryLater
from workers.task import task

Context = dict[Any, Any]


async def send(ctx: Context, day: date) -> int:
    return day.year


def resize(ctx: Context, day: date) -> int:
    return day.year


async def hang(ctx: Context) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("options", [{}, {"retry_on": (OSError,)}])
@pytest.mark.parametrize("function", [send, resize])
async def test_arguments_arrive_as_their_annotated_types(function: Any, options: dict[str, Any]) -> None:
    assert await task(function, **options).coroutine({"job_try": 1}, "2026-01-31") == 2026


@pytest.mark.parametrize("function", [send, resize])
async def test_arguments_that_do_not_fit_are_not_retried(function: Any) -> None:
    with pytest.raises(InvalidArguments, match="there is no argument 'when'"):
        await task(function, retry_on=(Exception,)).coroutine({"job_try": 1}, when="2026-01-31")


@pytest.mark.parametrize("options", [{}, {"retry_on": (OSError,)}, {"run_in": "process"}])
def test_original_function_is_still_found(options: dict[str, Any]) -> None:
    coroutine = task(resize, **options).coroutine
    assert inspect.unwrap(coroutine) is resize
    assert inspect.iscoroutinefunction(coroutine)


def test_defaults_leave_everything_to_the_worker() -> None:
    made = task(send)
    assert made == Function("send", made.coroutine, None, None, None, None)


def test_options_become_those_of_the_function() -> None:
    made = task(
        send,
        name="mail",
        timeout=timedelta(minutes=1),
        max_tries=7,
        keep_result=timedelta(days=1),
        retry_on=(KeyError,),
    )
    assert made == Function("mail", made.coroutine, 60, 86400, None, 7)
    assert task(send, keep_result_forever=True).keep_result_forever


def test_three_attempts_with_expected_errors() -> None:
    assert task(send, retry_on=(ConnectionError,)).max_tries == 3


def test_runners_timeout_comes_later_where_a_timeout_is_retried() -> None:
    assert task(send, timeout=10, retry_on=(ConnectionError,)).timeout_s == 10
    assert task(send, timeout=10, retry_on=(TimeoutError,)).timeout_s == 15
    assert task(send, retry_on=(TimeoutError,)).timeout_s is None


async def test_timeout_is_retried_where_it_is_expected() -> None:
    with pytest.raises(RetryLater) as caught:
        await task(hang, timeout=0.01, retry_on=(TimeoutError,)).coroutine({"job_try": 1})
    assert caught.value.reason == "timeout"


async def test_method_can_be_a_task() -> None:
    class Greeter:
        word = "hello"

        async def greet(self, ctx: Context, name: str) -> str:
            return f"{self.word} {name}"

        def shout(self, ctx: Context, name: str) -> str:
            return f"{self.word} {name}!"

    assert await task(Greeter().greet).coroutine({}, "Ada") == "hello Ada"
    assert await task(Greeter().shout).coroutine({}, "Ada") == "hello Ada!"


async def test_task_can_be_used_as_a_decorator() -> None:
    @functools.partial(task, name="doubled", retry_on=(OSError,))
    def double(ctx: Context, number: int) -> int:
        return 2 * number

    assert double.name == "doubled"
    assert await double.coroutine({"job_try": 1}, 21) == 42


async def generate(ctx: Context) -> AsyncIterator[int]:
    yield 1


def generate_plainly(ctx: Context) -> Iterator[int]:
    yield 1


def lonely() -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (send, {"retry_on": ConnectionError}, "task send: retry_on must be a tuple of exception classes, such as"),
        (send, {"retry_on": (asyncio.CancelledError,)}, "task send: retry_on must be a tuple of exception classes"),
        (send, {"retry_on": (ValueError("x"),)}, "task send: retry_on must be a tuple of exception classes"),
        (send, {"retry_on": "OSError", "name": "mail"}, "task mail: retry_on must be a tuple of exception classes"),
        (send, {"backoff_s": -1}, "task send: backoff_s must be 0 seconds or more"),
        (send, {"backoff_s": float("nan")}, "task send: backoff_s must be 0 seconds or more"),
        (send, {"backoff_max_s": float("inf")}, "task send: backoff_max_s must be 0 seconds or more"),
        (send, {"max_tries": 0}, "task send: max_tries must be a whole number from 1"),
        (send, {"max_tries": 1.5}, "task send: max_tries must be a whole number from 1"),
        (send, {"timeout": 0}, "task send: timeout must be more than 0 seconds"),
        (send, {"timeout": "10"}, "task send: timeout must be more than 0 seconds"),
        (send, {"keep_result": -1}, "task send: keep_result must be 0 seconds or more"),
        (send, {"max_tries": 0, "timeout": 0}, "task send: timeout must .* 0 seconds; max_tries must be"),
        (resize, {"run_in": "loop"}, 'task resize: run_in must be "thread" or "process"'),
        (send, {"run_in": "process"}, "task send: run_in is for a plain def; an async def runs in the event loop"),
        (send, {"run_in": "thread"}, "task send: run_in is for a plain def"),
        (generate, {}, "task generate: it yields; a task returns its result"),
        (generate_plainly, {}, "task generate_plainly: it yields"),
        (lonely, {}, "task lonely: its first parameter must be arq's ctx"),
        ("tests.send", {}, "task 'tests.send': give a function made with def or async def"),
        (functools.partial(send, {}), {}, "task functools.partial.*: give a function made with def"),
        (func(send, name="mail"), {}, "task mail: it is an arq Function already; list it as it is"),
        (task(resize), {"max_tries": 2}, "task resize: it is an arq Function already"),
    ],
)
def test_wrong_use_is_refused_with_the_tasks_name(function: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        task(function, **options)
