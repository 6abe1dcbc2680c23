"""The project's files name no folder of one machine, and no package index."""

import re
import subprocess
from typing import Final

import pytest

from tests.docs.pages import ROOT

LOCAL_PATH: Final = re.compile(rb"(?<![\w.~*/-])/(work|root|home|Users)/[\w.]")
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


@pytest.mark.parametrize("text", [b" /%s/ada" % b"home", b'"/%s/x"' % b"root", b"`/%s/main`" % b"work"])
def test_local_paths_are_recognised(text: bytes) -> None:
    assert LOCAL_PATH.search(text)


@pytest.mark.parametrize("text", [b"https://example.org/home/x", b"docs/work/x", b"the /home page", b"~/own/x"])
def test_other_paths_are_not(text: bytes) -> None:
    assert not LOCAL_PATH.search(text)


@pytest.mark.parametrize("option", [b"index-url", b"extra-index-url"])
def test_indexes_are_recognised(option: bytes) -> None:
    assert INDEX.search(b"pip install --%s https://packages.example" % option)
