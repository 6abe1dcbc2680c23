"""The commands of ``aegis-tasks``, as its parser sees them."""

from collections.abc import Iterator
from typing import Any, Final

import typer.main

from cli.main import app

__all__ = ["COMMANDS", "ROOT_COMMAND"]

ROOT_COMMAND: Final[Any] = typer.main.get_command(app)


def commands_of(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands_of(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


COMMANDS: Final[dict[str, Any]] = dict(commands_of(ROOT_COMMAND))
"""Name (``enqueue``, ``dead list``) -> command, in the order of the help."""
