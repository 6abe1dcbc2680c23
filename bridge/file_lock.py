"""Locks between the processes of one machine, each tied to a file."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

# portalocker takes the same flock(2) on POSIX, but brings redis and 0.2 s of import time along.
if sys.platform == "win32":
    import portalocker
else:
    import fcntl

__all__ = ["FileLock", "take_over"]

POLL_S: Final = 0.01


class FileLock:
    """An open lock file; nobody holds the lock because of it before `take`.

    The lock belongs to the open file: it lasts until every process that has it open, forked and
    inheriting children included, has closed it or is gone, however that one ended. Dropping the
    object does not close the file.

    Attributes:
        descriptor: what a child has to inherit to hold the lock too.
    """

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def take(self, *, shared: bool = False) -> bool:
        """Whether the lock is ours now; never waits. A shared one only excludes exclusive ones."""
        if sys.platform == "win32":
            kind = portalocker.LockFlags.SHARED if shared else portalocker.LockFlags.EXCLUSIVE
            try:
                portalocker.lock(self.descriptor, kind | portalocker.LockFlags.NON_BLOCKING)
            except portalocker.LockException:
                return False
        else:
            try:
                fcntl.flock(self.descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def is_at(self, path: Path) -> bool:
        """Whether this path still leads to the file that is open here."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """This process does not hold the lock any more."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def take_over(lock: FileLock, pid_file: Path, timeout_s: float) -> bool:
    """Whether the lock is ours now: its holder has been asked to end (SIGTERM), and is gone.

    Args:
        lock: the lock.
        pid_file: holds the holder's process id; removed once the lock is ours. Whoever takes the lock
            in another way has to remove or rewrite it first of all, since it is believed from then on.
        timeout_s: longest wait.
    """
    deadline_s = time.monotonic() + timeout_s
    asked = None
    while not lock.take():
        if time.monotonic() > deadline_s:
            return False
        # The file may not be written yet, and the process may be gone already.
        with suppress(OSError, ValueError):
            pid = int(pid_file.read_text())
            if pid != asked:
                os.kill(pid, signal.SIGTERM)
                asked = pid
        time.sleep(POLL_S)
    pid_file.unlink(missing_ok=True)
    return True
