"""Tests, benchmarks and tools use no name that the package does not have (any more)."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [
    path.relative_to(ROOT)
    for directory in ("tests", "benchmarks", "tools", "docs")
    for path in sorted((ROOT / directory).rglob("*.py"))
]
PACKAGES = ("lakewriter", "pyspark_lakewriter")


def missing_names(source: str) -> list[str]:
    """Return the names of our modules that a source imports or reads, and that do not exist."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    missing = []
    for module, name, alias in _imports(tree):
        if _is_module(f"{module}.{name}" if name else module):
            modules[alias] = f"{module}.{name}" if name else module
        elif not hasattr(importlib.import_module(module), name):
            missing.append(f"{module}.{name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id, "")
            read = module and isinstance(node.ctx, ast.Load) and not _is_module(f"{module}.{node.attr}")
            if read and not hasattr(importlib.import_module(module), node.attr):
                missing.append(f"{module}.{node.attr}")
    return sorted(missing)


def _imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """Yield the module, the name and the local name of each import from our packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
            yield from ((node.module or "", each.name, each.asname or each.name) for each in node.names)
        elif isinstance(node, ast.Import):
            for each in node.names:
                if each.name.partition(".")[0] in PACKAGES and each.asname:
                    yield each.name, "", each.asname


def _is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module of an extra that is not installed exists all the same.
        return error.name is None or not name.startswith(error.name)
    return True


def test_every_name_exists() -> None:
    """Each name that a file takes from the package is there."""
    found = {str(path): missing_names((ROOT / path).read_text()) for path in FILES}
    assert len(found) > 300
    assert {path: names for path, names in found.items() if names} == {}


def test_a_missing_name_is_found() -> None:
    """A name that was imported, and one that is read from a module."""
    source = (
        "from lakewriter.lake import compact\nfrom lakewriter.lake.compact import gone, compact_partition\n"
        "compact.lost(1)\ncompact.compact_partition\nimport lakewriter.candle as c\nc.to_table\nc.to_tabel"
    )
    assert missing_names(source) == [
        "lakewriter.candle.to_tabel",
        "lakewriter.lake.compact.gone",
        "lakewriter.lake.compact.lost",
    ]
