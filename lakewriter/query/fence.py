"""What an engine may touch, should the guard ever miss something: the lake, and where it spills."""

import secrets
import tempfile
from pathlib import Path

import duckdb

from lakewriter.query import engine


def shut_in(connection: duckdb.DuckDBPyConnection, root: Path, *, readable: bool) -> None:
    """Take from the engine all files but what it spills, and those in a readable root; for good."""
    # Before 2.0 the engine compares what it is told to look for, before it has looked.
    names = {str(root), engine.path_text(str(root))} if readable else set()
    connection.execute(
        f"SET temp_directory={_quoted(_spill_directory(root))};"
        f" SET allowed_directories=[{', '.join(map(_quoted, sorted(names)))}]; SET enable_external_access=false"
    )


def lock(connection: duckdb.DuckDBPyConnection) -> None:
    """Take from the engine its settings."""
    connection.execute("SET lock_configuration=true")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _spill_directory(root: Path) -> str:
    """Return where the engine may spill; it makes and removes the directory. "" is nowhere."""
    temporary = Path(tempfile.gettempdir()).resolve()
    if temporary.is_relative_to(root):
        return ""
    return str(temporary / f"lakewriter-query-{secrets.token_hex(8)}")
