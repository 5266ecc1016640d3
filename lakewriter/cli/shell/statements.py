"""The splitting of text into statements, and the completion of names. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple

# The end of a statement whose answer shows one value per line, as in MySQL and MariaDB.
LINE_MARK = r"\G"

# Text in which a semicolon does not end a statement.
_WHOLE = re.compile(
    r"""
    --[^\n]*(?:\n|\Z)
    | /\*.*?\*/
    | [eE]'(?:\\.|''|[^'\\])*'
    | '(?:''|[^'])*'
    | "(?:""|[^"])*"
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENS = re.compile(r"""/\*|'|"|\$\w*\$""")
# The group is atomic, so a comment ends at its first end mark and never at a later one.
_BLANK = re.compile(r"(?>\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)

# Command of another shell → the command of this shell.
_OTHER_SHELLS = {
    **dict.fromkeys(("exit", "quit", r"\q"), ".quit"),
    **dict.fromkeys(("help", "?", r"\?", r"\h"), ".help"),
    **dict.fromkeys((r"\d", r"\dt"), ".tables"),
}

# Kinds of names that may follow FROM.
READABLE = ("table", "function")

_WORD = re.compile(r"\w*\Z")
_AFTER_FROM = re.compile(r"\b(?:FROM|JOIN)\s+\Z", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*\Z")


def split_statements(text: str) -> tuple[list[str], str]:
    """Return the complete statements without semicolons, and the text after the last of them.

    A LINE_MARK also ends a statement, and stays part of the statement.
    """
    found: list[str] = []
    start = at = 0
    while at < len(text):
        whole = _WHOLE.match(text, at)
        # A quote inside a word starts no quoted text, such as the $ in a$b$.
        if whole and not (text[at] in "eE$" and at and (text[at - 1].isalnum() or text[at - 1] == "_")):
            at = whole.end()
        elif _OPENS.match(text, at) and not (text[at] == "$" and (at and text[at - 1].isalnum())):
            break
        elif text[at] == ";":
            found.append(text[start:at])
            start = at = at + 1
        elif text.startswith(LINE_MARK, at):
            at += len(LINE_MARK)
            found.append(text[start:at])
            start = at
        else:
            at += 1
    return [each.strip() for each in found if not is_blank(each.removesuffix(LINE_MARK))], text[start:]


def is_blank(text: str) -> bool:
    """Return whether a text contains only whitespace and comments."""
    return _BLANK.fullmatch(text) is not None


def command_of(text: str) -> str:
    """Return the command in a text, with its dot; "" if the text is SQL.

    The commands of other shells in _OTHER_SHELLS work here too.
    """
    text = text.strip()
    if text.startswith("."):
        return text
    return _OTHER_SHELLS.get(text.rstrip("; ").lower(), "")


def innermost_call(before: str) -> str:
    """Return the function whose arguments surround the cursor, in lower case; "" for none."""
    rest = split_statements(before)[1]
    opened: list[str] = []
    at = 0
    while at < len(rest):
        whole = _WHOLE.match(rest, at)
        if whole is None and _OPENS.match(rest, at):
            break  # the cursor is inside quotes or a comment
        if rest[at] == "(" and whole is None:
            name = _WORD.search(rest[:at].rstrip())
            opened.append(name[0].lower() if name else "")
        elif rest[at] == ")" and whole is None and opened:
            opened.pop()
        at = whole.end() if whole else at + 1
    return opened[-1] if opened else ""


class Completion(NamedTuple):
    """A completion at the cursor.

    Args:
        text: the whole name, which replaces the typed part.
        typed: the number of typed characters.
        what: a description for the user.
    """

    text: str
    typed: int
    what: str


def completions(before: str, words: Iterable[tuple[str, str]], values: Iterable[str]) -> list[Completion]:
    """Return completions of the text before the cursor.

    Args:
        words: names and keywords, each with its kind.
        values: values for quoted text, which are symbols, markets and intervals.
    """
    rest = split_statements(before)[1]
    quoted = _QUOTED.search(rest)
    if quoted and rest.count("'") % 2:
        typed = quoted[0][1:]
        return [Completion(each, len(typed), "") for each in values if each.upper().startswith(typed.upper())]
    word = _WORD.search(rest)
    typed = word[0] if word else ""
    if not typed:
        if not _AFTER_FROM.search(rest):
            return []
        return [Completion(name, 0, what) for name, what in words if what in READABLE]
    return [
        Completion(name, len(typed), what)
        for name, what in words
        if name.upper().startswith(typed.upper()) and name.upper() != typed.upper()
    ]
