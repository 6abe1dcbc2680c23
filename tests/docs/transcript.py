"""Sessions in the documentation: what a ``console`` block shows is typed into a shell, and the output compared.

A line that begins with ``$ `` is a command; ``> `` continues it. The lines below it are its output. Ids and event ids
of the page stand for those of the run: the first time one is printed it is learned, from then on it has to be the
same, also in commands. Times, durations, names of workers and ids of requests may be any.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.docs.pages import Page

__all__ = ["Session", "Step", "read_steps"]

END: Final = "end-of-the-command"
HOST: Final = "http://localhost:8000"
IDS: Final = r"\b[0-9]{13}-[0-9]+\b|\b[0-9a-f]{32}\b"
VARYING: Final[Mapping[str, str]] = {
    "id": IDS,
    "instant": r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?",
    "number": r'(?<=_ms":)\d+(?:\.\d+)?|(?<="draw":)[0-9.]+|(?<=drew )[0-9.]+\b',
    "name": r'(?<="worker":")[^"]+|(?<="request_id":")[^"]+',
}
ANY: Final = {"instant": VARYING["instant"], "number": r"\d+(?:\.\d+)?", "name": r'[^"]+'}
TOKEN: Final = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in VARYING.items()))


@dataclass(frozen=True)
class Step:
    """A command of a page, and what the page says that it prints."""

    command: str
    expected: str
    line: int


def read_steps(page: Page) -> Iterator[Step]:
    """The commands of the page's ``console`` blocks, from the top to the bottom."""
    for block in page.blocks:
        if block.language == "console":
            lines = block.text.splitlines()
            starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
            for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
                typed = [lines[start], *[line for line in lines[start + 1 : end] if line.startswith("> ")]]
                output = [line for line in lines[start + 1 : end] if not line.startswith("> ")]
                yield Step("\n".join(line[2:] for line in typed), "\n".join(output).strip(), block.line + start + 1)


@dataclass
class Session:
    """A shell in which the commands of a page are typed.

    Attributes:
        base_url: what ``http://localhost:8000`` stands for.
        known: id of the page -> id of this run.
    """

    base_url: str
    known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, step: Step) -> str:
        """What the command printed."""
        assert self.shell.stdin
        assert self.shell.stdout
        command = re.sub(IDS, lambda found: self.known.get(found[0], found[0]), step.command)
        self.shell.stdin.write(f"{command.replace(HOST, self.base_url)}\nprintf '\\n{END}\\n'\n")
        self.shell.stdin.flush()
        lines = iter(self.shell.stdout.readline, f"{END}\n")
        return "".join(line.removeprefix("\ufeff") for line in lines).replace(self.base_url, HOST).strip()

    def check(self, step: Step, output: str) -> None:
        """The output is the one that the page shows; its new ids are known from now on."""
        shown = [line.rstrip() for line in step.expected.splitlines()]
        printed = [line.rstrip() for line in output.splitlines()]
        for number, (expected, actual) in enumerate(zip(shown, printed, strict=False)):
            self.compare(expected, actual, step.line + number)
        assert len(printed) == len(shown), f"line {step.line}: `{step.command}` printed\n{output}"

    def compare(self, expected: str, actual: str, line: int) -> None:
        pattern, names, end = "", [], 0
        for found in TOKEN.finditer(expected):
            pattern += re.escape(expected[end : found.start()])
            kind, end = str(found.lastgroup), found.end()
            if kind == "id" and found[0] in self.known:
                pattern += re.escape(self.known[found[0]])
            elif kind == "id":
                pattern += f"({IDS})"
                names.append(found[0])
            else:
                pattern += ANY[kind]
        match = re.fullmatch(pattern + re.escape(expected[end:]), actual)
        assert match, f"line {line}: the page says\n{expected}\nbut it is\n{actual}\nknown: {self.known}"
        self.known.update(zip(names, match.groups(), strict=True))

    def close(self) -> None:
        """The shell has ended."""
        self.shell.communicate(timeout=30)
