"""The documentation as data: pages with their headings, tables, code blocks and links."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

__all__ = ["PAGES", "ROOT", "Block", "Page", "Table", "plain", "read_page"]

ROOT: Final = Path(__file__).parents[2]
NOTE: Final = re.compile(r"<!-- (?P<kind>example|fields): (?P<text>.*) -->")
LINK: Final = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced piece of code. ``note`` is what the comment above it says, ``""`` without one."""

    language: str
    text: str
    line: int
    note: str


@dataclass(frozen=True)
class Table:
    """A table: its rows by column, the heading above it, and what the comment above it says."""

    heading: str
    note: str
    columns: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Page:
    """A Markdown file."""

    path: Path
    headings: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def anchors(self) -> set[str]:
        """What a link may name after ``#``: the headings as GitHub writes them."""
        return {re.sub(r"[^\w\- ]", "", plain(heading).lower()).replace(" ", "-") for heading in self.headings}

    def table(self, *columns: str) -> Table:
        """The one table with these columns."""
        (found,) = [table for table in self.tables if table.columns == list(columns)]
        return found


def plain(cell: str) -> str:
    """The text without code marks, and of a link only its words."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("`", "").strip()


def read_page(path: Path) -> Page:
    """The page in this file."""
    page = Page(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    note, number = "", 0
    while number < len(lines):
        line = lines[number]
        if line.startswith("```"):
            end = lines.index("```", number + 1)
            page.blocks.append(Block(line[3:], "\n".join(lines[number + 1 : end]) + "\n", number + 1, note))
            number = end
        elif line.startswith("|"):
            end = next((n for n in range(number, len(lines)) if not lines[n].startswith("|")), len(lines))
            heading = page.headings[-1] if page.headings else ""
            page.tables.append(read_table(lines[number:end], heading, note))
            page.links += [link for row in lines[number:end] for link in LINK.findall(row)]
            number = end - 1
        elif line.startswith("#"):
            page.headings.append(line.lstrip("#").strip())
        found = NOTE.fullmatch(line)
        note = found["text"] if found else note if not line else ""
        if not line.startswith(("|", "```")):
            page.links += LINK.findall(line + " " + lines[number + 1] if number + 1 < len(lines) else line)
        number += 1
    return page


def read_table(lines: list[str], heading: str, note: str) -> Table:
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return Table(heading, note, columns, [dict(zip(columns, row, strict=True)) for row in rows])


PAGES: Final = [read_page(path) for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])]
"""Every page of the project."""
