"""The process that owns the Valkey server of a data folder: ``python -m bridge.valkey_keeper DATA_DIR SERVER``.

`bridge.embedded_valkey` starts it; its exit code is 0 when it is not needed (any more), 1 when the
server does not stay up. Files of the data folder:

==============  =====================================================================================
keeper.lock     held while a keeper lives
server.lock     held while a keeper or a server lives: the server inherits it, so that even without
                its keeper no second server opens the same data
users.lock      shared by the processes that use the server; once the keeper gets it for itself, there
                is no user left, and none can come before the keeper has ended
keeper.pid      believed only while keeper.lock is held
valkey.pid      the server's process id, believed only while server.lock is held
valkey.conf     the server's configuration, with its password
valkey.url      where the server answers; believed only while keeper.lock is held
valkey.log      output of keeper and server
==============  =====================================================================================

Only modules that load fast are imported here: the first command of a user waits for this process.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bridge.child_process import die_with_parent
from bridge.file_lock import FileLock, take_over

__all__ = ["is_answering", "keep"]

KEEPER_LOCK: Final = Path("keeper.lock")
SERVER_LOCK: Final = Path("server.lock")
USERS_LOCK: Final = Path("users.lock")
KEEPER_PID: Final = Path("keeper.pid")
SERVER_PID: Final = Path("valkey.pid")
CONFIGURATION: Final = Path("valkey.conf")
URL: Final = Path("valkey.url")
LOG: Final = Path("valkey.log")

CONFIGURATION_TEXT: Final = """\
port {port}
requirepass {password}
bind 127.0.0.1
appendonly yes
appendfsync everysec
save ""
pidfile valkey.pid
"""
# Below the ports that Linux, macOS and Windows give to outgoing connections: those could take the port
# while the server is restarted, and a client that retries could even connect to itself.
PORTS: Final = range(20_000, 32_000)

STARTING_POLL_S: Final = 0.005
IDLE_POLL_S: Final = 0.25
ANSWER_TIMEOUT_S: Final = 1.0
SHUTDOWN_TIMEOUT_S: Final = 4.0
"""After that the server is killed, and loses at most the last second of writes."""
PREDECESSOR_TIMEOUT_S: Final = 10.0
STABLE_S: Final = 5.0
MAX_EARLY_DEATHS: Final = 5
BACKOFF_S: Final = 0.1
LOG_LIMIT_BYTES: Final = 1_000_000


def keep(server: str) -> int:
    """Run the server of the current folder for as long as somebody uses it; the exit code.

    SIGTERM and SIGINT end both, whoever uses the server. A server that dies is started again at
    the same URL, until it has died `MAX_EARLY_DEATHS` times in a row within `STABLE_S` of answering.
    """
    if not FileLock(KEEPER_LOCK).take():
        return 0  # somebody else's keeper was faster
    write_private(KEEPER_PID, str(os.getpid()))
    URL.unlink(missing_ok=True)
    shorten_log()
    server_lock = FileLock(SERVER_LOCK)
    # A keeper that was killed leaves its server behind: for a moment on Linux, for good elsewhere.
    if not take_over(server_lock, SERVER_PID, PREDECESSOR_TIMEOUT_S):
        sys.stderr.write("another server, without its keeper, has the data open and does not end\n")
        return 1

    users_lock = FileLock(USERS_LOCK)
    signals = receive_signals()
    early_deaths = 0
    try:
        while early_deaths < MAX_EARLY_DEATHS:
            # Users know the URL once it is published. Before that, another program may have been faster to
            # bind the port, and another one is tried.
            url = URL.read_text() if URL.exists() else configure()
            with running_server(server, server_lock) as child:
                answered_s = attend(child, url, users_lock, signals)
            if answered_s is None:
                return 0
            early_deaths = early_deaths + 1 if answered_s < STABLE_S else 0
            sys.stderr.write(f"the server died with exit code {child.returncode}\n")
            time.sleep(BACKOFF_S * max(0, early_deaths - 1))
        sys.stderr.write("the server keeps dying, giving up\n")
        return 1
    finally:
        URL.unlink(missing_ok=True)
        KEEPER_PID.unlink(missing_ok=True)
        # The locks are left to the end of the process: whoever gets one can rely on its being gone.


def attend(child: subprocess.Popen[bytes], url: str, users_lock: FileLock, signals: socket.socket) -> float | None:
    """None when the server is not needed any more; when it died, how long it had answered, in seconds."""
    answering_since_s: float | None = None
    while child.poll() is None:
        if answering_since_s is None and is_answering(url):
            answering_since_s = time.monotonic()
            write_private(URL, url)
        received = wait_for_signal(signals, STARTING_POLL_S if answering_since_s is None else IDLE_POLL_S)
        # Whoever starts a keeper is a user already, so this cannot be true too early. Once it is, the
        # lock stays ours until this process has ended: a user who comes now waits, and starts the next keeper.
        if signal.SIGTERM in received or signal.SIGINT in received or users_lock.take():
            URL.unlink(missing_ok=True)
            return None
    return 0.0 if answering_since_s is None else time.monotonic() - answering_since_s


@contextmanager
def running_server(server: str, server_lock: FileLock) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that holds ``server.lock`` too; afterwards it is gone."""
    SERVER_PID.unlink(missing_ok=True)
    child = subprocess.Popen(
        [server, CONFIGURATION],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},  # where the user's locale is not installed, most versions do not start
        pass_fds=() if sys.platform == "win32" else (server_lock.descriptor,),
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def configure() -> str:
    """``valkey.conf`` is written; the URL it leads to.

    Port and password stay those of the last time if that port is free: a process that has used the
    server of a keeper that was killed finds the next one.
    """
    last = re.match(r"port (\d+)\nrequirepass (\w+)\n", CONFIGURATION.read_text() if CONFIGURATION.exists() else "")
    password = last[2] if last else os.urandom(24).hex()
    port = int(last[1]) if last and is_free(int(last[1])) else find_free_port()
    write_private(CONFIGURATION, CONFIGURATION_TEXT.format(port=port, password=password))
    return f"redis://:{password}@127.0.0.1:{port}/0"


