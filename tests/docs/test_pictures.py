"""The pictures and drawings of the docs come from runs of the sandbox."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.lengths import LONG
from support.running import PATIENCE_S, REPOSITORY

DOCS = REPOSITORY / "docs"
PICTURES = DOCS / "pictures"

# A page with its pictures is loaded over slow networks, too.
BYTES_MAX = 100_000

# Text → the page that quotes it.
QUOTED = {"chart.txt": "how-to/querying.md", "coverage.txt": "how-to/operating.md"}


@pytest.mark.parametrize("name", QUOTED)
def test_pages_quote_the_drawings(name: str) -> None:
    """The page has the text that the script wrote, unchanged."""
    assert f"\n{(PICTURES / name).read_text()}" in (DOCS / QUOTED[name]).read_text()


def test_every_picture_is_shown_and_small() -> None:
    """Each picture is on a page, has a text for those who cannot see it, and is small."""
    pages = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    shown = dict(re.findall(r"!\[([^]]{20,})\]\([./]*pictures/(\S+)\)", pages))
    files = {path.name for path in PICTURES.iterdir() if path.suffix in (".png", ".svg")}
    assert set(shown.values()) == files
    for name in files:
        assert (PICTURES / name).stat().st_size < BYTES_MAX


@pytest.mark.long
@pytest.mark.skipif(not LONG, reason="the short form compares the texts with the pages only")
def test_the_script_makes_them_again(tmp_path: Path) -> None:
    """A new run of the sandbox gives the same texts, and pictures of the same names."""
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    command = [sys.executable, str(PICTURES / "make.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    for name in QUOTED:
        assert (tmp_path / name).read_text() == (PICTURES / name).read_text()
    # `make_page.py` makes those of the page, in real time.
    of_page = {"make_page.py", "page.png", "page-phone.png"}
    made = {path.name for path in PICTURES.iterdir() if path.is_file()} - {"make.py"} - of_page
    assert {path.name for path in tmp_path.iterdir()} == made
