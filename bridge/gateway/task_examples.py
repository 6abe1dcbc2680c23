"""An example of a task's arguments, made from its signature."""

import math
from typing import Any

import msgspec
from msgspec import NODEFAULT, inspect

from bridge.catalog import Task
from bridge.errors import InvalidArguments

__all__ = ["example_arguments"]

DEEPEST = 8
"""A type may contain itself."""


def example_arguments(task: Task) -> dict[str, Any] | None:
    """Keyword arguments that the task accepts; ``None`` where its types do not tell how one looks.

    What may be left out has its default, if JSON can hold that.
    """
    described = inspect.type_info(task.signature.struct)
    assert isinstance(described, inspect.StructType)  # noqa: S101 - a signature makes one
    required = {field.name: example_of(field.type) for field in described.fields if field.required}
    defaults = {field.name: field.default for field in described.fields if field.default is not NODEFAULT}
    for arguments in ({**required, **defaults}, required):
        try:
            plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(arguments))
            task.signature.convert([], plain)
        except (InvalidArguments, msgspec.MsgspecError, TypeError, ValueError):
            continue
        return {name: value for name, value in plain.items() if value is not None or name in required}
    return None


def example_of(described: inspect.Type, depth: int = 0) -> Any:
    """A value of that type as JSON has it, as far as one is easily found."""
    if depth > DEEPEST:
        return None
    match described:
        case inspect.Metadata():
            return example_of(described.type, depth)
        case inspect.UnionType():
            return example_of(described.types[0], depth)
        case inspect.IntType() | inspect.FloatType():
            return number_within(described)
        case inspect.StrType():
            length = max(described.min_length or 0, min(described.max_length or 7, 7))
            return ("example" * math.ceil(length / 7))[:length]
        case inspect.BoolType():
            return True
        case inspect.DateTimeType():
            return "2026-01-31T12:00:00Z" if described.tz is not False else "2026-01-31T12:00:00"
        case inspect.DateType():
            return "2026-01-31"
        case inspect.TimeType():
            return "12:00:00Z" if described.tz is not False else "12:00:00"
        case inspect.TimeDeltaType():
            return "PT1H"
        case inspect.UUIDType():
            return "0198c5a1-f2b8-7f3d-8e64-a7c0d1e2f3a4"
        case inspect.DecimalType():
            return "1.50"
        case inspect.BytesType() | inspect.ByteArrayType():
            return "ZXhhbXBsZQ=="
        case inspect.LiteralType():
            return described.values[0]
        case inspect.EnumType():
            return next(iter(described.cls)).value
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            return [example_of(described.item_type, depth + 1)] * max(1, described.min_length or 0)
        case inspect.TupleType():
            return [example_of(item, depth + 1) for item in described.item_types]
        case inspect.DictType():
            return {example_of(described.key_type, depth + 1): example_of(described.value_type, depth + 1)}
        case inspect.StructType() if described.array_like:
            return [example_of(field.type, depth + 1) for field in described.fields]
        case inspect.StructType():
            tag = {described.tag_field: described.tag} if described.tag_field else {}
            return tag | example_of_fields(described.fields, depth)
        case inspect.TypedDictType() | inspect.DataclassType():
            return example_of_fields(described.fields, depth)
        case inspect.AnyType():
            return "anything"
        case _:
            return None


def example_of_fields(fields: tuple[inspect.Field, ...], depth: int) -> dict[str, Any]:
    return {field.encode_name: example_of(field.type, depth + 1) for field in fields if field.required}


def number_within(described: inspect.IntType | inspect.FloatType) -> int | float:
    step = described.multiple_of or 1
    least = described.ge if described.ge is not None else None if described.gt is None else described.gt + step
    most = described.le if described.le is not None else None if described.lt is None else described.lt - step
    wanted = step if least is None else max(step, least)
    return wanted if most is None else min(wanted, most)
