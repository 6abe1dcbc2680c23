"""The end of a gateway process: told to whom it concerns before the server stops."""

import logging
from collections.abc import Callable

__all__ = ["Shutdown"]

logger = logging.getLogger("aegis.gateway")


class Shutdown:
    """Whether the gateway is about to stop, and what has to be done before it does.

    Attributes:
        has_begun: whether it is; then it is not ready any more.
    """

    def __init__(self) -> None:
        self.has_begun = False
        self._hooks: list[Callable[[], object]] = []

    def before(self, hook: Callable[[], object]) -> None:
        """``hook`` is called when the end begins: it lets go what would go on for long, such as streams of events."""
        self._hooks.append(hook)

    def begin(self) -> None:
        """The gateway is not ready any more, and every hook has run; what a hook raises is logged."""
        self.has_begun = True
        for hook in self._hooks:
            try:
                hook()
            except Exception:
                logger.exception("what goes on for long was not told of the gateway's end")
