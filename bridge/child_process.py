"""What a child process promises its parent."""

import os
import sys
from collections.abc import Callable
from typing import Final

__all__ = ["PR_SET_PDEATHSIG", "die_with_parent"]

PR_SET_PDEATHSIG: Final = 1


def die_with_parent(signum: int) -> Callable[[], None] | None:
    """The ``preexec_fn`` of a child that gets this signal when its parent is gone, ``kill -9`` included.

    None elsewhere than on Linux: there the child has to notice by itself. The signal comes when the
    *thread* that started the child ends, so start it from one that stays (see prctl(2)).
    """
    if sys.platform == "linux":
        import ctypes  # here and not in the child: between fork and exec nothing may be imported

        prctl = ctypes.CDLL(None).prctl
        prctl.argtypes = [ctypes.c_int, ctypes.c_ulong]
        parent_pid = os.getpid()

        def ask_kernel() -> None:
            prctl(PR_SET_PDEATHSIG, signum)
            # A parent that died before this request will never be reported; nothing has run yet, so just leave.
            if os.getppid() != parent_pid:
                os._exit(1)

        return ask_kernel
    else:  # noqa: RET505 - mypy checks each branch on its own platform
        return None
