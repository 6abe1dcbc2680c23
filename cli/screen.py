"""A whole terminal of our own that is repainted without flicker: only lines that changed are written, in one write."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TextIO

__all__ = ["Screen"]

ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The other screen, without a cursor, without wrapping; cleared."""
LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
BEGIN_FRAME: Final = "\x1b[?2026h"
"""Terminals that know it show the frame at once; the others ignore it."""
END_FRAME: Final = "\x1b[?2026l"
QUIT_KEYS: Final = b"qQ\x03\x04"


class Screen:
    """What is on the terminal.

    Args:
        out: the terminal.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.shown: list[str] = []

    def draw(self, lines: Sequence[str]) -> int:
        """The terminal shows these lines; each must be narrower than it. How many characters that took."""
        changed = [
            f"\x1b[{row + 1};1H{line}\x1b[K"
            for row, line in enumerate(lines)
            if row >= len(self.shown) or self.shown[row] != line
        ]
        if len(lines) < len(self.shown):
            changed.append(f"\x1b[{len(lines) + 1};1H\x1b[J")
        self.shown = list(lines)
        if not changed:
            return 0
        return self._write("".join([BEGIN_FRAME, *changed, END_FRAME]))

    def clear(self) -> None:
        """Nothing is known of what the terminal shows: the next frame is drawn whole."""
        self.shown = []
        self._write(ENTER)

    def _write(self, text: str) -> int:
        self.out.write(text)
        self.out.flush()
        return len(text)

    @contextlib.contextmanager
    def open(self, *, on_change: Callable[[], Any]) -> Iterator[asyncio.Event]:
        """While inside, the screen is ours; the event is set by ``q``, Ctrl-C or SIGTERM.

        Args:
            on_change: called when the size has changed.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def start_anew() -> None:
            self.clear()
            on_change()

        with contextlib.ExitStack() as at_the_end:
            for name, call in (
                ("SIGINT", stop.set),
                ("SIGTERM", stop.set),
                ("SIGWINCH", start_anew),
                ("SIGCONT", start_anew),
            ):
                if hasattr(signal, name):
                    loop.add_signal_handler(getattr(signal, name), call)
                    at_the_end.callback(loop.remove_signal_handler, getattr(signal, name))
            if sys.stdin.isatty():
                at_the_end.enter_context(keys_one_by_one())

                def read_keys() -> None:
                    if any(key in QUIT_KEYS for key in os.read(sys.stdin.fileno(), 1024)):
                        stop.set()

                loop.add_reader(sys.stdin.fileno(), read_keys)
                at_the_end.callback(loop.remove_reader, sys.stdin.fileno())
            self.clear()
            at_the_end.callback(self._write, LEAVE)
            yield stop


@contextlib.contextmanager
def keys_one_by_one() -> Iterator[None]:
    """While inside, keys come at once and are not shown."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
