"""How deep a JSON document may be nested: every reader of it, in whatever language, has a limit of its own."""

import re
from itertools import accumulate
from typing import Final

__all__ = ["DEEPEST", "check_depth"]

DEEPEST: Final = 100
"""Arrays and objects within one another; msgspec, and so our workers, can read about ten times as many."""
STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
STEP: Final = bytes(1 if byte in b"[{" else 255 for byte in range(256))
"""Of a bracket: one deeper, or one less, as signed bytes."""
NO_BRACKET: Final = bytes(set(range(256)) - set(b"[]{}"))


def check_depth(document: bytes) -> None:
    """The document, which is valid JSON, is nested no deeper than `DEEPEST`.

    Raises:
        ValueError: it is.
    """
    if document.count(b"[") + document.count(b"{") <= DEEPEST:
        return
    steps = STRING.sub(b"", document).translate(STEP, NO_BRACKET)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} deep")
