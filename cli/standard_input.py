"""Standard input, line by line, as it comes: from a file, a pipe or a terminal."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, NamedTuple

from bridge.errors import InvalidRequest

__all__ = ["Line", "lines_of_stdin", "size_of_stdin"]

READ_BYTES: Final = 256 * 1024
READ_AHEAD: Final = 4
LONGEST_LINE_BYTES: Final = 16 * 1024 * 1024


class Line(NamedTuple):
    """A line that is not blank; ``number`` is from 1, ``end`` the bytes read up to its end."""

    number: int
    text: bytes
    end: int


async def lines_of_stdin() -> AsyncIterator[list[Line]]:
    """Yields what lines are there, again and again: at once where they come slowly, many where they come fast.

    Memory is bounded, whatever comes.

    Raises:
        InvalidRequest: a line is longer than 16 MiB.
    """
    number = position = 0
    rest = b""
    async for part in parts_of_stdin():
        *whole, rest = (rest + part).split(b"\n")
        if not part and rest:  # the last line may lack its line feed
            whole, rest = [rest], b""
        if len(rest) > LONGEST_LINE_BYTES:
            raise InvalidRequest(f"line {number + len(whole) + 1} is longer than {LONGEST_LINE_BYTES} bytes")
        found = []
        for text in whole:
            number += 1
            position += len(text) + 1
            if stripped := text.strip():
                found.append(Line(number, stripped, position))
        if found:
            yield found


async def parts_of_stdin() -> AsyncIterator[bytes]:
    """Yields the bytes as they come, and an empty part at the end.

    They are read in a thread of its own that nobody waits for: Ctrl-C ends us although nothing comes. It reads
    past Python's own buffer, whose lock would be missed at the end of the process.
    """
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[bytes] = asyncio.Queue()
    may_read = threading.Semaphore(READ_AHEAD)
    descriptor = sys.stdin.fileno()

    def read() -> None:
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            part = b"something"
            while part:
                may_read.acquire()
                part = os.read(descriptor, READ_BYTES)
                loop.call_soon_threadsafe(parts.put_nowait, part)

    threading.Thread(target=read, daemon=True, name="stdin").start()
    part = b"something"
    while part:
        part = await parts.get()
        yield part
        may_read.release()


def size_of_stdin() -> int | None:
    """How many bytes will come, if standard input is a file."""
    status = os.fstat(sys.stdin.fileno())
    return status.st_size if status.st_size else None
