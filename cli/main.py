"""The ``aegis-tasks`` command: one file a noun, imported when its command is asked for."""

import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
import typer.core
import typer.main

from cli import gateway_options

__all__ = ["app", "main"]

COMMANDS: Final = {
    "serve": "cli.serve",
    "gateway": "cli.gateway",
    "worker": "cli.worker",
    "enqueue": "cli.enqueue",
    "status": "cli.jobs",
    "result": "cli.jobs",
    "abort": "cli.jobs",
    "retry": "cli.jobs",
    "jobs": "cli.job_list",
    "dead": "cli.dead",
    "burst": "cli.burst",
    "tasks": "cli.tasks",
    "queues": "cli.queues",
    "pause": "cli.queues",
    "resume": "cli.queues",
    "workers": "cli.workers",
    "events": "cli.events",
    "verify": "cli.verify",
    "tokens": "cli.tokens",
    "health": "cli.health",
    "top": "cli.top",
    "bench": "cli.bench",
}
"""Command -> the module whose function, or group of commands, of that name it is. Importing all of them would cost each
half a second."""

NEED_REDIS: Final = {"serve", "gateway", "worker", "burst", "tokens", "verify", "bench"}
"""Commands that no gateway can stand in for."""


class Named:
    """All that completion needs of a command that it offers."""

    hidden = False

    def get_short_help_str(self, limit: int = 0) -> str:
        """Nothing: what a command does is known once it is imported."""
        return ""


class CommandsOnDemand(typer.core.TyperGroup):
    """A group that imports a command's module when the command is used, or described in the help."""

    is_offering = False

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The names that begin so, without an import of any of them."""
        self.is_offering = True
        try:
            return super().shell_complete(ctx, incomplete)
        finally:
            self.is_offering = False

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, ``None`` if there is none."""
        if cmd_name not in COMMANDS:
            return None
        if self.is_offering:
            return Named()
        found = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_group(found)
        else:
            single = typer.Typer(rich_markup_mode="markdown", context_settings=CONTEXT, add_completion=False)
            single.command(cmd_name)(found)
            command = typer.main.get_command(single)
        command.name = cmd_name
        options = [parameter for parameter in self.params if parameter.name in {"url", "token"}]
        gateway_options.add_to(command, options, needs_redis=cmd_name in NEED_REDIS)
        return command


CONTEXT: Final = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="aegis-tasks",
    cls=CommandsOnDemand,
    help="Background tasks on arq queues: enqueue them, run them, and watch every change of their state.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings=CONTEXT,
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help=gateway_options.URL_HELP, callback=gateway_options.remember, expose_value=False, metavar="URL"
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help=gateway_options.TOKEN_HELP,
            callback=gateway_options.remember,
            expose_value=False,
            metavar="TOKEN",
        ),
    ] = None,
) -> None:
    """Options of every command; `main` reads ``--debug``."""


def main() -> None:
    """Runs the command and turns its errors into one line and an exit code."""
    if not all(map(is_text, sys.argv)):
        typer.secho("aegis-tasks: an argument is not valid UTF-8", fg="red", err=True)
        sys.exit(2)
    gateway_options.forget()
    try:
        app()
    except Exception as error:
        from cli.exit_codes import exit_code_of, one_line

        code = exit_code_of(error)
        if code is None or "--debug" in sys.argv:
            raise
        typer.secho(f"aegis-tasks: {one_line(error)}", fg="red", err=True)
        sys.exit(code)


def is_text(argument: str) -> bool:
    """Whether the shell's bytes could be decoded."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    main()
