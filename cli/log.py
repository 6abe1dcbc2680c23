"""Logging of the long-running commands: lines for a terminal, JSON lines for anything else."""

import logging
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

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


def configure_logging(*, is_quiet: bool = False) -> None:
    """Log records go to standard error, from INFO on, or from ERROR on when quiet."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LINE) if sys.stderr.isatty() else JsonLines())
    logging.basicConfig(level=logging.ERROR if is_quiet else logging.INFO, handlers=[handler], force=True)


def show_warnings() -> None:
    """Warnings, such as of a connection that was lost, are lines for people on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("aegis-tasks: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
