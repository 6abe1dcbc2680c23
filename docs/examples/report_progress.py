"""A task that tells how far it is."""

from typing import Any

from workers.progress import report_progress
from workers.task import task


def resize_all(ctx: dict[str, Any], paths: list[str], width: int) -> int:
    """Resizes pictures, one after another."""
    for done, path in enumerate(paths):
        report_progress(ctx, done, len(paths), f"resizing {path} to {width}")
        ...  # the work
    report_progress(ctx, len(paths), len(paths))
    return len(paths)


functions = [task(resize_all, timeout=600)]
