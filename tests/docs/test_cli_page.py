"""``docs/reference/cli.md`` lists the commands and options as the command has them."""

from typing import Any, Final

import pytest

from cli.exit_codes import ExitCode
from tests.docs.command_tree import COMMANDS, ROOT_COMMAND
from tests.docs.pages import ROOT, Table, plain, read_page

PAGE: Final = read_page(ROOT / "docs/reference/cli.md")
NAMES_OF_ARGUMENTS: Final = {"queues": "[QUEUE]...", "id": "ID", "ids": "[ID]..."}


def test_page_has_a_section_for_every_command_in_order() -> None:
    sections = [heading for heading in PAGE.headings if heading.startswith("aegis-tasks")]
    assert sections == ["aegis-tasks", *(f"aegis-tasks {name}" for name in COMMANDS)]


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_section_lists_arguments_and_options_with_defaults(name: str) -> None:
    command = COMMANDS[name] if name else ROOT_COMMAND
    table = table_below(f"aegis-tasks {name}".strip())
    told = {tuple(plain(row[table.columns[0]]).split(", ")): plain(row["default"]) for row in table.rows}
    assert told == {
        names_of(parameter): default_of(parameter) for parameter in command.params if not is_hidden(parameter)
    }


def is_hidden(parameter: Any) -> bool:
    """Whether it is for our own processes only."""
    return bool(getattr(parameter, "hidden", False))


def table_below(heading: str) -> Table:
    (table,) = [table for table in PAGE.tables if table.heading == heading]
    return table


def names_of(parameter: Any) -> tuple[str, ...]:
    if parameter.param_type_name == "argument":
        return (NAMES_OF_ARGUMENTS.get(parameter.name, parameter.name.upper()),)
    return tuple(parameter.opts)


def default_of(parameter: Any) -> str:
    return "" if parameter.default is None or parameter.default is False else str(parameter.default)


def test_exit_codes_are_those_of_the_code() -> None:
    table = PAGE.table("code", "means")
    assert [int(row["code"]) for row in table.rows] == [code.value for code in ExitCode]
