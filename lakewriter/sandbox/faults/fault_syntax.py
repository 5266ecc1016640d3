"""Faults as people write them: TOML tables, JSON objects, and `NAME:key=value,…`.

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
from lakewriter.sandbox.faults.table import Fault, checked

_HINT = "lakewriter sandbox --list-faults"

FILE_BYTES_MAX = 4 * 1024 * 1024

# A century of simulated time: a longer wait is a typing error.
_SECONDS_MAX = 100 * 366 * 86_400.0

# 9999-12-31, where dates end.
_MOMENT_MAX_MS = 253_402_214_400_000


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be said of a fault; see `Fault`.

    Args:
        symbols: a list, or names between commas.
        start, stop: ISO 8601, UTC unless said otherwise; or milliseconds.
        start_ms, stop_ms: the same in milliseconds.
        in_s, for_s: simulated seconds from now to the start, and from there to the stop.
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
        UsageError: if it cannot be read, or one of them cannot be.
    """
    try:
        file = msgspec.convert(tomllib.loads(read_user_text(path, FILE_BYTES_MAX)), _FaultFile)
    except OSError as error:
        raise UsageError(f"faults: {path}: {error.strerror}") from None
    except ValueError as error:  # not TOML, not UTF-8, or something else than [[fault]] tables
        raise UsageError(f"faults: {path}: {error}", _HINT) from None
    try:
        return [_fault(said, now_ms) for said in file.fault]
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.hint) from None


def parse_json(content: bytes, now_ms: int) -> Fault:
    """Return the fault that a JSON object describes.

    Raises:
        UsageError: if it does not.
    """
    try:
        said = msgspec.json.decode(content, type=dict[str, Any])
    except ValueError as error:
        raise UsageError(f"fault: not a JSON object: {error}", _HINT) from None
    return _fault(said, now_ms)


def parse_argument(text: str, now_ms: int) -> Fault:
    """Return the fault that `NAME` or `NAME:key=value,…` describes.

    Raises:
        UsageError: if it does not.
    """
    name, _, rest = text.partition(":")
    said: dict[str, Any] = {"name": name}
    key = ""
    for part in rest.split(",") if rest else ():
        before, equals, value = part.partition("=")
        if equals:
            key = before.strip()
            said[key] = value
        elif key:
            said[key] += f",{part}"  # symbols=BTCUSDT,ETHUSDT
        else:
            raise UsageError(f"fault: {text!r}: {part!r} is not key=value", _HINT)
    return _fault(said, now_ms)


def moment_ms(said: object) -> int:
    """Return a moment in milliseconds: ISO 8601 (UTC unless it says otherwise), a date, or milliseconds.

    Raises:
        UsageError: if it is none.
    """
    if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) > len("20261122"):
        said = int(said[:20])
    try:
        if isinstance(said, str):
            said = datetime.fromisoformat(said)
        if isinstance(said, date) and not isinstance(said, datetime):
            said = datetime(said.year, said.month, said.day, tzinfo=UTC)
        if isinstance(said, datetime):
            aware = said if said.tzinfo else said.replace(tzinfo=UTC)
            said = round(aware.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UsageError(f"time: {said!r} is not like 2026-11-22T12:30") from None
    if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said <= _MOMENT_MAX_MS:
        raise UsageError(f"time: {said!r} is not like 2026-11-22T12:30")
    return said


def _fault(said: dict[str, Any], now_ms: int) -> Fault:
    try:
        written = msgspec.convert(said, _Written, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"fault: {error}", _HINT) from None
    start_ms = _one("start", written.start, written.start_ms, _after(now_ms, "in_s", written.in_s))
    from_ms = now_ms if start_ms is None else start_ms
    stop_ms = _one("stop", written.stop, written.stop_ms, _after(from_ms, "for_s", written.for_s))
    symbols = written.symbols.split(",") if isinstance(written.symbols, str) else written.symbols
    return checked(
        Fault(
            name=written.name,
            market=written.market,
            symbols=tuple(symbol.strip() for symbol in symbols if symbol.strip()),
            interval=written.interval,
            start_ms=start_ms,
            stop_ms=stop_ms,
            value=written.value,
            retry_after_s=written.retry_after_s,
            share=written.share,
        )
    )


def _after(from_ms: int, name: str, seconds: float | None) -> int | None:
    if seconds is None:
        return None
    if not 0 <= seconds <= _SECONDS_MAX or math.isnan(seconds):
        raise UsageError(f"fault: {name}: {seconds:g} is not a number of seconds")
    return from_ms + round(seconds * 1000)


def _one(name: str, written: object, *in_ms: int | None) -> int | None:
    said = [value for value in in_ms if value is not None]
    if written is not None:
        said.append(moment_ms(written))
    if len(said) > 1:
        raise UsageError(f"fault: its {name} is said twice", _HINT)
    return said[0] if said else None