def find_free_port() -> int:
    for _ in range(100):
        port = PORTS[int.from_bytes(os.urandom(4), "big") % len(PORTS)]
        if is_free(port):
            return port
    raise OSError("no free port on 127.0.0.1")


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def is_answering(url: str) -> bool:
    """Whether a server at this URL accepts its password, and has loaded its data."""
    where = urlsplit(url)
    try:
        with socket.create_connection((where.hostname, where.port), ANSWER_TIMEOUT_S) as connection:
            connection.sendall(f"AUTH {where.password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as replies:
                return replies.readline(64) == b"+OK\r\n" and replies.readline(64) == b"+PONG\r\n"
    except OSError:
        return False


def receive_signals() -> socket.socket:
    """From now on a signal does not end this process: its number can be read here, as a byte."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    if sys.platform != "win32":
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the keeper when the server dies
    return reader


def wait_for_signal(signals: socket.socket, timeout_s: float) -> bytes:
    """The numbers of the signals that have come; empty after the timeout."""
    signals.settimeout(timeout_s)
    try:
        return signals.recv(64)
    except TimeoutError:
        return b""


def write_private(path: Path, text: str) -> None:
    """The file holds the text, at no time only a part of it; others cannot read it (see the umask)."""
    new = path.with_suffix(f"{path.suffix}.new")
    new.write_text(text)
    new.replace(path)


def shorten_log() -> None:
    if LOG.stat().st_size > LOG_LIMIT_BYTES:
        os.truncate(LOG, 0)


if __name__ == "__main__":
    _, data_dir, server_path = sys.argv
    os.chdir(data_dir)  # paths lead to this folder from now on, even if it is moved or replaced
    os.umask(0o077)
    sys.exit(keep(server_path))
