"""What exchangeInfo said, and when: one small file a market.

    _lakewriter/instruments/<market>.ndjson

One row a line for each period in which a symbol's status and contract type
were the same. An answer like the one before only moves `last_seen_ms`; a
symbol that is no longer listed keeps its own. The file is a few hundred bytes
a symbol, and replaced whole.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakewriter.errors import LakeError
from lakewriter.instrument import Instrument
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.storage import make_directories, write_durably

INSTRUMENTS_DIRECTORY = "_lakewriter/instruments"
_SUFFIX = ".ndjson"


class Seen(NamedTuple):
    """A symbol as a market listed it for a time.

    Args:
        market, symbol: which.
        status, contract_type: in the exchange's words; the same all that time.
        onboard_ms, delivery_ms: as last said; None if it did not say.
        first_seen_ms, last_seen_ms: the first and the last answer that said so.
    """

    market: str
    symbol: str
    status: str
    contract_type: str
    onboard_ms: int | None
    delivery_ms: int | None
    first_seen_ms: int
    last_seen_ms: int


class _Row(msgspec.Struct, omit_defaults=True):
    symbol: str
    status: str
    first_seen_ms: int
    last_seen_ms: int
    contract_type: str = ""
    onboard_ms: int | None = None
    delivery_ms: int | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Row).decode


def remember(store: LakeStore, market: str, instruments: Iterable[Instrument], now_ms: int) -> None:
    """Note what a market lists now. Blocks.

    Args:
        instruments: the whole answer; a symbol that is not in it is not listed.
        now_ms: the exchange's time; an answer older than the last one counts as
            of the same time.

    Raises:
        LakeError: if what is there is not what we wrote; it stays as it is.
        OSError: if it cannot be written.

    Crash: the old file or the new one is there, whole.
    """
    directory = store.root / INSTRUMENTS_DIRECTORY
    path = directory / f"{market}{_SUFFIX}"
    with store.storage.exclusive(f"{INSTRUMENTS_DIRECTORY}/{market}"):
        make_directories(store.root, directory)
        rows = _read(path) if path.exists() else []
        answered_ms = max((row.last_seen_ms for row in rows), default=now_ms)
        now_ms = max(now_ms, answered_ms)
        # A symbol that was not in the last answer begins a new period.
        current = {row.symbol: row for row in rows if row.last_seen_ms == answered_ms}
        for instrument in instruments:
            row = current.get(instrument.symbol)
            if row is None or (row.status, row.contract_type) != (
                instrument.status,
                instrument.contract_type,
            ):
                row = _Row(
                    instrument.symbol, instrument.status, now_ms, now_ms, instrument.contract_type
                )  # fmt: skip
                rows.append(row)
                current[instrument.symbol] = row
            row.last_seen_ms = now_ms
            row.onboard_ms, row.delivery_ms = instrument.onboard_ms, instrument.delivery_ms
        rows.sort(key=lambda row: (row.symbol, row.first_seen_ms))
        write_durably(path, b"".join(_encode(row) + b"\n" for row in rows))


def read_instruments(root: Path) -> list[Seen]:
    """Return what all markets listed, by market, symbol and time.

    Raises:
        LakeError: if a file is not what we wrote.
    """
    directory = root / INSTRUMENTS_DIRECTORY
    if not directory.is_dir():
        return []
    return [
        Seen(
            path.stem,
            row.symbol,
            row.status,
            row.contract_type,
            row.onboard_ms,
            row.delivery_ms,
            row.first_seen_ms,
            row.last_seen_ms,
        )
        for path in sorted(directory.iterdir())
        if path.suffix == _SUFFIX and path.is_file()
        for row in _read(path)
    ]


def _read(path: Path) -> list[_Row]:
    try:
        return [_decode(line) for line in path.read_bytes().splitlines()]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LakeError(
            f"instruments: {path} is not what we wrote: {error}", f"move it away: {path}"
        ) from None
