"""The project's files name no folder of one machine, and no package index."""

import re
import subprocess
from typing import Final

import pytest

from tests.docs.pages import ROOT

ROOTS: Final = b"|".join([b"work", b"root", b"home", b"Users"])
LOCAL_PATH: Final = re.compile(rb"(?<![\w.~*\-/])/(?:" + ROOTS + rb")/[\w.]")
INDEX: Final = re.compile(rb"--(?:extra-)?index-url|files\.python" + rb"hosted|pypi\." + rb"(?:org|python\.org)/simple")


def test_no_file_names_a_local_path_or_an_index() -> None:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    found = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and (hit := LOCAL_PATH.search(content := path.read_bytes()) or INDEX.search(content)):
            found[name] = hit[0]
    assert found == {}


@pytest.mark.parametrize("text", [b" /home/ada", b'"/root/x"', b"--index-url https://", b"`/work/main`"])
def test_such_names_are_recognised(text: bytes) -> None:
    assert LOCAL_PATH.search(text) or INDEX.search(text)


@pytest.mark.parametrize("text", [b"https://example.org/home/ada", b"docs/work/x", b"the /home page"])
def test_others_are_not(text: bytes) -> None:
    assert not LOCAL_PATH.search(text)
    assert not INDEX.search(text)
