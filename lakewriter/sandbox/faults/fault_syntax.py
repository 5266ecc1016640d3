"""Parsers of faults: TOML tables, JSON objects, and `NAME:key=value,…`.

[[fault]]
name = "late_close"
market = "spot"
symbols = ["BTCUSDT", "ETHUSDT"]
in_s = 60            # simulated seconds from now; or start = 2026-11-22T12:00:00Z
for_s = 120          # or stop = …
value = 30

late_close:market=spot,symbols=BTCUSDT,ETHUSDT,in_s=60,for_s=120,value=30
"""

import math
import tomllib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec

from lakewriter.errors import UsageError
from lakewriter.regular_file import read_user_text
from lakewriter.sandbox.faults.table import Fault, normalized

_HINT = "lakewriter sandbox --list-faults"

FILE_BYTES_MAX = 4 * 1024 * 1024

# The maximum wait: a century of simulated time. A longer wait is a typing error.
_SECONDS_MAX = 100 * 366 * 86_400.0

# 9999-12-31, the last date.
_MOMENT_MAX_MS = 253_402_214_400_000


class _FaultFields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a fault in text; see `Fault`.

    Args:
        symbols: a list, or names separated by commas.
        start, stop: a moment in ISO 8601, in UTC by default, or in milliseconds.
        start_ms, stop_ms: the same moments in milliseconds.
        in_s, for_s: simulated seconds from now to the start, and from the start to the stop.
    """

    name: str
    market: str = ""
    symbols: list[str] | str = ""
    interval: str = ""
    start: Any = None
    stop: Any = None
    start_ms: int | None = None
    stop_ms: int | None = None
    in_s: float | None = None
    for_s: float | None = None
    value: float = 0.0
    retry_after_s: float = 0.0
    share: float = 1.0


class _FaultFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fault: list[dict[str, Any]] = []


def load_faults(path: Path, now_ms: int) -> list[Fault]:
    """Return the faults of a TOML file.

    Raises:
        UsageError: if the file is unreadable, or a fault is not allowed.
    """
    try:
        file = msgspec.convert(tomllib.loads(read_user_text(path, FILE_BYTES_MAX)), _FaultFile)
    except OSError as error:
        raise UsageError(f"faults: {path}: {error.strerror}") from None
    except ValueError as error:  # not TOML, not UTF-8, or not [[fault]] tables
        raise UsageError(f"faults: {path}: {error}", _HINT) from None
    try:
        return [_parse_fields(fields, now_ms) for fields in file.fault]
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.hint) from None


def parse_json(content: bytes, now_ms: int) -> Fault:
    """Return the fault in a JSON object.

    Raises:
        UsageError: if the object does not describe a fault.
    """
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
    except ValueError as error:
        raise UsageError(f"fault: not a JSON object: {error}", _HINT) from None
    return _parse_fields(fields, now_ms)


def parse_argument(text: str, now_ms: int) -> Fault:
    """Return the fault in a text of the form `NAME` or `NAME:key=value,…`.

    Raises:
        UsageError: if the text does not describe a fault.
    """
    name, _, rest = text.partition(":")
    fields: dict[str, Any] = {"name": name}
    key = ""
    for part in rest.split(",") if rest else ():
        before, equals, value = part.partition("=")
        if equals:
            key = before.strip()
            fields[key] = value
        elif key:
            fields[key] += f",{part}"  # symbols=BTCUSDT,ETHUSDT
        else:
            raise UsageError(f"fault: {text!r}: {part!r} is not key=value", _HINT)
    return _parse_fields(fields, now_ms)


def parse_moment(value: object) -> int:
    """Return a moment in milliseconds from ISO 8601, in UTC by default, a date, or milliseconds.

    Raises:
        UsageError: if the value is not a moment.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) > len("20261122"):
        value = int(value[:20])
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            value = round(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UsageError(f"time: {value!r} is not like 2026-11-22T12:30") from None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOMENT_MAX_MS:
        raise UsageError(f"time: {value!r} is not like 2026-11-22T12:30")
    return value


def _parse_fields(fields: dict[str, Any], now_ms: int) -> Fault:
    try:
        parsed = msgspec.convert(fields, _FaultFields, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"fault: {error}", _HINT) from None
    start_ms = _only_moment(
        "start", parsed.start, parsed.start_ms, _moment_after(now_ms, "in_s", parsed.in_s)
    )
    from_ms = now_ms if start_ms is None else start_ms
    stop_ms = _only_moment("stop", parsed.stop, parsed.stop_ms, _moment_after(from_ms, "for_s", parsed.for_s))
    symbols = parsed.symbols.split(",") if isinstance(parsed.symbols, str) else parsed.symbols
    return normalized(
        Fault(
            name=parsed.name,
            market=parsed.market,
            symbols=tuple(symbol.strip() for symbol in symbols if symbol.strip()),
            interval=parsed.interval,
            start_ms=start_ms,
            stop_ms=stop_ms,
            value=parsed.value,
            retry_after_s=parsed.retry_after_s,
            share=parsed.share,
        )
    )


def _moment_after(from_ms: int, name: str, seconds: float | None) -> int | None:
    if seconds is None:
        return None
    if not 0 <= seconds <= _SECONDS_MAX or math.isnan(seconds):
        raise UsageError(f"fault: {name}: {seconds:g} is not a number of seconds")
    return from_ms + round(seconds * 1000)


def _only_moment(name: str, written: object, *in_ms: int | None) -> int | None:
    given_ms = [value for value in in_ms if value is not None]
    if written is not None:
        given_ms.append(parse_moment(written))
    if len(given_ms) > 1:
        raise UsageError(f"fault: its {name} is given twice", _HINT)
    return given_ms[0] if given_ms else None
