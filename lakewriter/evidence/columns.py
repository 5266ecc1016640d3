"""Columns of other tools that identify the series of their rows. Pure."""

import re
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa

from lakewriter.candle import FloatArray
from lakewriter.candle_checks import may_be_quotes
from lakewriter.evidence.claims import Claim, Level, claims_on
from lakewriter.evidence.row_groups import ColumnClaim

_WORD_ENDS = re.compile(r"[\s_.-]+")

# The files of an import have few different names of columns.
_NAMES_MAX = 256

# A file's first rows nearly always show that two of its columns are not volume and quote volume.
_FIRST_ROWS = 64

# The key in the metadata of a Parquet file from a lake.
_WRITER_KEY = b"lakewriter.version"

# Columns that identify the series of a row.
_CLAIMS: dict[Level, tuple[str, ...]] = {
    "market": ("market", "exchange", "venue"),
    "symbol": ("symbol", "ticker", "pair", "instrument"),
    "interval": ("interval", "timeframe"),
}
# Column names that can have other meanings.
_LOOSE: dict[Level, tuple[str, ...]] = {
    "market": ("exchange_name", "exchange_id", "exch"),
    "symbol": (
        "s", "tic", "code", "sym", "name", "contract", "product_id", "inst_id", "instid", "instrument_id",
        "instrument_name", "trading_pair", "currency_pair", "market_pair", "symbol_id", "symbol_name",
    ),
    "interval": ("i", "period", "resolution", "granularity", "bar", "bar_size", "freq", "frequency", "tf"),
    "asset": ("coin", "base", "asset", "base_asset", "baseasset", "base_currency", "crypto", "token"),
}  # fmt: skip


def column_claims(table: pa.Table) -> tuple[ColumnClaim, ...]:
    """Return the columns of a table that identify the series of its rows."""
    return tuple(
        ColumnClaim(level, name, cells_as_text(table[place]), loose)
        for place, name in enumerate(table.column_names)
        for normal in (normal_name(name),)
        for loose, levels in ((False, _CLAIMS), (True, _LOOSE))
        for level, names in levels.items()
        if normal in names and not (loose and _is_number(table[place].type))
    )


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_boolean(dtype))


def plain_name(name: str) -> str:
    """Return a column's name without decoration, as in `<OPEN>`, `Volume_(BTC)` or `# open`."""
    name = name.strip().strip("\"'").lstrip("#").strip()
    if name.startswith("<") and name.endswith(">"):
        name = name[1:-1]
    return re.sub(r"\((\w+)\)", r"\1", name).strip()


@lru_cache(_NAMES_MAX)
def normal_name(name: str) -> str:
    """Return a column's name in its normal form for comparisons."""
    name = plain_name(name)
    return name if len(name) == 1 else _WORD_ENDS.sub("_", name.lower())


def cells_as_text(column: pa.ChunkedArray) -> pa.Array:
    """Return a column's cells as text; a null stays null."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return pa.array([None if cell is None else repr(cell) for cell in array.to_pylist()])
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([str(cell) for cell in array.to_pylist()])


def metadata_claims(table: pa.Table) -> list[Claim]:
    """Return the claims in the metadata of a lake's file; an empty list for other files."""
    metadata = table.schema.metadata or {}
    if _WRITER_KEY not in metadata:
        return []
    levels: tuple[Level, ...] = ("market", "symbol", "interval")
    return [
        each
        for level in levels
        if (value := metadata.get(level.encode())) is not None
        for each in claims_on(level, value.decode(errors="replace"), "its metadata")
    ]


def volume_and_quote(
    one: FloatArray, other: FloatArray, low: FloatArray, high: FloatArray
) -> tuple[int, int] | None:
    """Return the positions of the volume and the quote volume among two columns: (0, 1) or (1, 0).

    Quote volume ÷ volume is the mean price of a candle's trades. It lies between low and high.

    Returns:
        The positions; None if both orders fit, or neither.
    """
    traded = _Traded.of(one, other, low, high)
    if not len(traded.one):
        return None
    straight, crossed = traded.is_straight(), traded.is_crossed()
    if straight == crossed:
        return None
    return (0, 1) if straight else (1, 0)


def are_swapped(volume: FloatArray, quote: FloatArray, low: FloatArray, high: FloatArray) -> bool:
    """Return whether only the other order of volume and quote volume fits; see `volume_and_quote`."""
    traded = _Traded.of(volume, quote, low, high)
    # The second test takes longer: few rows of the other order fit exactly.
    return len(traded.one) > 0 and not traded.is_straight() and traded.is_crossed()


class _Traded(NamedTuple):
    """The rows with trades of two columns, either of which may be the volume, and of low and high."""

    one: FloatArray
    other: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, one: FloatArray, other: FloatArray, low: FloatArray, high: FloatArray) -> "_Traded":
        traded = (one > 0) & (other > 0) & (low > 0)
        return cls(one[traded], other[traded], low[traded], high[traded])

    def is_straight(self) -> bool:
        return _are_quotes(self.low, self.high, self.one, self.other)

    def is_crossed(self) -> bool:
        return _are_quotes(self.low, self.high, self.other, self.one)


def _are_quotes(low: FloatArray, high: FloatArray, volume: FloatArray, quote: FloatArray) -> bool:
    columns = (low, high, volume, quote)
    return all(
        bool(may_be_quotes("spot", *(column[rows] for column in columns)).all())
        for rows in (slice(0, _FIRST_ROWS), slice(_FIRST_ROWS, None))
    )
