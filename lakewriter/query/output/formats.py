"""The table of the output formats. The module imports nothing of lakewriter.

`--format`, `-o`, the shell's `.mode` and the writers use the table. A new format
needs an entry here, and one function in `writers`.
"""

from typing import NamedTuple


class Format(NamedTuple):
    """The properties of an output format. Its function in `writers` has the format's name.

    Args:
        suffixes: the suffixes of files in this format, with the dot.
        binary: whether a terminal cannot show the format.
        for_people: whether people read the format, so that a pager shows long answers.
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
    "tsv": Format((".tsv", ".tab")),
    "json": Format((".json",)),
    "ndjson": Format((".ndjson", ".jsonl")),
    "markdown": Format((".md",), for_people=True),
    "parquet": Format((".parquet", ".pq", ".pqt"), binary=True),
    "arrow": Format((".arrow", ".arrows"), binary=True),
    "xlsx": Format((".xlsx",), binary=True),
}


def format_of(suffix: str) -> str | None:
    """Return the name of the format with a file's suffix, such as ".csv"; None if it is unknown."""
    for name, kind in FORMATS.items():
        if suffix.lower() in kind.suffixes:
            return name
    return None


def text_formats() -> tuple[str, ...]:
    """Return the names of the formats that a terminal can show."""
    return tuple(name for name, kind in FORMATS.items() if not kind.binary)


def text_formats_explained() -> str:
    """Return a help text with the formats that a terminal can show, and their notes."""
    *names, last = [
        f"{name} ({FORMATS[name].note})" if FORMATS[name].note else name for name in text_formats()
    ]
    return f"{', '.join(names)} or {last}"
