"""What a new job is made of: its id and its body.

A body may tell what its producer asked for, in keys that arq does not know: ``timeout_s`` and ``max_tries`` of
this one job, and ``trace``, a traceparent. They come after the enqueue time, in this order, so that a script
finds them at the end of the body: what is in the arguments comes before and cannot pass for one of them.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

__all__ = ["ASKED", "body_tail", "job_body", "new_job_id"]

ASKED: Final = ("timeout_s", "max_tries", "trace")
"""The keys for what a producer asks of one job, in their order."""

encoder: Final = msgspec.json.Encoder()


def new_job_id() -> str:
    """A UUIDv7 (RFC 9562) without dashes: ids sort by the time they were made, so equal due times run in order."""
    unix_ms = time.time_ns() // 1_000_000
    random = secrets.randbits(74)
    value = unix_ms << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return f"{value:032x}"


def job_body(
    task_name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    job_try: int | None = None,
    asked: Mapping[str, Any] | None = None,
) -> tuple[bytes, bytes]:
    """arq's job dict as JSON, cut in two where the enqueue script puts the enqueue time.

    Args:
        task_name: as the worker knows it.
        args: by position.
        kwargs: by name.
        job_try: attempts that count as made already, plus one.
        asked: those of `ASKED` that are asked for; others of this mapping are left out, and so is what is ``None``.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: an argument cannot be encoded.
    """
    body = encoder.encode({"t": job_try, "f": task_name, "a": args, "k": kwargs, "et": 0})
    return body[: -len(b"0}")], body_tail(asked) if asked else b"}"


def body_tail(asked: Mapping[str, Any]) -> bytes:
    """What comes after the enqueue time in a body; ``asked`` as in `job_body`."""
    given = {name: asked[name] for name in ASKED if asked.get(name) is not None}
    return b"," + encoder.encode(given)[1:] if given else b"}"
