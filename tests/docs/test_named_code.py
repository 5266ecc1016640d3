"""CONTRIBUTING and docs name only code that exists: symbols, modules of markets, imports, limits."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakewriter.lake import forgotten, instruments, storage, subscriptions
from lakewriter.lake.gaps.log import LEDGER_BYTES_MAX
from lakewriter.lake.lines import LINE_BYTES_MAX
from lakewriter.lake.parquet import ROWS_MAX
from lakewriter.lake.segments import SEGMENT_BYTES_MAX
from lakewriter.market import MARKETS
from support.running import REPOSITORY

PACKAGE = REPOSITORY / "lakewriter"
PAGES = ("CONTRIBUTING.md", "docs/explanation/architecture.md", "docs/reference/on-disk.md")

# A class, a constant, or a member of a class.
_SYMBOL = re.compile(r"[A-Z][A-Za-z_]{2,}(\.[a-z_]+)?")

# Modules that may name a market, because it is an example or stands for any other.
_EXAMPLES = {"config.py", "evidence/choice.py", "evidence/columns.py", "binance/archive_files.py"}


def defined_in(path: Path) -> Iterator[str]:
    """Yield the names that a module defines: its own, and `Class.member`."""
    for node in ast.parse(path.read_text()).body:
        yield from _names_of(node)
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for member in node.body for name in _names_of(member))


def _names_of(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))


def named_symbols(line: str) -> list[str]:
    """Return the symbols between the backticks of a line."""
    return [span for span in re.findall(r"`([^`]+)`", line) if _SYMBOL.fullmatch(span)]


@pytest.mark.parametrize("page", PAGES)
def test_symbols_are_defined_in_the_files_named_beside_them(page: str) -> None:
    """A symbol beside files of the package is defined in one of them; a member, or one alone, in any module."""
    everywhere = {name for path in PACKAGE.rglob("*.py") for name in defined_in(path)}
    for line in (REPOSITORY / page).read_text().splitlines():
        files = [REPOSITORY / file for file in re.findall(r"`(lakewriter/[\w/]+\.py)`", line)]
        defined = {name for file in files for name in defined_in(file)} if files else everywhere
        for symbol in named_symbols(line):
            assert symbol in (everywhere if "." in symbol else defined), f"{page}: {line}"


def test_symbols_are_found() -> None:
    """The steps of CONTRIBUTING name symbols, so the test above has something to check."""
    lines = (REPOSITORY / "CONTRIBUTING.md").read_text().splitlines()
    found = {symbol for line in lines for symbol in named_symbols(line)}
    assert {"MARKETS", "FAULTS", "FRAME_FAULTS", "FORMATS", "RecorderStatus", "Storage"} <= found


def test_only_the_modules_of_the_list_name_a_market() -> None:
    """Outside of the sandbox, only the modules that CONTRIBUTING lists name a market."""
    steps = (REPOSITORY / "CONTRIBUTING.md").read_text().partition("### A market\n")[2].partition("\n### ")[0]
    listed = set(re.findall(r"`lakewriter/([\w/]+\.py)`", steps))
    naming = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in MARKETS
    }
    assert {name for name in naming if not name.startswith("sandbox/")} <= listed | _EXAMPLES


def imports_of(path: Path) -> set[str]:
    """Return the packages that a module imports, such as "duckdb", or the folder "lakewriter/lake"."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {"/".join(module.split(".")[: 2 if module.startswith("lakewriter.") else 1]) for module in modules}


def test_no_folder_imports_what_it_may_not() -> None:
    """No folder imports the packages in the third column of the table of folders."""
    page = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(lakewriter/\w+)` \| .* \| ([^|]+) \|$", page, re.MULTILINE)
    assert len(rows) == len(list(PACKAGE.glob("*/__init__.py")))
    for folder, forbidden in rows:
        names = re.findall(r"\w+", forbidden.removeprefix("import ")) if "import " in forbidden else []
        packages = {"duckdb" if name == "DuckDB" else f"lakewriter/{name}" for name in names}
        for path in (REPOSITORY / folder).rglob("*.py"):
            assert not imports_of(path) & packages, path
    others = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "cli" not in path.parents]
    assert [path.name for path in others if "lakewriter/cli" in imports_of(path)] == ["__main__.py"]


def test_the_limits_of_the_disk_are_the_codes() -> None:
    """The limits in the page on the disk equal the code's."""
    text = (REPOSITORY / "docs" / "reference" / "on-disk.md").read_text().partition("\n## Limits\n")[2]
    mib = 1024 * 1024
    assert f"at most {LINE_BYTES_MAX // 1024} KiB (`lakewriter/lake/lines.py`)" in text
    assert f"at most {SEGMENT_BYTES_MAX // mib} MiB (`lakewriter/lake/segments.py`)" in text
    assert f"up to {LEDGER_BYTES_MAX // mib} MiB (`lakewriter/lake/gaps/log.py`)" in text
    assert f"up to {storage.FILE_BYTES_MAX // mib} MiB (`lakewriter/lake/storage.py`)" in text
    assert f"at most {ROWS_MAX:,} rows (`lakewriter/lake/parquet.py`)" in text
    sizes = {module.FILE_BYTES_MAX // mib for module in (instruments, subscriptions, forgotten)}
    assert [f"read up to {size} MiB" in text for size in sizes] == [True]
