"""A process whose clock is wrong: Python imports ``sitecustomize`` before anything else."""

from pathlib import Path

from tests.cli.processes import ROOT

__all__ = ["wrong_clock"]

SITECUSTOMIZE = """
import pathlib, time
true_time, true_time_ns = time.time, time.time_ns
time.time = lambda: true_time() + {skew_s}
time.time_ns = lambda: true_time_ns() + {skew_s} * 10**9
pathlib.Path(__file__).with_suffix(".used").touch()
"""


def wrong_clock(folder: Path, skew_s: int) -> dict[str, str]:
    """Environment variables for a Python process whose clock is ahead by so many seconds.

    Such a process leaves ``sitecustomize.used`` in the folder, which is made.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(skew_s=skew_s))
    return {"PYTHONPATH": f"{folder}:{ROOT}"}
