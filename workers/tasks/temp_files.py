"""The folder for temporary files of tasks, and ``cleanup_temp_files``, which empties it of old ones."""

import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from bridge.errors import ConfigurationError
from workers.tasks.work_threads import Checkpoint, run_in_work_thread

__all__ = ["TempFileCleanup", "cleanup_temp_files", "temp_folder"]

LISTED_MAX: Final = 100
"""Names, and errors, that a result lists; the counts go on."""

DEPTH_MAX: Final = 32
"""Folders within folders that are looked into: each costs an open file descriptor of the worker."""

OPEN_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


class TempFileCleanup(Struct, frozen=True, kw_only=True):
    """What `cleanup_temp_files` removed or, with ``dry_run``, would have removed.

    Attributes:
        folder: the one folder that was looked at.
        dry_run: as asked for.
        removed_files: number of files.
        removed_bytes: their sizes.
        removed_folders: subfolders that were empty or became so.
        removed_names: files and folders relative to ``folder``, the first 100.
        kept_files: files that are too young, and whatever is no regular file.
        errors: what could not be removed or read and why, the first 100.
        error_count: all of them.
        ran_ms: time from start to end.
    """

    folder: str
    dry_run: bool
    removed_files: int
    removed_bytes: int
    removed_folders: int
    removed_names: list[str]
    kept_files: int
    errors: list[str]
    error_count: int
    ran_ms: float


def temp_folder() -> Path:
    """The folder for temporary files of tasks, which exists and is ours alone (mode 0700) afterwards.

    It is ``aegis-tasks-<user id>`` in the system's temporary folder (``TMPDIR``).

    Raises:
        ConfigurationError: something else has its name: a link, a file, or a folder of another user.
    """
    folder = Path(tempfile.gettempdir()) / f"aegis-tasks-{os.geteuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{folder} is not a folder; remove it, or set TMPDIR to another place")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"{folder} belongs to user id {found.st_uid}; set TMPDIR to another place")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


async def cleanup_temp_files(
    ctx: dict[str, Any],
    *,
    max_age_hours: Annotated[float, Meta(ge=0, le=87_600)] = 24,
    dry_run: bool = False,
) -> TempFileCleanup:
    """Removes old files that tasks left in their temporary folder and reports them.

    Only regular files below `temp_folder` are removed, and subfolders without any content. Links are
    neither followed nor removed. A file that vanishes meanwhile is no error.

    Args:
        ctx: arq's job context.
        max_age_hours: files last changed longer ago are removed, 0 to 87 600. Default 24; with 0 also
            those that a running job still uses.
        dry_run: only report. Default false.
    """
    return await run_in_work_thread(lambda checkpoint: clean_up(max_age_hours, dry_run, checkpoint))


def clean_up(max_age_hours: float, dry_run: bool, checkpoint: Checkpoint) -> TempFileCleanup:
    started = time.perf_counter()
    folder = temp_folder()
    sweep = Sweep(older_than=time.time() - max_age_hours * 3600, dry_run=dry_run, checkpoint=checkpoint)
    descriptor = os.open(folder, OPEN_FOLDER)
    try:
        sweep.sweep_folder(descriptor, Path(), depth=0)
    finally:
        os.close(descriptor)
    return TempFileCleanup(
        folder=printable(folder),
        dry_run=dry_run,
        removed_files=sweep.removed_files,
        removed_bytes=sweep.removed_bytes,
        removed_folders=sweep.removed_folders,
        removed_names=sweep.removed_names,
        kept_files=sweep.kept_files,
        errors=sweep.errors,
        error_count=sweep.error_count,
        ran_ms=round((time.perf_counter() - started) * 1000, 3),
    )


class Sweep:
    """One pass over the folder, and its counts.

    It goes from open folder to open folder, never by a path: what another process renames or replaces
    by a link meanwhile cannot lead it out.
    """

    def __init__(self, *, older_than: float, dry_run: bool, checkpoint: Checkpoint) -> None:
        """Prepares a pass.

        Args:
            older_than: Unix time in seconds; what was changed before is removed.
            dry_run: only count.
            checkpoint: called before each entry.
        """
        self.older_than = older_than
        self.dry_run = dry_run
        self.checkpoint = checkpoint
        self.removed_files = 0
        self.removed_bytes = 0
        self.removed_folders = 0
        self.removed_names: list[str] = []
        self.kept_files = 0
        self.errors: list[str] = []
        self.error_count = 0

    def sweep_folder(self, descriptor: int, path: Path, *, depth: int) -> bool:
        """Removes what is old in an open folder.

        Args:
            descriptor: the open folder.
            path: its name for people, relative to the top.
            depth: folders above it, up to the top.

        Returns:
            Whether nothing is left in it.
        """
        with os.scandir(descriptor) as listing:
            entries = list(listing)
        gone = 0
        for entry in entries:
            self.checkpoint()
            try:
                gone += self.sweep_entry(descriptor, entry, path / entry.name, depth=depth)
            except FileNotFoundError:  # another process was faster
                gone += 1
            except OSError as error:
                self.note_error(path / entry.name, error.strerror or str(error))
        return gone == len(entries)

    def sweep_entry(self, parent: int, entry: os.DirEntry[str], path: Path, *, depth: int) -> bool:
        """Removes one entry if it is to go, and returns whether it did."""
        found = entry.stat(follow_symlinks=False)
        old = found.st_mtime < self.older_than
        if stat.S_ISDIR(found.st_mode):
            return self.sweep_subfolder(parent, entry.name, path, old=old, depth=depth + 1)
        if not (stat.S_ISREG(found.st_mode) and old):
            self.kept_files += 1
            return False
        if not self.dry_run:
            os.unlink(entry.name, dir_fd=parent)
        self.removed_files += 1
        self.removed_bytes += found.st_size
        self.note_removed(path)
        return True

    def sweep_subfolder(self, parent: int, name: str, path: Path, *, old: bool, depth: int) -> bool:
        """Removes what is old in a subfolder, and then the folder if that emptied it or it was empty and old."""
        if depth > DEPTH_MAX:
            self.note_error(path, f"more than {DEPTH_MAX} folders deep")
            return False
        removed_before = self.removed_files + self.removed_folders
        descriptor = os.open(name, OPEN_FOLDER, dir_fd=parent)
        try:
            empty = self.sweep_folder(descriptor, path, depth=depth)
        finally:
            os.close(descriptor)
        emptied = self.removed_files + self.removed_folders > removed_before
        # A young empty folder may be waiting for the first file of a running job.
        if not (empty and (emptied or old)):
            return False
        if not self.dry_run:
            os.rmdir(name, dir_fd=parent)
        self.removed_folders += 1
        self.note_removed(path)
        return True

    def note_removed(self, path: Path) -> None:
        if len(self.removed_names) < LISTED_MAX:
            self.removed_names.append(printable(path))

    def note_error(self, path: Path, reason: str) -> None:
        self.error_count += 1
        if len(self.errors) < LISTED_MAX:
            self.errors.append(f"{printable(path)}: {reason}")


def printable(path: Path) -> str:
    """A file name may be any bytes, a JSON string may not."""
    return os.fsencode(path).decode("utf-8", errors="replace")
