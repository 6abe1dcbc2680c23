"""``docs/reference/settings.md`` lists the settings as the code has them."""

from typing import Final

from bridge.settings import VARIABLES, Settings, read_settings
from tests.docs.pages import ROOT, plain, read_page

TABLE: Final = read_page(ROOT / "docs/reference/settings.md").table("variable", "default", "type", "meaning")


def test_table_lists_every_variable_in_order() -> None:
    assert [plain(row["variable"]) for row in TABLE.rows] == list(VARIABLES)


def test_defaults_are_those_of_the_code() -> None:
    for row in TABLE.rows:
        default = "" if row["default"] == "(empty)" else plain(row["default"])
        set_explicitly = read_settings({plain(row["variable"]): default})
        assert set_explicitly == Settings(), row["variable"]
        assert default or getattr(Settings(), VARIABLES[plain(row["variable"])]) in {"", ()}
