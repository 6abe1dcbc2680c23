"""``make bench``: every figure of ours, and peers beside it, in one sitting on one Valkey.

Prints the tables. A run of everything also writes them to docs/benchmarks.md.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
from redis import Redis
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from bridge.child_process import die_with_parent
from tests.benchmarks.contenders import (
    PEERS,
    ROOT,
    TITLES,
    LeftOut,
    Program,
    echo,
    environment,
    floor,
    last_line,
    peer,
    versions_of_ours,
)
from tests.benchmarks.figure import Values, end_on_sigterm
from tests.benchmarks.http import NO_WRK
from tests.benchmarks.page import with_report
from tests.benchmarks.plan import FIGURES, FULL, QUICK, Step, plan
from tests.benchmarks.report import Measurement, Report, here
from tests.benchmarks.tables import NOT_MEASURED, Table, number, tables
from tests.benchmarks.throw_away_valkey import throw_away_valkey
from tests.cli.processes import kill

PAGE: Final = ROOT / "docs/benchmarks.md"
PEERS_HOME: Final = "AEGIS_BENCH_PEERS"
TIMEOUT_S: Final = 300
"""Of one figure of one contender."""
END_S: Final = 15
"""How long a program may take to end what it has started."""
REASON_LENGTH: Final = 120
PATH: Final = re.compile(r"(/[\w.~+-]+)+/")

out: Final = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
progress_out: Final = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 1000)


class NoAnswer(Exception):
    """Why a program did not print its figures."""


def main() -> None:
    """Runs what the options say."""
    options = read_options()
    end_on_sigterm()
    report = msgspec.json.decode(options.render.read_bytes(), type=Report) if options.render else run(options)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    for table in tables(report):
        if (rich := as_rich(table)).row_count:
            out.print(rich, "")
    page = options.page or (PAGE if options.render or is_whole(options) else None)
    if page:
        page.write_text(with_report((page if page.exists() else PAGE).read_text(), report))
        progress_out.print(f"Written to {page}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='make bench ARGS="…"', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=names(FIGURES), default=FIGURES, help=f"of {','.join(FIGURES)}")
    parser.add_argument("--peers", type=names(PEERS), default=PEERS, help=f"of {','.join(PEERS)}, or none")
    parser.add_argument("--rounds", type=int, help="how often contested figures are taken: 3, or 1 with --quick")
    parser.add_argument(
        "--quick", action="store_true", help="small numbers: two minutes instead of a quarter of an hour"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to this file too")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page to this file, also of a partial run")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: take what --json once wrote")
    parser.add_argument(
        "--peers-home",
        type=lambda text: Path(text).resolve(),
        metavar="FOLDER",
        default=os.environ.pop(PEERS_HOME, None),  # an unknown AEGIS_ name is an error to everything else
        help=f"environments of peers that are ready; by default {PEERS_HOME}, or .bench, where they are made",
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def names(allowed: tuple[str, ...]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        chosen = [] if text == "none" else text.split(",")
        if unknown := set(chosen) - set(allowed):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(allowed)}")
        return [name for name in allowed if name in chosen]

    return read


def is_whole(options: argparse.Namespace) -> bool:
    return not options.quick and [*options.only] == [*FIGURES] and [*options.peers] == [*PEERS]


def command_of(options: argparse.Namespace) -> str:
    """How to run the same again; where the peers are and where the results go makes no difference."""
    arguments = []
    if [*options.only] != [*FIGURES]:
        arguments += ["--only", ",".join(options.only)]
    if [*options.peers] != [*PEERS]:
        arguments += ["--peers", ",".join(options.peers) or "none"]
    if options.rounds != (1 if options.quick else 3):
        arguments += ["--rounds", str(options.rounds)]
    if options.quick:
        arguments += ["--quick"]
    return f'make bench ARGS="{shlex.join(arguments)}"' if arguments else "make bench"


# --- measuring ------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> Report:
    """What every step of the plan gave, or why it gave nothing."""
    report = here(command=command_of(options), rounds=options.rounds)
    programs: dict[str, Program] = {}
    left_out = {name: "not asked for" for name in PEERS if name not in options.peers}
    for name in options.peers:
        try:
            with progress_out.status(f"Preparing {TITLES[name]}"):
                programs[name] = peer(name, options.peers_home)
        except LeftOut as reason:
            left_out[name] = PATH.sub("", str(reason))[:REASON_LENGTH]
            progress_out.print(f"{TITLES[name]} is left out: {left_out[name]}")
    programs["floor"] = floor()
    programs["echo"] = echo()
    if "http" in options.only and not shutil.which("wrk"):
        progress_out.print(NO_WRK)
    steps = [*plan(QUICK if options.quick else FULL, options.only, ["ours", *programs], options.rounds)]
    with throw_away_valkey() as port, progress_bar() as bar:
        shown = bar.add_task("", total=len(steps))
        for step in steps:
            bar.update(shown, description=f"round {step.round}: {step.figure}, {TITLES[step.contender]}")
            measurement = take(step, programs.get(step.contender), port)
            report.measurements.append(measurement)
            bar.advance(shown)
            progress_out.print(line_of(measurement))
        with Redis(port=port) as client:
            report.versions["valkey"] = server_version(client)
    own = {"floor", "echo"}
    report.versions.update(
        {"ours": versions_of_ours()} | {name: one.versions for name, one in programs.items() if name not in own}
    )
    report.left_out.update(left_out)
    return report


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=progress_out
    )


def line_of(measurement: Measurement) -> str:
    told = ", ".join(f"{name} {number(value)}" for name, value in measurement.values.items())
    return f"{measurement.figure}, {TITLES[measurement.contender]}: {told or 'failed: ' + measurement.failure}"


def take(step: Step, program: Program | None, port: int) -> Measurement:
    """One figure of one contender on the emptied server."""
    with Redis(port=port) as client:
        client.execute_command("FLUSHALL", "SYNC")  # otherwise old keys are freed while we measure
        before_bytes = client.info("memory")["used_memory"]
        values, failure = {}, ""
        try:
            if step.figure == "http":
                values = answer_over_http(program, step.size, port)
            elif program is None:
                values = answer_of_ours(step, port)
            elif step.figure == "memory":
                answer(program, "fill", step.size, port)
                values = {"bytes_per_job": (client.info("memory")["used_memory"] - before_bytes) / step.size}
            else:
                values = answer(program, step.figure, step.size, port)
        except NoAnswer as reason:
            failure = str(reason)
        return Measurement(
            figure=step.figure,
            contender=step.contender,
            round=step.round,
            size=step.size,
            workers=step.workers,
            values=values,
            failure=failure,
        )


def answer_of_ours(step: Step, port: int) -> Values:
    command = [sys.executable, "-m", f"tests.benchmarks.{step.figure}", "--port", str(port)]
    command += ["--seconds" if step.figure == "idle" else "--jobs", f"{step.size:g}"]
    if step.figure == "sleepers":
        command += ["--workers", str(step.workers)]
    return answer_to(command, {})


def answer_over_http(server: Program | None, seconds: float, port: int) -> Values:
    command = [sys.executable, "-m", "tests.benchmarks.http", "--port", str(port), "--seconds", f"{seconds:g}"]
    return answer_to([*command, "--server", shlex.join(server.command) if server else ""], {})


def answer(program: Program, figure: str, jobs: float, port: int) -> Values:
    return answer_to([*program.command, figure, "--jobs", f"{jobs:g}", "--port", str(port)], dict(program.environ))


def answer_to(command: list[str], environ: dict[str, str]) -> Values:
    """What a program in a process of its own prints last.

    Raises:
        NoAnswer: it failed, or took too long.
    """
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**environment(), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us, and then it is ended below
        preexec_fn=die_with_parent(signal.SIGTERM),
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"no answer within {TIMEOUT_S} s") from None
        finally:
            end(process)
    try:
        return msgspec.json.decode(last_line(printed), type=Values)
    except msgspec.DecodeError:
        reason = last_line(complaints) or f"it ended with code {process.returncode} and said nothing"
        raise NoAnswer(PATH.sub("", reason)[:REASON_LENGTH]) from None


def end(process: "subprocess.Popen[str]") -> None:
    """The process has ended, and with it what it has started."""
    if process.poll() is None:
        descendants = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        kill(descendants)
        process.kill()
        process.wait()


def server_version(client: Redis) -> str:
    server: Any = client.info("server")
    return f"{server.get('server_name', 'redis')} {server.get('valkey_version', server['redis_version'])}"


def as_rich(table: Table) -> RichTable:
    rich = RichTable(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(table.columns):
        rich.add_column(column, justify="right" if index else "left")
    for row in table.rows:
        if not {row[0], row[1]} & {NOT_MEASURED}:
            rich.add_row(*row)
    return rich


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        progress_out.print("Stopped; nothing is written.")
        sys.exit(130)
