"""What can go wrong on purpose.

Every error that a user can cause or meet is one of these: one line that names
the thing first, and a hint that can be pasted. Whoever catches one knows whose
fault it is by its class. Anything else that escapes is a bug of ours.
"""

import re

_USER_INFO = re.compile(r"(?<=//)[^\s/?#]*@")


def without_passwords(text: str) -> str:
    """Return the text with the name and password in front of each host left out."""
    return _USER_INFO.sub("…@", text)


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str) -> str:
    """Return the text with each control character spelled out, so that none reaches a terminal.

    So are the characters that turn the direction of writing, and bytes of a
    file's name that are no UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _ESCAPES.get(char, _code(char)) for char in text)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}"


class LakewriterError(Exception):
    """Say what went wrong in one line, and what to do next. Both are printable.

    Args:
        what: the message, thing first ("lake: data is a file").
        hint: the next command or change to make; "" for none.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = printable(without_passwords(what))
        # A hint may have several lines.
        self.hint = "\n".join(map(printable, without_passwords(hint).split("\n")))
        super().__init__(self.what)

    def __str__(self) -> str:
        return self.what


class UsageError(LakewriterError):
    """You asked for something that cannot be: a wrong argument or config."""

    exit_code = 2


class ExchangeError(LakewriterError):
    """They sent it: an answer from the exchange that nobody can use."""


class FrameError(ExchangeError):
    """A frame that is not what its shape claims. Counted by kind, never fatal.

    Args:
        kind: one word for the counter ("json", "shape", "number", "symbol", "time").
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class LakeError(LakewriterError):
    """The disk holds it: a lake, a partition or a journal that is not as it must be."""


class UnreadableError(LakeError):
    """A file is there, but holds no candles that can be read."""
