"""Options that several commands share."""

from typing import Annotated

import typer

__all__ = ["Json", "QueueOption"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
QueueOption = Annotated[str | None, typer.Option("--queue", "-q", help="The queue, by its short name.")]
