"""Where a list goes on: opaque text to callers, values to us."""

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from bridge.errors import InvalidRequest

__all__ = ["of_another_list", "read_cursor", "write_cursor"]

Values = TypeVar("Values")


def write_cursor(values: Any) -> str:
    """The text for a tuple of numbers and texts; letters, digits, ``-`` and ``_``."""
    return base64.urlsafe_b64encode(msgspec.json.encode(values)).decode().rstrip("=")


def read_cursor(cursor: str, type: type[Values]) -> Values:
    """What `write_cursor` was given.

    Raises:
        InvalidRequest: it is none of ours, or of another list.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(raw, type=type)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise of_another_list() from None


def of_another_list() -> InvalidRequest:
    """The error of a cursor that is none of this list."""
    return InvalidRequest("the cursor is none of this list; send next_cursor of the page before", path="cursor")
