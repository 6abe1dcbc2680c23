"""Build the wheel, install it far from the checkout, and run one job with it.

A test in the checkout imports the checkout, so it cannot see that a Lua script, a static file or a
dependency is missing from what users install. This can: it builds the sdist, the wheel from that
sdist, installs the wheel with its runtime dependencies alone, and lets the installed command enqueue
a job, work it and read its result. ``make wheel-check`` runs it.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path
from typing import Any

import psutil

CHECKOUT = Path(__file__).resolve().parents[2]
ROOMS = ("bridge", "workers", "cli")
COMMAND_TIMEOUT_S = 60
INSTALL_TIMEOUT_S = 300
EXIT_TIMEOUT_S = 10

# The outside must not configure the job: no settings, and nothing more to import from.
OURS = ("AEGIS_", "REDIS_", "WORKER_", "PYTHON")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def main() -> None:
    """Exit with a message at the first thing that is wrong."""
    with tempfile.TemporaryDirectory(prefix="aegis-wheel-", ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        wheel = build(folder / "dist")
        print(f"built {wheel.name}: {check_content(wheel)} files, none missing")
        command = install(wheel, folder / "venv")
        print("installed it in an environment of its own")
        try:
            print(f"ran job {run_one_job(command, folder)} with it")
        finally:
            left = stop_processes_of(folder)
        if left:
            sys.exit(f"still running {EXIT_TIMEOUT_S} s after the last command: {', '.join(left)}")


def build(into: Path) -> Path:
    """Return a wheel made from an sdist of the checkout, never from an old ``build/`` folder."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(CHECKOUT)], INSTALL_TIMEOUT_S)
    (wheel,) = into.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> int:
    """Return how many files ship: exactly those of the rooms, whatever their kind."""
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = {path.relative_to(CHECKOUT) for room in ROOMS for path in (CHECKOUT / room).rglob("*") if path.is_file()}
    wanted = {
        path.as_posix()
        for path in source
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }
    if missing := wanted - shipped:
        sys.exit(f"not in the wheel (see package-data in pyproject.toml): {', '.join(sorted(missing))}")
    if extra := shipped - wanted:
        sys.exit(f"in the wheel, but not in the checkout's rooms: {', '.join(sorted(extra))}")
    if missing := {f"{room}/py.typed" for room in ROOMS} - shipped:
        sys.exit(f"not in the checkout: {', '.join(sorted(missing))}")
    if not any(name.endswith(".lua") for name in shipped):
        sys.exit("no Lua script in the wheel")
    return len(shipped)


def install(wheel: Path, into: Path) -> Path:
    """Return the ``aegis-tasks`` command of a new environment with the wheel and what it depends on."""
    venv.create(into, symlinks=os.name != "nt")
    scripts = into / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python")]
    constraints = str(CHECKOUT / "constraints.txt")
    run(
        [*pip, "install", "-qq", "--disable-pip-version-check", "-c", constraints, f"{wheel}[embedded]"],
        INSTALL_TIMEOUT_S,
    )
    return scripts / "aegis-tasks"


def run_one_job(command: Path, folder: Path) -> str:
    """Return the id of a job that the command enqueued, worked and read back as succeeded.

    Each step is a process of its own, and no Redis is configured: the embedded Valkey has to keep
    the job from one to the next.
    """
    home = folder / "home"
    home.mkdir()

    def aegis_tasks(*arguments: str) -> str:
        return run([str(command), *arguments], COMMAND_TIMEOUT_S, cwd=home)

    enqueued = document(aegis_tasks("enqueue", "io_simulation_task", "--queue", "load_test", "--json"))
    task_id = str(enqueued["task_id"])
    aegis_tasks("burst", "load_test")
    result = document(aegis_tasks("result", task_id, "--json"))
    if result["status"] != "succeeded":
        sys.exit(f"the job did not succeed: {result}")
    return task_id


def document(output: str) -> dict[str, Any]:
    """Return the one JSON object that a command printed with ``--json``."""
    parsed = json.loads(output)
    if not isinstance(parsed, dict):
        sys.exit(f"not a JSON object: {output}")
    return parsed


def run(command: list[str], timeout_s: float, cwd: Path | None = None) -> str:
    """Return what the command wrote to standard output; exit, showing all it wrote, if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        sys.exit(f"not done after {error.timeout:.0f} s: {' '.join(command)}\n{error.stdout!r}\n{error.stderr!r}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"exit code {error.returncode}: {' '.join(command)}\n{error.stdout}{error.stderr}")
    return done.stdout


def stop_processes_of(folder: Path) -> list[str]:
    """Return, and end, the processes that still run from the folder or in it after a short while."""
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    names = []
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(f"{process.name()} ({process.pid})")
            process.kill()
    return names


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes whose program or working folder is inside the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(Path(path).is_relative_to(folder) for path in (process.exe(), process.cwd())):
                found.append(process)
    return found


if __name__ == "__main__":
    main()
