"""``docs/benchmarks.md``: what stands between its two marks is written from a report, the rest by hand."""

from typing import Final

from tests.benchmarks.contenders import TITLES
from tests.benchmarks.report import Report
from tests.benchmarks.tables import Table, tables

__all__ = ["BEGIN", "END", "with_report"]

BEGIN: Final = "<!-- measured: `make bench` writes from here on -->"
END: Final = "<!-- measured: to here -->"


def with_report(page: str, report: Report) -> str:
    """The page with this report in place of the one it had.

    Raises:
        ValueError: the page lacks the marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{render(report)}\n\n{END}{after}"


def render(report: Report) -> str:
    sections = [f"## {table.title}\n\n{markdown(table)}" for table in tables(report)]
    return "\n\n".join([*sections, f"## This run\n\n{circumstances(report)}"])


def markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def circumstances(report: Report) -> str:
    machine = report.machine
    load = "" if machine.load is None else f", load average {machine.load:g} before it began"
    lines = [
        f"{report.date:%Y-%m-%d %H:%M} UTC, commit {report.commit}, `{report.command}`",
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gb:g} GB, {machine.system}{load}",
        f"rounds: {report.rounds}",
        *(f"{TITLES.get(name, name)}: {versions}" for name, versions in report.versions.items()),
        *(f"left out: {TITLES[name]}: {reason}" for name, reason in report.left_out.items()),
    ]
    return "\n".join(f"- {line}" for line in lines)
