"""What a run of the benchmarks has found, and where it ran."""

import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import msgspec
import psutil

from tests.benchmarks.contenders import ROOT

__all__ = ["Machine", "Measurement", "Report", "here"]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one contender in one round.

    Attributes:
        size: jobs; of ``idle`` and ``streams``, seconds.
        values: name with its unit -> number.
        failure: why there are none.
    """

    figure: str
    contender: str
    round: int
    size: float
    workers: int = 1
    values: dict[str, float] = {}
    failure: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ran. ``load``: processes that wanted a core in the minute before, on average."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    load: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        command: how to run it again.
        versions: contender -> its versions; ``valkey`` -> the server's.
        left_out: contender -> why it was not measured.
    """

    date: datetime
    commit: str
    command: str
    rounds: int
    machine: Machine
    versions: dict[str, str] = {}
    left_out: dict[str, str] = {}
    measurements: list[Measurement] = []

    def of(self, figure: str, contender: str = "ours") -> list[Measurement]:
        """Its rounds, the failed ones too."""
        return [one for one in self.measurements if (one.figure, one.contender) == (figure, contender)]

    def values(self, figure: str, value: str, contender: str = "ours") -> list[float]:
        """A value of every round that has it."""
        return [one.values[value] for one in self.of(figure, contender) if value in one.values]

    def median(self, figure: str, value: str, contender: str = "ours") -> float | None:
        """The median of its rounds, if there is one."""
        values = self.values(figure, value, contender)
        return median(values) if values else None


def here(*, command: str, rounds: int) -> Report:
    """A report that has nothing yet but where and when."""
    return Report(
        date=datetime.now(UTC),
        commit=commit(),
        command=command,
        rounds=rounds,
        machine=Machine(
            processor=processor(),
            cores=psutil.cpu_count() or 1,
            memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
            system=f"{platform.system()} {platform.release()}",
            load=round(psutil.getloadavg()[0], 2),
        ),
    )


def processor() -> str:
    """The model, as the system calls it."""
    return next(processor_names())


def processor_names() -> Iterator[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                yield line.partition(":")[2].strip()
    yield output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the working tree, and whether files differ from it."""
    found = output_of("git", "rev-parse", "--short", "HEAD") or "unknown"
    is_changed = output_of("git", "status", "--porcelain", "--", ".", ":!docs/benchmarks.md")
    return f"{found}, with changes" if is_changed else found


def output_of(*command: str) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
