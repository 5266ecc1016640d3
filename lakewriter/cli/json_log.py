"""The log as JSON: one object a line, for programs that collect logs.

Each object has `time`, `level`, `logger` and `message`. A log call with a mapping as its
arguments gives the mapping's keys as fields too. A line of a recorded candle has the
candle's key. A line with an exception has `traceback`.
"""

import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import click
import msgspec

from lakewriter.candle import Candle
from lakewriter.cli import stderr
from lakewriter.errors import LakewriterError, os_error_text, printable, without_passwords

log = logging.getLogger("lakewriter")

# Fields that no mapping can replace.
_FIXED = ("time", "level", "logger", "message", "traceback")


class JsonFormatter(logging.Formatter):
    """A formatter of one JSON object for each line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object. A commit of several candles has a line for each candle."""
        message = record.getMessage()
        candles: list[Candle] | None = getattr(record, "candles", None)
        if candles is None:
            fields = record.args if isinstance(record.args, dict) else {}
            return self._line(record, message, fields)
        lines = message.split("\n")
        return "\n".join(
            self._line(record, line, _key(candle)) for line, candle in zip(lines, candles, strict=True)
        )

    def _line(self, record: logging.LogRecord, message: str, fields: "dict[str, Any]") -> str:
        shown: dict[str, Any] = {
            "time": _time_text(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": printable(without_passwords(message)),
        }
        shown |= {name: _value(value) for name, value in fields.items() if name not in _FIXED}
        if record.exc_info:
            shown["traceback"] = without_passwords(self.formatException(record.exc_info))
        return msgspec.json.encode(shown).decode()


def _key(candle: Candle) -> dict[str, Any]:
    return {
        "market": candle.market,
        "symbol": candle.symbol,
        "interval": candle.interval,
        "candle_begin_time": _time_text(candle.begin_ms / 1000),
        "source": candle.source,
    }


def _value(value: object) -> object:
    """Return a number or None as it is, and any other value as printable text."""
    return (
        value if value is None or isinstance(value, int | float) else printable(without_passwords(str(value)))
    )


def _time_text(time_s: float) -> str:
    """Return a time in ISO 8601 with milliseconds: 2026-11-29T09:20:00.167Z."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dropped_text(lines: int) -> str:
    """Return the line in place of lines that standard error did not take."""
    shown = {
        "time": _time_text(datetime.now(UTC).timestamp()),
        "level": "WARNING",
        "logger": "lakewriter.cli.stderr",
        "message": f"{lines} lines were dropped here: standard error was not read",
        "lines": lines,
    }
    return msgspec.json.encode(shown).decode() + "\n"


class LoggedError(click.ClickException):
    """An error that is shown as a line of the log."""

    def __init__(self, what: str, hint: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class
        self._hint = hint

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - click's signature
        """Log the error."""
        log.error("%(error)s", {"error": self.message, "hint": self._hint, "exit_code": self.exit_code})


def log_other_modules() -> None:
    """Send the warnings of other modules and an unknown error through the log of lakewriter."""
    logging.getLogger().handlers[:] = log.handlers
    logging.captureWarnings(True)
    sys.excepthook = _log_bug
    if isinstance(sys.stderr, stderr.Stderr):
        sys.stderr.dropped_text = _dropped_text


def logged(error: LakewriterError | OSError) -> LoggedError:
    """Return an error that click shows as a line of the log, with the hint and the exit code."""
    if isinstance(error, LakewriterError):
        return LoggedError(error.what, error.hint, error.exit_code)
    return LoggedError(os_error_text(error), "", 1)


def _log_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("a bug in lakewriter: %(error)s", {"error": error}, exc_info=(kind, error, trace))
