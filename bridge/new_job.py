"""What a new job is made of: its id and its body."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from bridge.nesting import check_depth

__all__ = ["job_body", "new_job_id"]

encoder: Final = msgspec.json.Encoder()


def new_job_id() -> str:
    """A UUIDv7 (RFC 9562) without dashes: ids sort by the time they were made, so equal due times run in order."""
    unix_ms = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    value = unix_ms << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return f"{value:032x}"


def job_body(
    task_name: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, job_try: int | None = None
) -> tuple[bytes, bytes]:
    """arq's job dict as JSON, cut in two where the enqueue script puts the enqueue time.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: an argument cannot be encoded, or is nested too deeply.
    """
    body = encoder.encode({"t": job_try, "f": task_name, "a": args, "k": kwargs, "et": 0})
    check_depth(body)
    return body[: -len(b"0}")], b"}"
