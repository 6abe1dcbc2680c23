"""What a job's producer asked of its runs: a timeout and a number of tries of its own, and the trace they belong to."""

from contextvars import ContextVar
from typing import Final, NamedTuple

__all__ = ["ASKED", "ASKED_OF_STOCK", "NOTHING_ASKED", "Asked", "read_asked"]

ASKED: Final = "aegis_asked"
"""The entry of a ``ctx`` that holds what was asked; it is missing where nothing was."""


class Asked(NamedTuple):
    """What was asked of one job.

    Attributes:
        timeout_s: an attempt that takes longer is cancelled; ``None`` is as its task says.
        max_tries: attempts, the first included; ``None`` is as its task says.
        trace: a traceparent, ``""`` without one.
    """

    timeout_s: float | None = None
    max_tries: int | None = None
    trace: str = ""


NOTHING_ASKED: Final = Asked()
ASKED_OF_STOCK: Final[ContextVar[Asked]] = ContextVar("aegis_asked", default=NOTHING_ASKED)
"""The same under the stock ``arq`` command, which reads a body in the task that it then starts the job from."""


def read_asked(timeout_s: object, max_tries: object, trace: object) -> Asked:
    """What the keys of a body ask for.

    Other producers may have keys of these names that hold something else: it is ignored.
    """
    return Asked(
        timeout_s if isinstance(timeout_s, int | float) and timeout_s > 0 and timeout_s is not True else None,
        max_tries if type(max_tries) is int and max_tries > 0 else None,
        trace if isinstance(trace, str) else "",
    )
