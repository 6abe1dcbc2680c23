"""Sessions of the documentation, typed into a shell beside a `make serve` of the test's own."""

from pathlib import Path

import pytest

from tests.cli.conftest import embedded_cli
from tests.cli.processes import Commands
from tests.docs.pages import PAGES, Page, read_page
from tests.docs.transcript import Session, read_steps
from tests.end_to_end.serving import Serving

__all__ = ["embedded_cli"]

SESSIONS = [page for page in PAGES if any(block.language == "console" for block in page.blocks)]


@pytest.mark.parametrize("page", SESSIONS, ids=str)
def test_session_goes_as_the_page_shows(page: Page, embedded_cli: Commands) -> None:
    serving = Serving(embedded_cli)
    session = Session(f"http://127.0.0.1:{serving.port}")
    try:
        for step in read_steps(page):
            session.check(step, session.run(step))
    finally:
        session.close()
        serving.close()


def test_output_that_differs_is_told(tmp_path: Path) -> None:
    session = Session("http://127.0.0.1:1")
    try:
        path = tmp_path / "page.md"
        ids = [f"{digit}" * 32 for digit in "abc"]
        text = f'```console\n$ echo {ids[1]}; echo \'{{"at_ms":17,"id":"{ids[1]}"}}\'\n'
        path.write_text(f'{text}{ids[0]}\n{{"at_ms":5,"id":"{ids[0]}"}}\n```\n')
        check(session, path)
        assert session.known == {ids[0]: ids[1]}
        path.write_text(f'{text}{ids[0]}\n{{"at_ms":5,"id":"{ids[2]}"}}\n```\n')
        check(session, path)
        path.write_text(f'{text}{ids[0]}\n{{"at_ms":5,"no":"{ids[0]}"}}\n```\n')
        with pytest.raises(AssertionError, match="the page says"):
            check(session, path)
        path.write_text(f"{text}{ids[0]}\n```\n")
        with pytest.raises(AssertionError, match="printed"):
            check(session, path)
    finally:
        session.close()


def check(session: Session, path: Path) -> None:
    for step in read_steps(read_page(path)):
        session.check(step, session.run(step))
