"""Who is measured: ours, the floor, and peers, each of them in an environment of its own, made when it is missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cli.processes import is_of_ours

__all__ = [
    "OF_HTTP_ALONE",
    "PEERS",
    "ROOT",
    "TITLES",
    "LeftOut",
    "Program",
    "echo",
    "environment",
    "floor",
    "peer",
    "versions_of_ours",
]

ROOT: Final = Path(__file__).parents[2]
PEERS_FOLDER: Final = Path(__file__).parent / "peers"
NODE: Final = "node"

PEERS: Final = ("arq", "saq", "taskiq", "streaq", "bullmq", "fastapi")
OF_HTTP_ALONE: Final = ("echo", "fastapi")
TITLES: Final = {
    "ours": "aegis-tasks",
    "arq": "arq",
    "saq": "SAQ",
    "taskiq": "taskiq",
    "streaq": "streaQ",
    "bullmq": "BullMQ",
    "floor": "floor",
    "echo": "Litestar echo",
    "fastapi": "FastAPI",
}
"""Name -> what people call it, in the order of the tables."""

PACKAGES: Final = {"taskiq": ("taskiq", "taskiq-redis"), "fastapi": ("fastapi", "uvicorn", "arq")}
OF_SERVER: Final = ("litestar", "granian")
VERSIONS: Final = """
import platform, sys
from importlib.metadata import version
print(", ".join([*(f"{name} {version(name)}" for name in sys.argv[1:]), f"Python {platform.python_version()}"]))
"""


class LeftOut(Exception):
    """Why a contender cannot be measured here."""


@dataclass(frozen=True)
class Program:
    """How a contender is asked for a figure: ``command`` + figure + ``--jobs`` + ``--port``.

    Those of HTTP alone are servers: ``command`` + port to listen on + port of Redis.
    """

    command: tuple[str, ...]
    versions: str
    environ: Mapping[str, str] = field(default_factory=dict)


def environment() -> dict[str, str]:
    """The variables of this process without settings of ours."""
    return {name: value for name, value in os.environ.items() if not is_of_ours(name)}


def versions_of_ours() -> str:
    """The versions of what ours runs on."""
    return versions_of(sys.executable, "arq", "redis", "hiredis", "msgspec", "uvloop", *OF_SERVER)


def floor() -> Program:
    return Program((sys.executable, "-m", "tests.benchmarks.floor"), versions="as aegis-tasks")


def echo() -> Program:
    return Program((sys.executable, "-m", "tests.benchmarks.echo_server"), versions="as aegis-tasks")


def peer(name: str, home: Path | None) -> Program:
    """A peer, ready to run.

    Args:
        name: one of `PEERS`.
        home: a folder that holds an environment for each; by default ``.bench``, where they are made.

    Raises:
        LeftOut: what it needs is missing here, or cannot be installed.
    """
    if name == "bullmq":
        return node_peer(name, home)
    python = (home or ROOT / ".bench") / name / "bin" / "python"
    if not home:
        pins = PEERS_FOLDER / f"{name}.txt"
        if not is_made_from(pins, python.parents[1]):
            execute(sys.executable, "-m", "venv", "--clear", str(python.parents[1]))
            execute(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(pins))
            note_made_from(pins, python.parents[1])
    if not python.exists():
        raise LeftOut(f"{name}/bin/python is not in the folder of the peers")
    packages = PACKAGES.get(name, (name,))
    return Program((str(python), "-m", f"tests.benchmarks.peers.{name}_peer"), versions_of(str(python), *packages))


def node_peer(name: str, home: Path | None) -> Program:
    if not shutil.which("node") or not (home or shutil.which("npm")):
        raise LeftOut("there is no node and npm on the PATH")
    folder = (home or ROOT / ".bench") / NODE
    pins = PEERS_FOLDER / "package.json"
    if not home and not is_made_from(pins, folder):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(pins, folder)
        execute("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)
        note_made_from(pins, folder)
    if not (folder / "node_modules" / name).exists():
        raise LeftOut(f"{NODE}/node_modules/{name} is not in the folder of the peers")
    of_package = f"require('{folder}/node_modules/{name}/package.json').version"
    versions = execute("node", "-p", f"'{name} ' + {of_package} + ', Node ' + process.versions.node")
    return Program(("node", str(PEERS_FOLDER / "bullmq_peer.mjs")), versions, {"BENCH_NODE": str(folder)})


def versions_of(python: str, *packages: str) -> str:
    return execute(python, "-c", VERSIONS, *packages)


def is_made_from(pins: Path, folder: Path) -> bool:
    stamp = folder / ".made-from"
    return stamp.exists() and stamp.read_text() == pins.read_text()


def note_made_from(pins: Path, folder: Path) -> None:
    (folder / ".made-from").write_text(pins.read_text())


def execute(*command: str, cwd: Path = ROOT) -> str:
    """What the command prints.

    Raises:
        LeftOut: it failed; the reason is its last line.
    """
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise LeftOut(last_line(done.stderr or done.stdout) or f"{command[0]} ended with code {done.returncode}")
    return done.stdout.strip()


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
