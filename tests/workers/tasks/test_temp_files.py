import asyncio
import os
import stat
import threading
import time
from pathlib import Path

import msgspec
import pytest

from bridge.errors import ConfigurationError
from tests.workers.tasks.event_loop import wait_until
from workers.tasks import temp_files
from workers.tasks.temp_files import DEPTH_MAX, TempFileCleanup, cleanup_temp_files, temp_folder
from workers.tasks.work_threads import Checkpoint

OLD = time.time() - 25 * 3600
"""Older than the default age."""


def write(path: Path, content: str = "x", *, changed_at: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    if changed_at is not None:
        os.utime(path, (changed_at, changed_at))
    return path


class TestTempFolder:
    def test_is_created_below_the_system_folder_for_this_user_alone(self, temp_root: Path) -> None:
        folder = temp_folder()
        assert folder == temp_root / f"aegis-tasks-{os.geteuid()}"
        assert stat.S_IMODE(folder.lstat().st_mode) == 0o700

    def test_is_found_again_with_its_files(self, temp_root: Path) -> None:
        write(temp_folder() / "kept")
        assert [file.name for file in temp_folder().iterdir()] == ["kept"]

    def test_that_others_may_read_is_closed_to_them(self, temp_root: Path) -> None:
        temp_folder().chmod(0o777)
        assert stat.S_IMODE(temp_folder().lstat().st_mode) == 0o700

    def test_of_another_user_is_refused(self, temp_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        with pytest.raises(ConfigurationError, match=f"belongs to user id {me}"):
            temp_folder()

    def test_that_is_a_link_is_refused(self, temp_root: Path) -> None:
        (temp_root / "elsewhere").mkdir(mode=0o755)
        (temp_root / f"aegis-tasks-{os.geteuid()}").symlink_to(temp_root / "elsewhere")
        with pytest.raises(ConfigurationError, match="is not a folder"):
            temp_folder()
        assert stat.S_IMODE((temp_root / "elsewhere").stat().st_mode) == 0o755

    @pytest.mark.parametrize("content", ["file", "link to nowhere"])
    def test_whose_name_is_taken_is_refused(self, temp_root: Path, content: str) -> None:
        taken = temp_root / f"aegis-tasks-{os.geteuid()}"
        if content == "file":
            taken.write_text("")
        else:
            taken.symlink_to(temp_root / "nowhere")
        with pytest.raises(ConfigurationError, match="is not a folder"):
            temp_folder()


async def test_old_files_go_and_young_ones_stay(temp_root: Path) -> None:
    old = write(temp_folder() / "old", "12345", changed_at=OLD)
    nested = write(temp_folder() / "a" / "b" / "nested", "123", changed_at=OLD)
    young = write(temp_folder() / "a" / "young")

    done = await cleanup_temp_files({})

    assert (done.removed_files, done.removed_bytes, done.removed_folders) == (2, 8, 1)
    assert sorted(done.removed_names) == ["a/b", "a/b/nested", "old"]
    assert (done.kept_files, done.error_count, done.errors) == (1, 0, [])
    assert done.folder == str(temp_folder())
    assert not old.exists()
    assert not nested.parent.exists()
    assert young.exists()


async def test_an_empty_folder_goes_when_it_is_old(temp_root: Path) -> None:
    (temp_folder() / "young").mkdir()
    (temp_folder() / "old").mkdir()
    os.utime(temp_folder() / "old", (OLD, OLD))
    done = await cleanup_temp_files({})
    assert done.removed_names == ["old"]
    assert [folder.name for folder in temp_folder().iterdir()] == ["young"]


async def test_folders_that_become_empty_go_with_their_files(temp_root: Path) -> None:
    write(temp_folder() / "a" / "b" / "c" / "old", changed_at=OLD)
    done = await cleanup_temp_files({})
    assert done.removed_names == ["a/b/c/old", "a/b/c", "a/b", "a"]
    assert list(temp_folder().iterdir()) == []


async def test_the_age_is_the_callers(temp_root: Path) -> None:
    write(temp_folder() / "two hours", changed_at=time.time() - 2 * 3600)
    assert (await cleanup_temp_files({}, max_age_hours=3)).removed_files == 0
    assert (await cleanup_temp_files({}, max_age_hours=1.5)).removed_files == 1


async def test_age_zero_removes_everything(temp_root: Path) -> None:
    write(temp_folder() / "now", changed_at=time.time() - 0.01)
    assert (await cleanup_temp_files({}, max_age_hours=0)).removed_files == 1


async def test_dry_run_reports_the_same_and_removes_nothing(temp_root: Path) -> None:
    write(temp_folder() / "old", "12345", changed_at=OLD)
    write(temp_folder() / "a" / "old", changed_at=OLD)
    write(temp_folder() / "b" / "old", changed_at=OLD)
    write(temp_folder() / "b" / "young")
    before = sorted(temp_folder().rglob("*"))

    foreseen = await cleanup_temp_files({}, dry_run=True)
    assert sorted(temp_folder().rglob("*")) == before
    assert foreseen.dry_run

    done = await cleanup_temp_files({})
    assert msgspec.structs.replace(done, dry_run=True, ran_ms=foreseen.ran_ms) == foreseen
    assert (done.removed_files, done.removed_folders) == (3, 1)


async def test_links_are_neither_followed_nor_removed(temp_root: Path) -> None:
    outside_file = write(temp_root / "outside" / "precious", changed_at=OLD)
    (temp_folder() / "to-file").symlink_to(outside_file)
    (temp_folder() / "to-folder").symlink_to(outside_file.parent)
    (temp_folder() / "to-nowhere").symlink_to(temp_root / "nowhere")
    for link in temp_folder().iterdir():
        os.utime(link, (OLD, OLD), follow_symlinks=False)

    done = await cleanup_temp_files({}, max_age_hours=0)

    assert (done.removed_files, done.removed_folders, done.kept_files, done.error_count) == (0, 0, 3, 0)
    assert outside_file.exists()
    assert len(list(temp_folder().iterdir())) == 3


async def test_a_folder_replaced_by_a_link_meanwhile_is_not_entered(
    temp_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = write(temp_root / "outside" / "precious", changed_at=OLD)
    victim = temp_folder() / "victim"
    victim.mkdir()
    real_open = os.open

    def swap_then_open(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "victim":
            victim.rmdir()
            victim.symlink_to(precious.parent)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_then_open)
    done = await cleanup_temp_files({}, max_age_hours=0)
    assert precious.exists()
    assert victim.is_symlink()
    assert done.error_count == 1
    assert done.errors[0].startswith("victim: ")


async def test_only_regular_files_go(temp_root: Path) -> None:
    pipe = temp_folder() / "pipe"
    os.mkfifo(pipe)
    os.utime(pipe, (OLD, OLD))
    done = await cleanup_temp_files({})
    assert (done.removed_files, done.kept_files) == (0, 1)
    assert pipe.exists()


async def test_files_outside_the_folder_stay(temp_root: Path) -> None:
    neighbour = write(temp_root / "neighbour", changed_at=OLD)
    temp_folder()
    await cleanup_temp_files({}, max_age_hours=0)
    assert neighbour.exists()
    assert temp_folder().exists()


async def test_a_file_that_vanishes_meanwhile_is_no_error(temp_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(temp_folder() / "a" / "vanishing", changed_at=OLD)
    write(temp_folder() / "b" / "old", changed_at=OLD)
    real_unlink = os.unlink

    def unlink_twice(path: str, *, dir_fd: int | None = None) -> None:
        real_unlink(path, dir_fd=dir_fd)
        if path == "vanishing":
            real_unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink_twice)
    done = await cleanup_temp_files({})
    assert (done.error_count, done.errors) == (0, [])
    assert "b/old" in done.removed_names
    assert "a/vanishing" not in done.removed_names


async def test_what_cannot_be_removed_is_reported_and_the_rest_goes(
    temp_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second", "third"):
        write(temp_folder() / "a" / name, changed_at=OLD)
    real_unlink = os.unlink

    def refuse_second(path: str, *, dir_fd: int | None = None) -> None:
        if path == "second":
            raise PermissionError(1, "Operation not permitted")
        real_unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse_second)
    done = await cleanup_temp_files({})
    assert done.removed_files == 2
    assert done.errors == ["a/second: Operation not permitted"]
    assert done.removed_folders == 0
    assert (temp_folder() / "a" / "second").exists()


async def test_long_reports_are_cut_but_counted_whole(temp_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(150):
        write(temp_folder() / f"old-{number}", changed_at=OLD)

    done = await cleanup_temp_files({}, dry_run=True)
    assert (done.removed_files, len(done.removed_names)) == (150, 100)

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    done = await cleanup_temp_files({})
    assert (done.error_count, len(done.errors)) == (150, 100)


async def test_a_name_that_is_not_unicode_can_be_reported(temp_root: Path) -> None:
    name = os.fsencode(temp_folder()) + b"/caf\xe9"
    Path(os.fsdecode(name)).write_text("")
    os.utime(name, (OLD, OLD))
    done = await cleanup_temp_files({})
    assert done.removed_names == ["caf�"]
    assert msgspec.json.decode(msgspec.json.encode(done), type=TempFileCleanup) == done


async def test_folders_are_followed_to_a_limited_depth(temp_root: Path) -> None:
    write(temp_folder().joinpath(*["d"] * DEPTH_MAX) / "deepest", changed_at=OLD)
    write(temp_folder().joinpath(*["e"] * (DEPTH_MAX + 1)) / "too deep", changed_at=OLD)
    done = await cleanup_temp_files({})
    assert done.removed_files == 1
    assert done.error_count == 1
    assert done.errors[0].endswith("more than 32 folders deep")


async def test_no_file_descriptor_is_left_open(temp_root: Path) -> None:
    write(temp_folder() / "a" / "b" / "old", changed_at=OLD)
    await cleanup_temp_files({})
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        write(temp_folder() / "a" / "b" / "old", changed_at=OLD)
        await cleanup_temp_files({})
    after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert after <= before


async def test_a_refused_folder_fails_the_job(temp_root: Path) -> None:
    (temp_root / f"aegis-tasks-{os.geteuid()}").write_text("")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        await cleanup_temp_files({})


async def test_a_cancelled_clean_up_stops(temp_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        write(temp_folder() / f"old-{number}", changed_at=OLD)
    loop = asyncio.get_running_loop()
    left = threading.Event()
    real_unlink, real_clean_up = os.unlink, temp_files.clean_up

    def cancel_then_unlink(path: str, *, dir_fd: int | None = None) -> None:
        async def cancel() -> None:
            job.cancel()
            await asyncio.wait([job])

        asyncio.run_coroutine_threadsafe(cancel(), loop).result(10)
        real_unlink(path, dir_fd=dir_fd)

    def watched_clean_up(max_age_hours: float, dry_run: bool, checkpoint: Checkpoint) -> TempFileCleanup:
        try:
            return real_clean_up(max_age_hours, dry_run, checkpoint)
        finally:
            left.set()

    monkeypatch.setattr(os, "unlink", cancel_then_unlink)
    monkeypatch.setattr(temp_files, "clean_up", watched_clean_up)
    job = asyncio.create_task(cleanup_temp_files({}))
    await wait_until(left.is_set)
    assert job.cancelled()
    assert len(list(temp_folder().iterdir())) == 49
