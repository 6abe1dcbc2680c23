"""arq logs the arguments of every job; ours are the users' data, so the line is kept and they are not."""

import logging
from typing import Final

__all__ = ["hide_arguments"]

STARTED: Final = "%6.2fs → %s(%s)%s"
"""arq 0.28's line for a job that starts: waited, job, arguments, extra."""


class ArgumentsHidden(logging.Filter):
    """Replaces the arguments in arq's line by an ellipsis."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record through, this one changed."""
        if record.msg == STARTED and isinstance(record.args, tuple) and len(record.args) == 4:
            waited_s, job, arguments, extra = record.args
            record.args = (waited_s, job, "…" if arguments else "", extra)
        return True


hidden: Final = ArgumentsHidden()


def hide_arguments() -> None:
    """From now on arq's log lines carry no arguments of jobs; calling it again changes nothing."""
    logging.getLogger("arq.worker").addFilter(hidden)
