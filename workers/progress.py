"""``report_progress``: how a task tells how far it is, wherever it runs."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, Final, Protocol

from msgspec import UNSET

from bridge.codec import encodable
from bridge.events import JobProgressed

__all__ = ["MESSAGE_LIMIT_CHARS", "PROGRESS", "report_progress"]

PROGRESS: Final = "aegis_progress"
"""The entry of a ``ctx`` that takes what its task reports."""
MESSAGE_LIMIT_CHARS: Final = 200
LARGEST: Final = 2**53
"""Above, JSON readers that know floats only would read another number."""


class Listener(Protocol):
    """Takes what tasks report, in any thread, at once."""

    def report(self, ctx: Mapping[Any, Any], progress: JobProgressed) -> None:
        """The latest progress of the attempt that has this ``ctx``."""


def report_progress(
    ctx: Mapping[Any, Any], current: float, total: float | None = None, message: str | None = None
) -> None:
    """The job's status shows this progress soon, and a ``job.progressed`` event tells of it.

    It may be called as often as one likes, from ``async def`` tasks, in threads and in child processes. At most
    about four reports a second of a job are written: the latest ones, and always the last. It never
    waits, and a Redis that is away is not noticed here. With a ``ctx`` that no worker of ours made, it does nothing.

    >>> async def resize_all(ctx, paths):
    ...     for done, path in enumerate(paths):
    ...         report_progress(ctx, done, len(paths), f"resizing {path}")

    Args:
        ctx: what the worker gave to the task.
        current: how much is done, from 0.
        total: of how much, if that is known.
        message: what is done now, for people; beyond 200 characters it is cut.

    Raises:
        TypeError: a number or the message is something else.
        ValueError: a number is negative, not finite, or above 2 ** 53.
    """
    progress = JobProgressed(
        current=checked("current", current),
        total=UNSET if total is None else checked("total", total),
        message=UNSET if message is None else cut(message),
    )
    listener: Listener | None = ctx.get(PROGRESS)
    if listener is not None:
        listener.report(ctx, progress)


def checked(name: str, value: object) -> float:
    """The number as JSON can hold it; one of numpy's, too."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"report_progress: {name} must be a number, not {type(value).__name__}")
    if not 0 <= value <= LARGEST:  # type: ignore[operator]  # numbers.Real has no types
        raise ValueError(f"report_progress: {name} must be a number from 0 to 2 ** 53, not {value!r}")
    return int(value) if isinstance(value, Integral) else float(value)


def cut(message: object) -> str:
    if not isinstance(message, str):
        raise TypeError(f"report_progress: message must be a str, not {type(message).__name__}")
    return encodable(message[:MESSAGE_LIMIT_CHARS])
