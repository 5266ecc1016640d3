"""The docs site: every page has its place in the navigation."""

import re

from support.running import REPOSITORY

CONFIG = (REPOSITORY / "mkdocs.yml").read_text()


def test_every_page_is_in_the_navigation() -> None:
    """The navigation of mkdocs.yml has each page under docs/ once, and no other."""
    listed = re.findall(r"(\S+\.md)$", CONFIG.partition("\nnav:\n")[2], re.MULTILINE)
    pages = (REPOSITORY / "docs").rglob("*.md")
    assert sorted(listed) == sorted(str(page.relative_to(REPOSITORY / "docs")) for page in pages)
