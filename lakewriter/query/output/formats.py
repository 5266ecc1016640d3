"""The output formats: the one table that knows them. It imports nothing of lakewriter.

`--format`, `-o`, the shell's `.mode` and the writers use it. A new format is an
entry here, and one function in `writers`.
"""

from pathlib import Path
from typing import NamedTuple


class Format(NamedTuple):
    """What an output format is for. Its function in `writers` bears its name.

    Args:
        suffixes: of files in this format, with the dot.
        binary: whether a terminal cannot show it.
        for_people: whether it is lines to read, which are worth a pager.
        note: an explanation for the shell's help.
    """

    suffixes: tuple[str, ...] = ()
    binary: bool = False
    for_people: bool = False
    note: str = ""


FORMATS = {
    "table": Format((".txt",), for_people=True),
    "line": Format(for_people=True, note="a line for each value"),
    "csv": Format((".csv",)),
    "json": Format((".json",)),
    "ndjson": Format((".ndjson", ".jsonl")),
    "markdown": Format((".md",), for_people=True),
    "parquet": Format((".parquet", ".pq", ".pqt"), binary=True),
    "arrow": Format((".arrow", ".arrows"), binary=True),
}


def format_of(path: Path) -> str | None:
    """Return the format that a file's suffix stands for; None if the suffix is unknown."""
    for name, kind in FORMATS.items():
        if path.suffix.lower() in kind.suffixes:
            return name
    return None


def text_formats() -> tuple[str, ...]:
    """Return the formats that a terminal can show."""
    return tuple(name for name, kind in FORMATS.items() if not kind.binary)


def text_formats_explained() -> str:
    """Return the formats that a terminal can show, with their notes, for a help text."""
    *names, last = [
        f"{name} ({FORMATS[name].note})" if FORMATS[name].note else name for name in text_formats()
    ]
    return f"{', '.join(names)} or {last}"
