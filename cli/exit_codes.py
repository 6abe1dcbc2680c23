"""What the command's exit code tells a script, and which error becomes which."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from bridge.broker import is_away
from bridge.errors import (
    AegisError,
    ConfigurationError,
    GatewayUnreachable,
    InvalidArguments,
    InvalidQueueType,
    InvalidRequest,
    InvalidTaskName,
    JobNotFound,
    StoreUnreachable,
    TokenNotFound,
)

__all__ = ["ExitCode", "exit_code_of", "one_line"]


class ExitCode(IntEnum):
    """The exit codes of ``aegis-tasks``."""

    DONE = 0
    FAILED = 1  # the job failed or was aborted, or something was refused
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4  # Redis, or the gateway, does not answer
    TIMED_OUT = 5


CODES: Final[Mapping[type[BaseException], ExitCode]] = {
    AegisError: ExitCode.FAILED,
    InvalidRequest: ExitCode.USAGE,
    InvalidTaskName: ExitCode.USAGE,
    InvalidQueueType: ExitCode.USAGE,
    InvalidArguments: ExitCode.USAGE,
    ConfigurationError: ExitCode.USAGE,
    JobNotFound: ExitCode.NOT_FOUND,
    TokenNotFound: ExitCode.NOT_FOUND,
    StoreUnreachable: ExitCode.UNREACHABLE,
    GatewayUnreachable: ExitCode.UNREACHABLE,
}


def exit_code_of(error: BaseException) -> ExitCode | None:
    """The code for an error that is no bug of ours; ``None`` for any other."""
    if is_away(error):
        return ExitCode.UNREACHABLE
    return next((CODES[cls] for cls in type(error).__mro__ if cls in CODES), None)


def one_line(error: Exception) -> str:
    """What to tell the user of an error that has an exit code."""
    if isinstance(error, AegisError):
        return str(error)
    return f"Redis went away: {error}"  # what else has a code is redis-py's
