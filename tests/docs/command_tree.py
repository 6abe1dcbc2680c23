"""The commands of ``aegis-tasks``, as its parser sees them."""

from typing import Any, Final

import typer.main

from cli.main import app

__all__ = ["COMMANDS", "ROOT_COMMAND"]

ROOT_COMMAND: Final[Any] = typer.main.get_command(app)
COMMANDS: Final[dict[str, Any]] = {
    name: ROOT_COMMAND.get_command(None, name) for name in ROOT_COMMAND.list_commands(None)
}
"""Name -> command, in the order of the help."""
