"""Job and result dicts, in the shape stock arq 0.28 gives them, to and from JSON bytes.

A job is ``{"t", "f", "a", "k", "et"}``, a result adds ``s, r, st, ft, q, id``: try, function, args,
kwargs, enqueue time; success, result, start time, finish time, queue key, job id. The order is kept
so that a reader finds the task's name near the front. Further keys are allowed and ignored.

Stock arq takes the two functions of this module as ``job_serializer=`` and ``job_deserializer=``:

>>> from bridge.codec import job_deserializer, job_serializer
>>> raw = job_serializer({"t": None, "f": "greet", "a": ("Ada",), "k": {}, "et": 1700000000000})
>>> raw
b'{"t":null,"f":"greet","a":["Ada"],"k":{},"et":1700000000000}'
>>> job_deserializer(raw)["a"]
['Ada']

Values travel by value: datetimes, UUIDs, Decimals, bytes, enums, dataclasses and Structs are written
as msgspec writes them and come back typed by the task's signature. Nothing is ever written as pickle.
"""

import asyncio
import builtins
import pickle
import traceback
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from arq.jobs import SerializationError
from arq.worker import JobExecutionFailed

from bridge.errors import ResultNotEncodable, TaskFailed, UndecodablePayload

__all__ = [
    "Failure",
    "JobPayload",
    "ResultPayload",
    "decode_job",
    "decode_result",
    "describe_exception",
    "encode_value",
    "job_deserializer",
    "job_deserializer_accepting_pickle",
    "job_serializer",
]

PICKLE_MARK: Final = b"\x80"
TRACEBACK_LIMIT_CHARS: Final = 16_000


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An exception as it is stored: its class name, its text, the worker's traceback."""

    type: str
    message: str
    traceback: str = ""


class JobPayload(msgspec.Struct, frozen=True, kw_only=True):
    """A stored job, as every reader but a worker needs it."""

    t: int | None
    f: str
    a: list[Any]
    k: dict[str, Any]
    et: int


class ResultPayload(JobPayload, frozen=True, kw_only=True):
    """A stored result. ``r`` is the task's return value, or a `Failure` when ``s`` is false."""

    s: bool
    r: Any
    st: int
    ft: int
    q: str = ""
    id: str = ""


Payload = TypeVar("Payload")

encoder: Final = msgspec.json.Encoder()
job_decoder: Final = msgspec.json.Decoder(JobPayload)
result_decoder: Final = msgspec.json.Decoder(ResultPayload)
dict_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def encode_value(value: object) -> bytes:
    """The JSON of a task's return value.

    Raises:
        ResultNotEncodable: it holds something that JSON cannot.
    """
    try:
        return encoder.encode(value)
    except Exception as error:  # msgspec raises several kinds, and a property of the value may raise any
        raise ResultNotEncodable(
            f"the task returned a {type(value).__qualname__} that JSON cannot hold ({error}); return numbers, "
            "strings, lists, dicts, datetimes, UUIDs, Decimals, bytes, enums, dataclasses or Structs"
        ) from None


def job_serializer(data: dict[str, Any]) -> bytes:
    """The JSON of a job or result dict of arq.

    A failed result's exception is written as a `Failure`. A result that cannot be encoded becomes a
    failed one that says so, here rather than in arq, whose own message does not name the reason.

    Raises:
        TypeError: an argument of the job cannot be encoded (arq turns it into a SerializationError).
    """
    if "r" not in data:
        return encoder.encode(data)
    if not data["s"]:
        return encoder.encode({**data, "r": describe_exception(data["r"])})
    try:
        return encoder.encode(data)
    except Exception:
        return encoder.encode({**data, "s": False, "r": describe_unencodable(data["r"])})


def describe_unencodable(value: object) -> Failure:
    try:
        encode_value(value)
    except ResultNotEncodable as error:
        return describe_exception(error)
    return Failure(type=ResultNotEncodable.__name__, message="the job's arguments and result cannot be encoded")


