import asyncio
from collections.abc import Sequence

import pytest

from bridge.coalescer import Coalescer


class Calls:
    """Doubles numbers, each call once the gate is open; keeps what each call was given."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def double(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.given.append(list(numbers))
        self.begun.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        return [number * 2 if number >= 0 else ValueError(f"{number} is negative") for number in numbers]


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def coalescer(calls: Calls) -> Coalescer[int, int]:
    return Coalescer(calls.double, most=3)


async def first_under_way(coalescer: Coalescer[int, int], calls: Calls) -> "asyncio.Task[int]":
    """The call for the number 1 has begun and waits at the gate."""
    first = asyncio.create_task(coalescer.submit(1))
    await calls.begun.wait()
    return first


async def submitted(coalescer: Coalescer[int, int], *numbers: int) -> "list[asyncio.Task[int]]":
    """Callers who wait for their answers."""
    tasks = [asyncio.create_task(coalescer.submit(number)) for number in numbers]
    while len(coalescer.waiting) < len(numbers):  # noqa: ASYNC110 - a turn of the event loop is all it takes
        await asyncio.sleep(0)
    return tasks


async def test_callers_who_come_while_a_call_is_under_way_share_the_next(
    coalescer: Coalescer[int, int], calls: Calls
) -> None:
    first = await first_under_way(coalescer, calls)
    others = await submitted(coalescer, 2, 3)
    calls.gate.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6]
    assert calls.given == [[1], [2, 3]]


async def test_a_call_has_no_more_items_than_it_may(coalescer: Coalescer[int, int], calls: Calls) -> None:
    calls.gate.set()
    assert await asyncio.gather(*map(coalescer.submit, range(7))) == [0, 2, 4, 6, 8, 10, 12]
    assert calls.given == [[0, 1, 2], [3, 4, 5], [6]]


async def test_caller_who_gives_up_waiting_takes_the_item_out(coalescer: Coalescer[int, int], calls: Calls) -> None:
    first = await first_under_way(coalescer, calls)
    second, third = await submitted(coalescer, 2, 3)
    second.cancel()
    calls.gate.set()
    assert (await first, await third) == (2, 6)
    assert second.cancelled()
    assert calls.given == [[1], [3]]


async def test_caller_who_gives_up_later_harms_nobody(coalescer: Coalescer[int, int], calls: Calls) -> None:
    calls.gate.set()
    await coalescer.submit(0)
    calls.gate.clear()
    calls.begun.clear()
    first, second = await submitted(coalescer, 1, 2)
    await calls.begun.wait()
    first.cancel()
    calls.gate.set()
    assert await second == 4
    assert first.cancelled()


async def test_error_of_a_call_is_that_of_its_callers_alone(coalescer: Coalescer[int, int], calls: Calls) -> None:
    calls.error = ConnectionError("away")
    first = await first_under_way(coalescer, calls)
    calls.gate.set()
    with pytest.raises(ConnectionError):
        await first
    calls.error = None
    assert await coalescer.submit(2) == 4


async def test_error_among_the_answers_is_that_of_one_caller(coalescer: Coalescer[int, int], calls: Calls) -> None:
    calls.gate.set()
    answers = await asyncio.gather(*map(coalescer.submit, (1, -1, 2)), return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, BaseException)] == [2, 4]
    assert isinstance(answers[1], ValueError)
    assert calls.given == [[1, -1, 2]]


async def test_too_few_answers_are_an_error() -> None:
    async def answer_nothing(_: Sequence[int]) -> list[int | Exception]:
        return []

    with pytest.raises(RuntimeError, match="0 answers to 1 items"):
        await Coalescer(answer_nothing, most=3).submit(1)


async def test_callers_do_not_outlive_the_task_that_answers(coalescer: Coalescer[int, int], calls: Calls) -> None:
    first = await first_under_way(coalescer, calls)
    (second,) = await submitted(coalescer, 2)
    assert coalescer.running is not None
    coalescer.running.cancel()
    assert all(
        isinstance(answer, asyncio.CancelledError)
        for answer in await asyncio.gather(first, second, return_exceptions=True)
    )
    calls.gate.set()
    assert await coalescer.submit(3) == 6


def test_end_of_the_event_loop_ends_what_is_under_way() -> None:
    ended: list[bool] = []

    async def call_and_leave() -> None:
        calls = Calls()
        shared = Coalescer(calls.double, most=3)

        async def caller() -> None:
            try:
                await shared.submit(1)
            finally:
                ended.append(True)

        calling = asyncio.create_task(caller())
        await calls.begun.wait()
        assert not calling.done()

    asyncio.run(call_and_leave())
    assert ended == [True]
