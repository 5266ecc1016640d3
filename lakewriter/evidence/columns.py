"""Columns of others that say which series their rows are of, and which are closed. Pure."""

import re

import numpy as np
import pyarrow as pa

from lakewriter.candle import BoolArray
from lakewriter.errors import LakewriterError
from lakewriter.evidence.claims import Claim, Level, claim
from lakewriter.evidence.split import ColumnClaim

_WORD_ENDS = re.compile(r"[\s_.-]+")

# In the metadata of a Parquet file that a lake wrote.
_WRITER_KEY = b"lakewriter.version"

# Columns that say which series a row is of.
_CLAIMS: dict[Level, tuple[str, ...]] = {
    "market": ("market", "exchange", "venue"),
    "symbol": ("symbol", "ticker", "pair", "instrument"),
    "interval": ("interval", "timeframe"),
}
# Names that mean other things as well.
_LOOSE: dict[Level, tuple[str, ...]] = {
    "market": ("exchange_name", "exchange_id", "exch"),
    "symbol": (
        "s", "tic", "code", "sym", "name", "contract", "product_id", "inst_id", "instid", "instrument_id",
        "instrument_name", "trading_pair", "currency_pair", "market_pair", "symbol_id", "symbol_name",
    ),
    "interval": ("i", "period", "resolution", "granularity", "bar", "bar_size", "freq", "frequency", "tf"),
    "asset": ("coin", "base", "asset", "base_asset", "baseasset", "base_currency", "crypto", "token"),
}  # fmt: skip

# Columns that say whether a candle is over, and those that say the opposite.
_CLOSED = (
    "x", "is_closed", "isclosed", "closed", "is_final", "isfinal", "final", "complete", "completed",
    "is_complete", "iscomplete", "confirm", "confirmed", "finished", "is_finished", "candle_closed", "kline_closed",
    "bar_closed", "closed_candle",
)  # fmt: skip
_OPEN = (
    "is_open", "isopen", "in_progress", "inprogress", "partial", "is_partial", "ispartial", "unfinished", "incomplete",
)  # fmt: skip
# Columns that say it in words, if all of their words are known.
_STATES = ("status", "state", "candle_status", "bar_status")
_STATE_WORDS = {
    **dict.fromkeys(("closed", "close", "complete", "completed", "final", "finished", "done"), True),
    **dict.fromkeys(("open", "partial", "live", "incomplete", "unfinished", "in_progress", "ongoing"), False),
}
_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}


def column_claims(table: pa.Table) -> tuple[ColumnClaim, ...]:
    """Return the columns of a table that say which series its rows are of."""
    return tuple(
        ColumnClaim(level, name, text_of(table[place]), loose)
        for place, name in enumerate(table.column_names)
        for loose, levels in ((False, _CLAIMS), (True, _LOOSE))
        for level, names in levels.items()
        if normal(name) in names and not (loose and _is_number(table[place].type))
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def plain(name: str) -> str:
    """Return a column's name without what some tools put around it: `<OPEN>`, `Volume_(BTC)`, `# open`."""
    name = name.strip().strip("\"'").lstrip("#").strip()
    if name.startswith("<") and name.endswith(">"):
        name = name[1:-1]
    return re.sub(r"\((\w+)\)", r"\1", name).strip()


def normal(name: str) -> str:
    """Return a column's name as it is compared."""
    name = plain(name)
    return name if len(name) == 1 else _WORD_ENDS.sub("_", name.lower())


def text_of(column: pa.ChunkedArray) -> pa.Array:
    """Return a column's cells as text."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return pa.array([None if each is None else repr(each) for each in array.to_pylist()])
    try:
        return array.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([str(each) for each in array.to_pylist()])


def marked_closed(table: pa.Table) -> BoolArray | None:
    """Return whether each candle is marked closed; None if no column marks any.

    An empty cell marks nothing.

    Raises:
        LakewriterError: if a cell is neither true nor false.
    """
    columns = {normal(name): table[place] for place, name in enumerate(table.column_names)}
    results = []
    for names, over in ((_CLOSED, True), (_OPEN, False)):
        for name in names:
            if name in columns:
                cells = text_of(columns[name]).dictionary_encode(null_encoding="encode")
                texts = cells.dictionary.to_pylist()
                if len(name) == 1 and any(each and each.strip().lower() not in _WORDS for each in texts):
                    continue  # a letter that is not the exchange's
                said = [_word(name, each) for each in texts]
                holds = np.array([each is None or each is over for each in said], np.bool_)
                results.append(holds[cells.indices.to_numpy()])
    for name in _STATES:
        if name in columns:
            cells = text_of(columns[name]).dictionary_encode(null_encoding="encode")
            words = [each and each.strip().lower() for each in cells.dictionary.to_pylist()]
            if any(words) and all(not word or word in _STATE_WORDS for word in words):
                holds = np.array([_STATE_WORDS.get(word or "", True) for word in words], np.bool_)
                results.append(holds[cells.indices.to_numpy()])
    return np.logical_and.reduce(results) if results else None


def _word(name: str, text: str | None) -> bool | None:
    if text is None or not text.strip():
        return None
    if (said := _WORDS.get(text.strip().lower())) is None:
        raise LakewriterError(f"{name} says {text!r}, which is neither true nor false")
    return said


def metadata_claims(table: pa.Table) -> list[Claim]:
    """Return what the metadata of a file that a lake wrote says of its series; of other files nothing."""
    metadata = table.schema.metadata or {}
    if _WRITER_KEY not in metadata:
        return []
    levels: tuple[Level, ...] = ("market", "symbol", "interval")
    return [
        each
        for level in levels
        if (value := metadata.get(level.encode())) is not None
        for each in claim(level, value.decode(errors="replace"), "its metadata")
    ]
