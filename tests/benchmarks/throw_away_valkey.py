"""A Valkey server that keeps nothing on disk, and is gone with the process that started it."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from bridge.child_process import die_with_parent
from bridge.embedded_valkey import find_server
from tests.cli.processes import find_free_port, wait_until

__all__ = ["throw_away_valkey"]


@contextmanager
def throw_away_valkey() -> Iterator[int]:
    """The port of a server that answers while inside."""
    with tempfile.TemporaryDirectory() as folder:
        port = find_free_port()
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
        with (Path(folder) / "log").open("wb") as log:
            server = subprocess.Popen(
                [find_server(), *(str(part) for name, value in options.items() for part in (f"--{name}", value))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, and then the server is ended below
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        try:
            with Redis(port=port) as client:
                wait_until(client.ping, what="Valkey")
            yield port
        finally:
            server.kill()
            server.wait()
