"""Makes what ``cli.md`` says of each command, from the commands themselves: ``make docs``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer.main

from cli.main import NEED_REDIS, app

__all__ = ["PAGE", "page"]

PAGE: Final = Path(__file__).with_name("cli.md")
MARK: Final = "<!-- From here on the page is made from the commands, by `make docs`. -->\n"
EXAMPLE: Final = re.compile(r"\*\*Examples?:\*\*(.*)", re.DOTALL)
THROUGH_A_GATEWAY: Final = {"url", "token"}


def page(old: str) -> str:
    """The page: its part above the mark as it was, the rest new."""
    head = old.partition(MARK)[0]
    root: Any = typer.main.get_command(app)
    sections = [section(name, command) for name, command in [("", root), *commands_of(root)]]
    return head + MARK + "".join(sections)


def commands_of(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, in the order of the help."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands_of(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def section(name: str, command: Any) -> str:
    """What the command does, examples, and its options."""
    text, examples = read_help(command.help or "")
    parts = [f"## {f'aegis-tasks {name}'.strip()}", text if name else "Options before the command:"]
    if examples:
        parts.append("\n".join(["```sh", *examples, "```"]))
    parts.append(table(command, is_root=not name))
    if name and name.partition(" ")[0] not in NEED_REDIS:
        parts.append("Works [through a gateway](#through-a-gateway) too.")
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def read_help(text: str) -> tuple[str, list[str]]:
    """The text without its examples, and these."""
    found = EXAMPLE.search(text)
    if not found:
        return text.strip(), []
    return text[: found.start()].strip(), [" ".join(one.split()) for one in re.findall(r"`([^`]+)`", found[1])]


def table(command: Any, *, is_root: bool) -> str:
    """Arguments and options, but for those that every command has."""
    rows = [
        f"| {names_of(parameter)} | {default_of(parameter)} | {meaning_of(parameter)} |"
        for parameter in command.params
        if not parameter.hidden and (is_root or parameter.name not in THROUGH_A_GATEWAY)
    ]
    if not rows:
        return ""
    return "\n".join(["| argument or option | default | meaning |", "| --- | --- | --- |", *rows])


def names_of(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = parameter.metavar or parameter.name.upper()
        return f"`{name if parameter.required or name.startswith('[') else f'[{name}]'}`"
    shown = ", ".join(f"`{name}`" for name in parameter.opts)
    return shown if parameter.metavar is None else f"{shown} `{parameter.metavar}`"


def default_of(parameter: Any) -> str:
    default = parameter.default
    return "" if default is None or default is False or default == "" else f"`{default}`"


def meaning_of(parameter: Any) -> str:
    return " ".join((parameter.help or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
