"""The access log: a line for each request, on the logger ``aegis.access``.

A log record for each would cost as much as the rest of what a request needs here. So lines are gathered for a moment,
and a handler that can write many at once gets them so; any other handler gets a record for each, as always.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from time import perf_counter, time
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

__all__ = ["AccessLine", "AccessLog", "WritesManyLines"]

FLUSH_AFTER_S: Final = 0.2
MOST_LINES: Final = 1000
"""Lines that wait at a time."""
PATH_LIMIT_CHARS: Final = 500


class AccessLine(msgspec.Struct, frozen=True):
    """A line, with its fields in their order; no query and no body, since they may hold secrets.

    Attributes:
        at: when the request had been answered.
        route: the template that its path fits.
        caller: name of the token.
        bytes: of the body of the answer.
    """

    at: datetime
    level: str
    logger: str
    message: str
    method: str
    route: str
    path: str
    status: int
    duration_ms: float
    bytes: int
    caller: str
    request_id: str


FACTS: Final = ("method", "route", "path", "status", "duration_ms", "bytes", "caller", "request_id")
Waiting = tuple[tuple[float, float], str, str, str, int, int, str, str, bool]


@runtime_checkable
class WritesManyLines(Protocol):
    """A handler that writes whole lines at once."""

    def write_lines(self, lines: Sequence[AccessLine]) -> None:
        """Writes them in this order."""
        ...


class AccessLog:
    """Gathers lines, and writes them within 0.2 s."""

    def __init__(self) -> None:
        self.logger = logging.getLogger("aegis.access")
        self._waiting: list[Waiting] = []

    def add(
        self,
        times: tuple[float, float],
        method: str,
        route: str,
        path: str,
        status: int,
        body_bytes: int,
        caller: str,
        request_id: str,
        is_quiet: bool,
    ) -> None:
        """A line for this request, which began and ended at these times of `time.perf_counter`."""
        if not self.logger.isEnabledFor(logging.DEBUG if is_quiet else logging.INFO):
            return
        waiting = self._waiting
        waiting.append((times, method, route, path, status, body_bytes, caller, request_id, is_quiet))
        if len(waiting) == 1:
            asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)
        elif len(waiting) >= MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Every line so far is written."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        wall_s = time() - perf_counter()
        lines = [line_of(one, wall_s) for one in waiting]
        for handler in handlers_of(self.logger):
            if isinstance(handler, WritesManyLines):
                handler.write_lines(lines)
            else:
                for line in lines:
                    record = record_of(line)
                    if record.levelno >= handler.level:
                        handler.handle(record)


def line_of(waiting: Waiting, wall_s: float) -> AccessLine:
    (started_s, ended_s), method, route, path, status, body_bytes, caller, request_id, is_quiet = waiting
    return AccessLine(
        datetime.fromtimestamp(wall_s + ended_s, UTC),
        "debug" if is_quiet else "info",
        "aegis.access",
        f"{method} {path[:PATH_LIMIT_CHARS]} {status}",
        method,
        route,
        path[:PATH_LIMIT_CHARS],
        status,
        round((ended_s - started_s) * 1000, 3),
        body_bytes,
        caller,
        request_id,
    )


def record_of(line: AccessLine) -> logging.LogRecord:
    facts: dict[str, Any] = {name: getattr(line, name) for name in FACTS}
    told = "%s %.1f ms, %d bytes, caller %s, request %s"
    args = (line.message, line.duration_ms, line.bytes, line.caller, line.request_id)
    record = logging.LogRecord(line.logger, logging.getLevelName(line.level.upper()), "", 0, told, args, None)
    record.created = line.at.timestamp()
    vars(record).update(facts)
    return record


def handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Those that get its records."""
    at: logging.Logger | None = logger
    while at is not None:
        yield from at.handlers
        at = at.parent if at.propagate else None
