"""``noop_task``: does nothing, so that what a load test measures is the cost of running a job."""

from typing import Any

__all__ = ["noop_task"]


async def noop_task(ctx: dict[str, Any]) -> None:
    """Does nothing.

    Args:
        ctx: arq's job context.
    """
