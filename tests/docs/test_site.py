"""The docs site: pages have their place, generated parts are whole, the build is strict and uses no network."""

import html.parser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

from lakewriter.cli import COMMANDS, cli
from lakewriter.config import Config, Endpoints
from lakewriter.query.macros import MACROS
from lakewriter.query.saved import saved_queries
from lakewriter.query.statement.guard import TABLES
from support.running import PATIENCE_S, REPOSITORY

CONFIG = (REPOSITORY / "mkdocs.yml").read_text()
PAGES = {
    str(page.relative_to(REPOSITORY / "docs")): page.read_text()
    for page in sorted((REPOSITORY / "docs").rglob("*.md"))
}


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """Return the generated parts of the reference, by their names in the pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "tools"))
        import reference_text

        return {name: generate() for name, generate in reference_text.GENERATORS.items()}


def test_every_page_is_in_the_navigation() -> None:
    """The navigation of mkdocs.yml has each page under docs/ once, and no other."""
    listed = re.findall(r"(\S+\.md)$", CONFIG.partition("\nnav:\n")[2], re.MULTILINE)
    assert sorted(listed) == sorted(PAGES)


def test_every_generated_part_has_one_place(generated: dict[str, str]) -> None:
    """Each generated part is marked in one page, with text for readers of the file."""
    parts = re.findall(
        r"^<!-- generated: (\w+) -->\n(.+)\n<!-- end -->$", "\n".join(PAGES.values()), re.MULTILINE
    )
    assert sorted(name for name, _ in parts) == sorted(generated)
    assert all(text.strip() for _, text in parts)


def test_each_command_and_option_is_in_the_reference(generated: dict[str, str]) -> None:
    """Each command has a section with each of its options, and no option is without a meaning."""
    sections = dict(
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", generated["commands"], re.DOTALL | re.MULTILINE)
    )
    assert set(COMMANDS) <= set(sections)
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in (each for each in command.params if isinstance(each, click.Option) and not each.hidden):
            assert option.opts[-1] in sections[name], f"{name} {option.opts}"
            assert option.help, f"{name} {option.opts} has no help"


def test_each_key_of_the_config_is_in_the_reference(generated: dict[str, str]) -> None:
    """Each key of lakewriter.toml has a row with its meaning, and with its default."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", generated["config"], re.MULTILINE)
    fields = [*msgspec.structs.fields(Config), *msgspec.structs.fields(Endpoints)]
    assert [row[0] for row in rows] == [field.encode_name for field in fields]
    assert {row[0]: row[2] for row in rows}["flush_every"] == f'`"{Config().flush_every}"`'


def test_sql_is_in_the_reference(generated: dict[str, str]) -> None:
    """Each table with its columns, each function with its signature, and each saved query has a section."""
    assert re.findall(r"^### (\w+)$", generated["tables"], re.MULTILINE) == list(TABLES)
    assert "| `candle_begin_time` | TIMESTAMPTZ |" in generated["tables"]
    assert re.findall(r"^### (\w+)$", generated["functions"], re.MULTILINE) == list(MACROS)
    for macro in MACROS.values():
        assert macro.signature in generated["functions"]
    assert re.findall(r"^### (\w+)$", generated["queries"], re.MULTILINE) == [
        query.name for query in saved_queries(None)
    ]


class _Links(html.parser.HTMLParser):
    """The links, the anchors, and the things that a browser fetches by itself, of one built page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(given.get("href", ""))
        elif "src" in given:
            self.fetched.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, as `make docs` does, without a network; return its directory."""
    if importlib.util.find_spec("zensical") is None:
        pytest.skip("needs the extra `docs`")
    directory = tmp_path_factory.mktemp("docs")
    shutil.copytree(REPOSITORY / "docs", directory / "docs")
    (directory / "mkdocs.yml").write_text(CONFIG.replace("paths: [.]", f"paths: [{REPOSITORY}]"))
    # Every connection goes to a proxy that does not exist.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("zensical")), "build", "--clean", "--strict"],
        cwd=directory,
        env={**os.environ, **nowhere, "PYTHONPATH": str(REPOSITORY / "tools")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    said = [line for line in printed.splitlines() if line and not line.startswith("Build ")]
    assert said == ["No issues found"], printed
    return directory / "site"


@pytest.mark.slow
def test_the_site_has_every_page_and_no_broken_link(site: Path) -> None:
    """Each page is built; each link of it leads to a file of the site, and to an anchor there."""
    pages = {path: _Links(path.read_text()) for path in site.rglob("*.html")}
    built = {str(path.relative_to(site)) for path in pages}
    assert {page.removesuffix(".md") + ".html" for page in PAGES} <= built
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            target, _, anchor = link.partition("#")
            if re.match(r"https?:", target):
                continue
            file = (path.parent / target).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            assert file.is_file(), f"{path.name}: {link}"
            assert not anchor or anchor in pages[file].anchors | {"__skip"}, f"{path.name}: {link}"


@pytest.mark.slow
def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    """No page makes a browser fetch anything from another host."""
    for path in site.rglob("*.html"):
        for url in _Links(path.read_text()).fetched:
            assert not re.match(r"(https?:)?//", url), f"{path.name}: {url}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", path.read_text()), path


@pytest.mark.slow
def test_generated_parts_are_in_the_site(site: Path) -> None:
    """The pages of the site have the generated sections, in place of the text for readers of the file."""
    commands = (site / "reference" / "cli.html").read_text()
    assert all(f'id="{name}"' in commands for name in COMMANDS)
    assert "The site has a section" not in commands
    python = (site / "reference" / "python.html").read_text()
    assert all(
        f">{name}<" in re.sub(r"\s+", "", python) for name in ("open_lake", "candles_arrow", "CandleListener")
    )
