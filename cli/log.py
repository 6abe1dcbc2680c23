"""Logging of the long-running commands: lines for a terminal, JSON lines for anything else."""

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

from bridge.gateway.access_log import AccessLine

__all__ = ["configure_logging", "show_warnings"]

LINE: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One JSON object a line; what was logged with ``extra=`` are fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in STANDARD and value is not None},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


class JsonHandler(logging.StreamHandler[TextIO]):
    """Writes JSON lines; those of the access log, of which there may be thousands in a second, many at once."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(JsonLines())
        self._encode_lines = msgspec.json.Encoder().encode_lines

    def write_lines(self, lines: Sequence[AccessLine]) -> None:
        """Writes them as they would be as records."""
        text = self._encode_lines(lines).decode()
        with self.lock or nullcontext(), suppress(OSError):  # as for records: nobody may read the log any more
            self.stream.write(text)
            self.stream.flush()


def configure_logging(*, is_quiet: bool = False) -> None:
    """Log records go to standard error, from INFO on, or from ERROR on when quiet."""
    handler = terminal_handler() if sys.stderr.isatty() else JsonHandler()
    logging.basicConfig(level=logging.ERROR if is_quiet else logging.INFO, handlers=[handler], force=True)


def show_warnings() -> None:
    """Warnings, such as of a connection that was lost, are lines for people on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("aegis-tasks: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def terminal_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LINE))
    return handler
