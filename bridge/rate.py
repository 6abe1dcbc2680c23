"""How many requests in what time: ``100/s``."""

import re
from typing import Final

import msgspec

__all__ = ["Rate", "read_rate"]

TEXT: Final = re.compile(r"([1-9][0-9]{0,8})/([smh])", re.ASCII)
SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """So many requests in a period; all of them may come at once.

    Attributes:
        text: as it was written.
    """

    text: str
    requests: int
    period_us: int


def read_rate(text: str) -> Rate:
    """The rate that is written so: a number, a slash, and ``s``, ``m`` or ``h``.

    Raises:
        ValueError: it is not written so.
    """
    found = TEXT.fullmatch(text)
    if not found:
        raise ValueError("write a number and s, m or h, such as 100/s")
    return Rate(text=text, requests=int(found[1]), period_us=SECONDS[found[2]] * 1_000_000)
