"""``docs/reference/cli.md`` is made from the commands, and each of them shows how it is used."""

import shlex
from typing import Final

import pytest

from cli import gateway_options
from cli.exit_codes import ExitCode
from docs.reference.make_cli_page import PAGE, page, read_help
from tests.docs.command_tree import COMMANDS
from tests.docs.pages import ROOT, read_page

READ: Final = read_page(ROOT / "docs/reference/cli.md")


def test_page_is_what_the_commands_make_of_it() -> None:
    written = PAGE.read_text()
    assert page(written) == written, "run make docs"


def test_page_has_a_section_for_every_command_in_order() -> None:
    sections = [heading for heading in READ.headings if heading.startswith("aegis-tasks")]
    assert sections == ["aegis-tasks", *(f"aegis-tasks {name}" for name in COMMANDS)]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_that_can_be_typed(name: str) -> None:
    _, examples = read_help(COMMANDS[name].help)
    assert examples
    for example in examples:
        gateway_options.forget()
        words = shlex.split(example.partition(" < ")[0])
        begin = ["aegis-tasks", *name.split()]
        assert words[: len(begin)] == begin
        COMMANDS[name].make_context(name, words[len(begin) :])  # raises a usage error that says what is wrong


def test_exit_codes_are_those_of_the_code() -> None:
    table = READ.table("code", "means")
    assert [int(row["code"]) for row in table.rows] == [code.value for code in ExitCode]
