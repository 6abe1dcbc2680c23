"""Options that several commands share."""

from typing import Annotated

import typer

from cli.completion import complete_job, complete_queue, complete_task

__all__ = ["JobOption", "Json", "QueueName", "QueueOption", "TaskOption"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.", autocompletion=complete_queue)]
QueueOption = Annotated[
    str | None, typer.Option("--queue", "-q", help="Only this queue.", autocompletion=complete_queue)
]
TaskOption = Annotated[str | None, typer.Option(help="Only this task.", autocompletion=complete_task)]
JobOption = Annotated[str | None, typer.Option("--id", help="Only this job.", autocompletion=complete_job)]
