"""Examples of arguments, from signatures of many kinds."""

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from msgspec import Meta

from bridge.arguments import Signature
from bridge.catalog import Task
from bridge.gateway.task_examples import example_arguments


class Colour(enum.Enum):
    RED = "red"


class Size(TypedDict):
    width: int


@dataclass
class Point:
    x: float
    y: float = 0


class Tree(msgspec.Struct):
    children: list["Tree"]


class Shape(msgspec.Struct, tag=True, rename="camel"):
    corner_count: int


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: str


def task_of(function: Callable[..., Any]) -> Task:
    signature = Signature(function, task_name="it")
    return Task(name="it", queue="mail", summary="", signature=signature, timeout_s=1, max_tries=1)


KINDS: list[Any] = [
    int,
    float,
    bool,
    str,
    bytes,
    None,
    Any,
    datetime,
    Annotated[datetime, Meta(tz=True)],
    Annotated[datetime, Meta(tz=False)],
    date,
    time,
    timedelta,
    uuid.UUID,
    Decimal,
    Colour,
    Literal["a", "b"],
    int | None,
    list[int],
    Annotated[list[str], Meta(min_length=3)],
    set[int],
    tuple[int, str],
    tuple[int, ...],
    dict[str, int],
    dict[int, Point],
    Size,
    Point,
    Shape,
    Pair,
    Annotated[int, Meta(ge=5, le=7)],
    Annotated[int, Meta(gt=5, lt=7)],
    Annotated[int, Meta(lt=0)],
    Annotated[int, Meta(le=-3)],
    Annotated[int, Meta(ge=3, multiple_of=3)],
    Annotated[float, Meta(gt=0, le=1)],
    Annotated[str, Meta(min_length=20, max_length=20)],
    Annotated[str, Meta(max_length=2)],
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_example_of_a_type_is_accepted(kind: Any) -> None:
    async def function(ctx: dict[str, Any], value: Any) -> None: ...

    function.__annotations__["value"] = kind
    task = task_of(function)
    arguments = example_arguments(task)
    assert arguments is not None
    assert arguments.keys() == {"value"}
    task.signature.convert([], msgspec.json.decode(msgspec.json.encode(arguments)))


def test_defaults_are_shown() -> None:
    async def function(
        ctx: dict[str, Any], must: int, size: int = 3, colour: Colour = Colour.RED, x: None = None
    ) -> None: ...

    assert example_arguments(task_of(function)) == {"must": 1, "size": 3, "colour": "red"}


def test_default_that_its_own_type_refuses_is_left_out() -> None:
    nothing: Any = None

    async def function(ctx: dict[str, Any], must: int, size: int = nothing) -> None: ...

    assert example_arguments(task_of(function)) == {"must": 1}


@pytest.mark.parametrize("kind", [Annotated[str, Meta(pattern="^[0-9]{4}$")], Tree])
def test_type_that_does_not_tell_how_a_value_looks_has_no_example(kind: Any) -> None:
    async def function(ctx: dict[str, Any], value: Any) -> None: ...

    function.__annotations__["value"] = kind
    assert example_arguments(task_of(function)) is None
