"""Where one statement ends and the next begins; and what a name typed halfway may become. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple

# Ends a statement whose answer is wanted a line for each value, as MySQL's and MariaDB's do.
LINE_MARK = r"\G"

# Whatever a semicolon may stand in without ending anything.
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
# Atomic: a comment ends at its first end, though one that goes on to a later one would match as well.
_BLANK = re.compile(r"(?>\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)

# What people type in other shells, and what they mean by it.
_ELSEWHERE = {
    **dict.fromkeys(("exit", "quit", r"\q"), ".quit"),
    **dict.fromkeys(("help", "?", r"\?", r"\h"), ".help"),
    **dict.fromkeys((r"\d", r"\dt"), ".tables"),
}

# What may stand behind FROM.
READABLE = ("table", "function")

_WORD = re.compile(r"\w*\Z")
_BEHIND_FROM = re.compile(r"\b(?:FROM|JOIN)\s+\Z", re.IGNORECASE)
_QUOTED = re.compile(r"'[^']*\Z")


def split_statements(text: str) -> tuple[list[str], str]:
    """Return the statements that a semicolon ends, without it, and what comes after the last one.

    A LINE_MARK ends a statement as well, and stays behind it.
    """
    found: list[str] = []
    start = at = 0
    while at < len(text):
        whole = _WHOLE.match(text, at)
        # A quote inside a word, as the $ of a$b$, opens nothing.
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
    """Tell whether there is nothing but space and comments."""
    return _BLANK.fullmatch(text) is not None


def command_of(text: str) -> str:
    """Return the command that a text is, with its dot; "" if it is SQL.

    A word that leaves, or asks for help, in other shells does so here too.
    """
    text = text.strip()
    if text.startswith("."):
        return text
    return _ELSEWHERE.get(text.rstrip("; ").lower(), "")


def innermost_call(before: str) -> str:
    """Return the name of the function whose arguments the cursor stands among, in lower case; "" for none."""
    rest = split_statements(before)[1]
    opened: list[str] = []
    at = 0
    while at < len(rest):
        whole = _WHOLE.match(rest, at)
        if whole is None and _OPENS.match(rest, at):
            break  # inside of a text or a comment
        if rest[at] == "(" and whole is None:
            name = _WORD.search(rest[:at].rstrip())
            opened.append(name[0].lower() if name else "")
        elif rest[at] == ")" and whole is None and opened:
            opened.pop()
        at = whole.end() if whole else at + 1
    return opened[-1] if opened else ""


class Completion(NamedTuple):
    """Something that may stand where the cursor is.

    Args:
        text: takes the place of what was typed of it.
        typed: how many characters that were.
        what: it is, for people.
    """

    text: str
    typed: int
    what: str


def completions(before: str, words: Iterable[tuple[str, str]], values: Iterable[str]) -> list[Completion]:
    """Return what may be meant by what stands before the cursor.

    Args:
        words: names and keywords, each with what it is.
        values: that stand in quotes: symbols, markets, intervals.
    """
    rest = split_statements(before)[1]
    quoted = _QUOTED.search(rest)
    if quoted and rest.count("'") % 2:
        typed = quoted[0][1:]
        return [Completion(each, len(typed), "") for each in values if each.upper().startswith(typed.upper())]
    word = _WORD.search(rest)
    typed = word[0] if word else ""
    if not typed:
        if not _BEHIND_FROM.search(rest):
            return []
        return [Completion(name, 0, what) for name, what in words if what in READABLE]
    return [
        Completion(name, len(typed), what)
        for name, what in words
        if name.upper().startswith(typed.upper()) and name.upper() != typed.upper()
    ]
