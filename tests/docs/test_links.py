"""Every link of the documentation leads somewhere."""

import pytest

from tests.docs.pages import PAGES, ROOT, Page, read_page


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_relative_links_lead_to_a_file_and_a_heading(page: Page) -> None:
    broken = []
    for link in page.links:
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        found = target.exists() and target.is_relative_to(ROOT)
        if not found or (anchor and anchor not in read_page(target).anchors):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    by_path = {page.path: page for page in PAGES}
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in reached or path not in by_path:
            continue
        reached.add(path)
        ahead += [(path.parent / link.partition("#")[0]).resolve() for link in by_path[path].links]
    assert reached == set(by_path)
