"""Waiting longer after each failure in a row, and telling of the first and the last."""

import asyncio
import logging
import random
from typing import Final

__all__ = ["Backoff"]

FIRST_S: Final = 0.05
LONGEST_S: Final = 1.0


class Backoff:
    """The pauses of one loop that talks to Redis.

    Args:
        what: what does not work meanwhile, for the log.
        logger: where it is told.
    """

    def __init__(self, what: str, logger: logging.Logger) -> None:
        self.what = what
        self.logger = logger
        self.failures = 0

    async def after(self, error: BaseException, *, is_expected: bool) -> None:
        """A pause: longer with each failure, and jittered so that a fleet does not come back as one."""
        self.failures += 1
        if self.failures == 1:
            self.logger.warning("%s: %s; trying again", self.what, error, exc_info=None if is_expected else error)
        longest_s = min(LONGEST_S, FIRST_S * 2 ** min(self.failures, 10))
        await asyncio.sleep(random.uniform(longest_s / 2, longest_s))

    def reset(self) -> None:
        """It works."""
        if self.failures:
            self.logger.warning("it works again after %d failures (%s)", self.failures, self.what)
            self.failures = 0
