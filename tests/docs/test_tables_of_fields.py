"""Tables marked with ``<!-- fields: module.Struct -->`` list exactly the fields of that Struct."""

from importlib import import_module
from typing import Any, Final

import msgspec
import pytest
from msgspec import inspect

from tests.docs.pages import PAGES, Table, plain

JSON_TYPES: Final[dict[type[inspect.Type], str]] = {
    inspect.StrType: "string",
    inspect.DateTimeType: "string",
    inspect.LiteralType: "string",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "boolean",
    inspect.ListType: "array",
    inspect.DictType: "object",
    inspect.StructType: "object",
    inspect.AnyType: "any",
}
MARKED: Final = [
    pytest.param(table, id=table.note)
    for page in PAGES
    for table in page.tables
    if table.note.startswith("bridge.") and "," not in table.note
]


def read_struct(path: str) -> inspect.StructType:
    module, _, name = path.rpartition(".")
    struct: Any = getattr(import_module(module), name)
    described = inspect.type_info(struct)
    assert isinstance(described, inspect.StructType)
    return described


def core(described: inspect.Type) -> inspect.Type:
    """The type without its limits and without what stands for "nothing"."""
    while isinstance(described, inspect.Metadata | inspect.UnionType):
        if isinstance(described, inspect.Metadata):
            described = described.type
        else:
            (described,) = [one for one in described.types if not isinstance(one, inspect.NoneType)]
    return described


def first_column(table: Table) -> list[str]:
    return [plain(row[table.columns[0]]) for row in table.rows]


@pytest.mark.parametrize("table", MARKED)
def test_table_lists_exactly_the_fields(table: Table) -> None:
    assert first_column(table) == [one.encode_name for one in read_struct(table.note).fields]


@pytest.mark.parametrize("table", MARKED)
def test_table_tells_which_fields_may_be_missing(table: Table) -> None:
    expected = {one.encode_name: "" if one.required else "optional" for one in read_struct(table.note).fields}
    assert dict(zip(first_column(table), [row["optional"] for row in table.rows], strict=True)) == expected


@pytest.mark.parametrize("table", MARKED)
def test_table_gives_the_type_in_json(table: Table) -> None:
    expected = {one.encode_name: JSON_TYPES[type(core(one.type))] for one in read_struct(table.note).fields}
    assert dict(zip(first_column(table), [row["type"] for row in table.rows], strict=True)) == expected


@pytest.mark.parametrize("table", MARKED)
def test_table_names_every_value_of_a_closed_set(table: Table) -> None:
    for one, row in zip(read_struct(table.note).fields, table.rows, strict=True):
        allowed = core(one.type)
        if isinstance(allowed, inspect.LiteralType) and "as above" not in row[table.columns[-1]]:
            assert [value for value in allowed.values if f"`{value}`" not in row[table.columns[-1]]] == []


def test_every_body_of_the_gateway_has_a_table() -> None:
    """A new Struct of the routes, or of what they return, needs a table here."""
    modules = [
        import_module(f"bridge.gateway.{name}")
        for name in ("task_routes", "enqueue_routes", "health_routes", "problems")
    ]
    bodies = {
        f"{value.__module__}.{value.__name__}"
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }
    in_words = {"bridge.gateway.health_routes.Alive", "bridge.gateway.health_routes.Readiness"}
    in_words |= {"bridge.enqueue.Replayed", "bridge.settings.Settings"}
    assert bodies - in_words <= {str(param.values[0].note) for param in MARKED}  # type: ignore[union-attr]
