import re
from pathlib import Path

import pytest

from bridge import keys

ROOMS = ("bridge", "workers", "cli")
ROOT = Path(__file__).parents[2]
KEY = re.compile(r"""["'](arq:|aegis:)""")


def test_no_other_file_spells_a_key() -> None:
    sources = [path for room in ROOMS for ending in ("py", "lua") for path in (ROOT / room).rglob(f"*.{ending}")]
    assert len(sources) > 30
    spellers = {path.name for path in sources if KEY.search(path.read_text(encoding="utf-8"))}
    assert spellers == {"keys.py"}


@pytest.mark.parametrize("name", ["system", "load_test", "a:b"])
def test_queue_name_is_read_back_from_its_key(name: str) -> None:
    assert keys.queue_name(keys.queue(name)) == name


def test_foreign_queue_is_its_own_name() -> None:
    assert keys.queue_name("emails") == "emails"
    assert keys.queue_name("arq:queue") == "default"
