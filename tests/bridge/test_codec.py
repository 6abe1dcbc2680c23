import asyncio
import contextlib
import dataclasses
import enum
import pickle
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from arq.jobs import deserialize_job, deserialize_result, serialize_job, serialize_result
from arq.worker import JobExecutionFailed
from hypothesis import given
from hypothesis import strategies as st

from bridge.codec import (
    decode_job,
    decode_result,
    job_deserializer,
    job_deserializer_accepting_pickle,
    job_serializer,
)
from bridge.errors import TaskFailed, UndecodablePayload

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def result_bytes(result: Any, *, success: bool = True) -> bytes:
    raw = serialize_result(
        "task",
        (1,),
        {"b": 2},
        1,
        1000,
        success,
        result,
        2000,
        3000,
        "ref",
        "arq:queue",
        "id",
        serializer=job_serializer,
    )
    assert raw is not None
    return raw


@given(args=st.lists(JSON_VALUES), kwargs=st.dictionaries(st.text(), JSON_VALUES))
def test_job_comes_back_as_it_was(args: list[Any], kwargs: dict[str, Any]) -> None:
    raw = serialize_job("task", tuple(args), kwargs, None, 1234, serializer=job_serializer)
    job = deserialize_job(raw, deserializer=job_deserializer)
    assert (job.function, list(job.args), job.kwargs) == ("task", args, kwargs)


@given(result=JSON_VALUES)
def test_result_comes_back_as_it_was(result: Any) -> None:
    found = deserialize_result(result_bytes(result), deserializer=job_deserializer)
    assert found.success
    assert found.result == result


def test_task_name_comes_before_the_arguments() -> None:
    raw = job_serializer({"t": None, "f": "greet", "a": ("x",), "k": {"y": 1}, "et": 5})
    assert raw == b'{"t":null,"f":"greet","a":["x"],"k":{"y":1},"et":5}'


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int


class Order(msgspec.Struct):
    price: Decimal


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (datetime(2026, 1, 31, 12, tzinfo=UTC), datetime),
        (uuid.UUID(int=7), uuid.UUID),
        (Decimal("1.10"), Decimal),
        (b"\x00\xff", bytes),
        (Colour.RED, Colour),
        (Point(1), Point),
        (Order(Decimal("9.99")), Order),
    ],
)
def test_typed_values_travel_by_value(value: Any, type_: type) -> None:
    job = decode_job(job_serializer({"t": None, "f": "task", "a": [value], "k": {}, "et": 1}))
    assert msgspec.convert(job.a[0], type_) == value


def test_unencodable_result_becomes_a_failure_that_says_why() -> None:
    payload = decode_result(result_bytes({"handle": object()}))
    assert not payload.s
    assert payload.r.type == "ResultNotEncodable"
    assert "dict that JSON cannot hold" in payload.r.message
    assert "object" in payload.r.message


def test_result_larger_than_64_bits_is_kept() -> None:
    payload = decode_result(result_bytes({"n": 2**63}))
    assert payload.r == {"n": 2**63}


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyError("k"), TimeoutError("late"), asyncio.CancelledError(), JobExecutionFailed("x")]
)
def test_known_exception_comes_back_as_itself(error: BaseException) -> None:
    found = deserialize_result(result_bytes(raised(error), success=False), deserializer=job_deserializer)
    assert type(found.result) is type(error)


class CustomError(Exception):
    pass


def test_unknown_exception_comes_back_with_its_name_and_traceback() -> None:
    found = deserialize_result(result_bytes(raised(CustomError("why")), success=False), deserializer=job_deserializer)
    assert isinstance(found.result, TaskFailed)
    assert (found.result.type, found.result.message) == ("CustomError", "why")
    assert "in raised" in found.result.traceback


def test_exception_that_takes_more_than_a_message_comes_back_as_task_failed() -> None:
    error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")
    found = deserialize_result(result_bytes(raised(error), success=False), deserializer=job_deserializer)
    assert isinstance(found.result, TaskFailed)
    assert found.result.type == "UnicodeDecodeError"


def test_exception_whose_text_fails_is_stored_without_it() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert decode_result(result_bytes(Mute(), success=False)).r.type == "Mute"


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("pickle was executed",))


def test_pickle_is_refused_without_being_read() -> None:
    with pytest.raises(UndecodablePayload, match="AEGIS_ACCEPT_PICKLE"):
        job_deserializer(pickle.dumps(Bomb()))


def test_pickle_is_read_where_the_caller_says_so() -> None:
    data: dict[str, Any] = {"t": None, "f": "task", "a": (1,), "k": {}, "et": 1}
    assert job_deserializer_accepting_pickle(pickle.dumps(data)) == data
    assert decode_job(pickle.dumps(data), accept_pickle=True).f == "task"


def test_pickled_result_of_a_stock_worker_is_read_where_accepted() -> None:
    raw = serialize_result("t", (), {}, 1, 1, False, ValueError("no"), 2, 3, "ref", "arq:queue", "id")
    assert raw is not None
    assert decode_result(raw, accept_pickle=True).r.type == "ValueError"
    with pytest.raises(UndecodablePayload, match="pickled"):
        decode_result(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff",
        b'{"f":1,"a":[],"k":{},"et":1,"t":null}',
        b"[" * 100_000,
        b'{"f":"x","a":{},"k":{},"et":1,"t":1}',
    ],
)
def test_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(UndecodablePayload):
        job_deserializer(raw)
    with pytest.raises(UndecodablePayload):
        decode_job(raw)
    with pytest.raises(UndecodablePayload):
        decode_result(raw)


@given(st.binary())
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    for read in (job_deserializer, decode_job, decode_result):
        with contextlib.suppress(UndecodablePayload):
            read(raw)


def test_further_keys_are_ignored() -> None:
    raw = b'{"t":null,"f":"task","a":[],"k":{},"trace":"00-abc","et":1}'
    assert decode_job(raw).f == "task"
    assert job_deserializer(raw)["f"] == "task"
