"""The errors that a user can cause or see.

Each error is one line that names the thing first, and a hint that can be pasted.
Its class names the cause: the user, the exchange or the lake. Any other exception
that reaches the user is a bug of lakewriter.
"""

import re

# Also after a single slash: a typo must not show a password.
_USER_INFO = re.compile(r"(?:(?<=//)|(?<=:/))[^\s/?#]*@")
_SECRET_OPTION = re.compile(
    r"(?<=[?&])([^\s=&?#]*(?:key|secret|token|password|sas|sig)[^\s=&?#]*=)[^\s&#'\"]+", re.IGNORECASE
)


def without_passwords(text: str) -> str:
    """Return the text without the user name, the password and secret options of any URL."""
    return _SECRET_OPTION.sub(r"\1…", _USER_INFO.sub("…@", text))


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def printable(text: str) -> str:
    """Return the text with escapes instead of control characters, for a terminal.

    Characters that change the direction of writing are escaped too. Bytes of a file
    name that are not UTF-8 are escaped as well.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _ESCAPES.get(char, _code(char)) for char in text)


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}"


def os_error_text(error: OSError) -> str:
    """Return what the system says about an error, after the file that it names, if any."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


class LakewriterError(Exception):
    """An error of one line, with a hint. Both are printable.

    Args:
        what: the message, thing first ("lake: data is a file").
        hint: the next command or change to make; "" without a hint.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = printable(without_passwords(what))
        # A hint may have several lines.
        self.hint = "\n".join(map(printable, without_passwords(hint).split("\n")))
        super().__init__(self.what)
        if self.hint:
            self.add_note(self.hint)  # tracebacks and notebooks show notes

    def __str__(self) -> str:
        return self.what


class UsageError(LakewriterError):
    """A wrong argument or config of the user."""

    exit_code = 2


class ExchangeError(LakewriterError):
    """An unusable answer of the exchange."""


class FrameError(ExchangeError):
    """A malformed frame. It is counted by kind, and never fatal.

    Args:
        kind: one word for the counter ("json", "shape", "number", "symbol", "time").
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class LakeError(LakewriterError):
    """A lake, partition or journal that is damaged, or that another program made."""


class UnreadableError(LakeError):
    """A file that exists, but whose candles cannot be read."""


class EmptyAnswerWarning(UserWarning):
    """The warning about an answer without candles. Its text is the reason."""
