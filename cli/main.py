"""The ``aegis-tasks`` command: one function a subcommand, one file a noun."""

import sys
from typing import Annotated

import typer

from bridge.errors import AegisError
from cli import burst, enqueue, events, gateway, health, jobs, queues, serve, tasks, worker
from cli.exit_codes import exit_code_of
from cli.printing import error_console

__all__ = ["app", "main"]

app = typer.Typer(
    name="aegis-tasks",
    help="Background tasks on arq queues: enqueue them, run them, and watch every change of their state.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    serve.serve,
    gateway.gateway,
    worker.worker,
    enqueue.enqueue,
    jobs.status,
    jobs.result,
    burst.burst,
    tasks.tasks,
    queues.queues,
    events.events,
    health.health,
):
    app.command()(command)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; `main` reads ``--debug``."""


def main() -> None:
    """Runs the command and turns its errors into one line and an exit code."""
    try:
        app()
    except Exception as error:
        code = exit_code_of(error)
        if "--debug" in sys.argv or code is None:
            raise
        error_console.print(f"aegis-tasks: {describe(error)}", style="red", markup=False, soft_wrap=True)
        sys.exit(code)


def describe(error: Exception) -> str:
    if isinstance(error, AegisError):
        return str(error)
    return f"Redis went away: {error}"  # every other error with a code is one of redis-py's


if __name__ == "__main__":
    main()