def describe_exception(error: object) -> Failure:
    """The stored form of what arq calls the result of a failed job: an exception, or a plain string."""
    if isinstance(error, SerializationError) and isinstance(error.__cause__, UndecodablePayload):
        error = error.__cause__  # arq's own text does not say what to do
    if not isinstance(error, BaseException):
        return Failure(type=SerializationError.__name__, message=str(error))
    try:
        message = str(error)
    except Exception:  # an exception's own __str__ may raise
        message = ""
    text = "".join(traceback.format_exception(error)) if error.__traceback__ else ""
    return Failure(
        type=type(error).__name__, message=encodable(message), traceback=encodable(text[-TRACEBACK_LIMIT_CHARS:])
    )


def encodable(text: str) -> str:
    """The text without lone surrogates, as file names that are not UTF-8 have them: JSON cannot hold those."""
    return text.encode(errors="replace").decode()


def job_deserializer(raw: bytes) -> dict[str, Any]:
    """The dict of a job or result that `job_serializer` wrote, checked; a failed result's exception is rebuilt.

    Builtin exceptions and arq's own come back as themselves, any other as `TaskFailed` with its name.

    Raises:
        UndecodablePayload: the bytes are pickle, not JSON, or not of arq's shape.
    """
    if raw[:1] == PICKLE_MARK:
        raise UndecodablePayload(
            "the payload is pickled, and pickle can run code: it is not read. Give the producer "
            "job_serializer=bridge.codec.job_serializer, or set AEGIS_ACCEPT_PICKLE=true while you migrate"
        )
    try:
        data = dict_decoder.decode(raw)
        msgspec.convert(data, ResultPayload if "s" in data else JobPayload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodablePayload(f"the payload is not a job or result as arq writes them: {error}") from None
    if data.get("s") is False:
        data["r"] = rebuild_exception(read_failure(data["r"]))
    return data


def job_deserializer_accepting_pickle(raw: bytes) -> dict[str, Any]:
    """Like `job_deserializer`, but pickled payloads are executed: for trusted producers during a migration."""
    if raw[:1] == PICKLE_MARK:
        data: dict[str, Any] = pickle.loads(raw)  # noqa: S301 - only where AEGIS_ACCEPT_PICKLE says so
        return data
    return job_deserializer(raw)


def decode_job(raw: bytes, *, accept_pickle: bool = False) -> JobPayload:
    """The stored job, typed.

    Raises:
        UndecodablePayload: neither our codec nor, where that is accepted, pickle wrote it.
    """
    return decode(job_decoder, raw, accept_pickle=accept_pickle)


def decode_result(raw: bytes, *, accept_pickle: bool = False) -> ResultPayload:
    """The stored result, typed; ``r`` is a `Failure` when ``s`` is false.

    Raises:
        UndecodablePayload: neither our codec nor, where that is accepted, pickle wrote it.
    """
    payload = decode(result_decoder, raw, accept_pickle=accept_pickle)
    return payload if payload.s else msgspec.structs.replace(payload, r=read_failure(payload.r))


def decode(decoder: msgspec.json.Decoder[Payload], raw: bytes, *, accept_pickle: bool) -> Payload:
    try:
        if accept_pickle and raw[:1] == PICKLE_MARK:
            raw = job_serializer(job_deserializer_accepting_pickle(raw))
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        hint = "it is pickled" if raw[:1] == PICKLE_MARK else str(error)
        raise UndecodablePayload(f"the payload is not a job or result of ours: {hint}") from None


def read_failure(value: object) -> Failure:
    try:
        return msgspec.convert(value, Failure)
    except msgspec.ValidationError:
        return Failure(type="Exception", message=str(value))


def rebuildable_exceptions() -> dict[str, Callable[[str], BaseException]]:
    classes = [value for value in vars(builtins).values() if isinstance(value, type) and issubclass(value, Exception)]
    classes += [asyncio.CancelledError, JobExecutionFailed, SerializationError]  # type: ignore[list-item]
    return {cls.__name__: cls for cls in classes}


REBUILDABLE: Final = rebuildable_exceptions()


def rebuild_exception(failure: Failure) -> BaseException:
    """Only classes of a fixed list are instantiated: a payload must not choose what is imported."""
    try:
        error = REBUILDABLE[failure.type](failure.message)
    except (KeyError, TypeError):  # not in the list, or it takes more than a message (UnicodeDecodeError)
        error = TaskFailed(failure.type, failure.message, failure.traceback)
    if failure.traceback:
        error.add_note(f"In the worker:\n{failure.traceback}")
    return error
