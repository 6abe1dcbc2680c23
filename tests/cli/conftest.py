import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from redis import Redis

from bridge import keys
from cli.main import main
from tests.cli.processes import Commands, ValkeyChild, is_of_ours
from tests.end_to_end.serving import start_gateway


@pytest.fixture
def cli(tmp_path: Path, valkey_url: str, sync_redis: Redis) -> Iterator[Commands]:
    """Commands, each a process, on the real Valkey of the fixture `sync_redis`."""
    assert sync_redis.dbsize() == 0
    commands = Commands(tmp_path, REDIS_URL=valkey_url)
    yield commands
    commands.close()
    assert not commands.data_dir.exists()  # nothing of the embedded server was touched


class Ended(NamedTuple):
    """What a command inside this process has said, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str


InProcess = Callable[..., Ended]


@pytest.fixture
def in_process(
    tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[InProcess]:
    """Runs commands inside this process: a hundred times as fast, for what does not depend on the process.

    They see the Valkey of `sync_redis`, and what they import is forgotten. Not for tests that are coroutines,
    since each command has a loop of its own.
    """
    modules = set(sys.modules)
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["aegis-tasks", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        code = exit_.value.code or 0
        assert isinstance(code, int)
        return Ended(code, out, err)

    with monkeypatch.context() as outer:
        for name in filter(is_of_ours, list(os.environ)):
            outer.delenv(name)
        outer.setenv("REDIS_URL", valkey_url)
        outer.chdir(tmp_path)
        outer.setattr("sys.path", [*sys.path])
        yield run
    root.setLevel(level)
    root.handlers[:] = handlers  # a command that runs for long configures logging
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture(scope="session")
def gateway_url(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway process on the real Valkey."""
    commands = Commands(tmp_path_factory.mktemp("gateway"), REDIS_URL=valkey_url)
    _, port = start_gateway(commands)
    yield f"http://127.0.0.1:{port}"
    commands.close()


@pytest.fixture(params=["redis", "gateway"])
def anywhere(request: pytest.FixtureRequest, in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """As `in_process`: each test that takes it runs on Redis, and through a gateway while no Redis is to be reached."""
    if request.param == "gateway":
        monkeypatch.setenv("AEGIS_URL", request.getfixturevalue("gateway_url"))
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    return in_process


@pytest.fixture
def sync_redis(valkey_url: str) -> Iterator[Redis]:
    """A client of the real Valkey, whose database is empty; afterwards it holds no key that nobody knows of."""
    with Redis.from_url(valkey_url) as client:
        client.flushall()
        yield client
        listed = tuple(value for value in vars(keys).values() if isinstance(value, str) and ":" in value)
        names = [name.decode() for name in client.scan_iter()]
        assert [name for name in names if not name.startswith(listed) and client.ttl(name) < 0] == []


@pytest.fixture
def embedded_cli(tmp_path: Path) -> Iterator[Commands]:
    """Commands on the embedded Valkey of a folder."""
    commands = Commands(tmp_path)
    yield commands
    commands.close()


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyChild]:
    """A running Valkey of the test's own, to be killed and started again."""
    child = ValkeyChild(tmp_path_factory.mktemp("own-valkey"))
    child.start()
    yield child
    child.close()
