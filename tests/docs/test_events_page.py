"""``docs/reference/events.md`` lists the kinds of events as the code has them."""

import ast
from typing import Final

from bridge.events import KINDS, RESULT_LIMIT_BYTES, Event
from tests.docs.pages import ROOT, plain, read_page

PAGE: Final = read_page(ROOT / "docs/reference/events.md")
OVERVIEW: Final = PAGE.table("kind", "fires when", "written today")


def test_overview_lists_every_kind_in_order() -> None:
    assert [plain(row["kind"]) for row in OVERVIEW.rows] == list(KINDS)


def test_every_kind_has_a_section_with_the_table_of_its_data() -> None:
    sections = {table.heading: table.note for table in PAGE.tables if table.heading in KINDS}
    assert sections == {kind: f"bridge.events.{data.__name__}" for kind, data in KINDS.items()}


def test_overview_tells_what_is_written_today() -> None:
    told = {plain(row["kind"]) for row in OVERVIEW.rows if row["written today"] == "yes"}
    assert told == {kind for kind in KINDS if kind != "stream.gap"} & kinds_in_use()


def kinds_in_use() -> set[str]:
    """Kinds that a script writes, or whose Struct is made somewhere outside of `bridge.events`."""
    made = set()
    for path in (path for room in ("bridge", "workers", "cli") for path in (ROOT / room).rglob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        made |= {function.id for function in calls if isinstance(function, ast.Name)}
    scripts = "".join(path.read_text() for path in (ROOT / "bridge/lua").glob("*.lua"))
    code = "\n".join(line for line in scripts.splitlines() if not line.startswith("--"))
    return {kind for kind, data in KINDS.items() if data.__name__ in made or f"'{kind}'" in code}


def test_fields_of_an_entry_are_listed() -> None:
    table = PAGE.table("field", "present", "content")
    assert [plain(row["field"]) for row in table.rows] == [name for name in Event.__struct_fields__ if name != "id"]


def test_limit_of_a_result_is_told() -> None:
    assert str(RESULT_LIMIT_BYTES) in (ROOT / "docs/reference/events.md").read_text()
