"""Names of a candle's columns in files of other tools. Pure.

Names are compared in lower case, with `_` between words. Single letters are the exchange's
names and keep their case: `v` is the volume, `V` the volume of takers.
"""

import re
from collections.abc import Iterable

from lakewriter.evidence.columns import normal_name

# lakewriter's name comes first. If a file has several columns of times, the first name in
# this list wins.
BEGINS = (
    "candle_begin_time", "open_time", "opentime", "open_timestamp", "kline_open_time", "open_date",
    "begin_time", "begin", "start_time", "starttime", "start", "start_at", "unix", "unix_time", "unixtime",
    "unix_timestamp", "epoch", "timestamp_ms", "time_ms", "ts_ms", "timestamp", "timestamp_utc", "ts", "t",
    "datetime", "datetime_utc", "date_time", "date_utc", "gmt_time", "time_utc", "time", "date", "day",
)  # fmt: skip
ENDS = (
    "candle_end_time", "close_time", "closetime", "close_timestamp", "kline_close_time", "close_date",
    "end_time", "endtime", "T",
)  # fmt: skip

VALUES = {
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v", "base_volume", "base_asset_volume", "volume_base"),
    "quote_volume": (
        "quote_volume", "quote_asset_volume", "quotevolume", "quote_av", "turnover", "q", "volume_quote",
        "quoteassetvolume",
    ),
    "trade_num": (
        "trade_num", "number_of_trades", "num_trades", "trades", "trade_count", "trades_count", "tradecount",
        "count", "n", "numberoftrades",
    ),
    "taker_buy_base_asset_volume": (
        "taker_buy_base_asset_volume", "taker_buy_base_volume", "taker_buy_volume", "taker_buy_base",
        "tb_base_av", "V", "takerbuybaseassetvolume", "taker_base_vol",
    ),
    "taker_buy_quote_asset_volume": (
        "taker_buy_quote_asset_volume", "taker_buy_quote_volume", "taker_buy_quote", "tb_quote_av", "Q",
        "takerbuyquoteassetvolume", "taker_quote_vol",
    ),
}  # fmt: skip
PRICES = ("open", "high", "low", "close")

# Names of volumes with an asset, like "Volume BTC" and "Volume USDT". Charts add averages
# and changes, which do not match.
ASSET_VOLUME = re.compile(
    r"(?:volume|vol)_(?!base$|quote$|usd_|[es]?ma\d*$|avg|mean|std|change|delta|ratio|pct|osc)[a-z0-9]{2,10}"
    r"|amount|volumefrom|volumeto"
)

# Names that pandas writes for an unnamed index.
_UNNAMED = re.compile(r"|_index_level_0_|unnamed:_0|index|level_0")

# Next to other names, a single letter is ambiguous: `n` may be the row number.
_PRICE_LETTERS = frozenset("ohlc")
_VALUE_LETTERS = frozenset(each for names in VALUES.values() for each in names if len(each) == 1)

_FIELD_OF = {name: field for field, names in VALUES.items() for name in names}


def field_of(name: str) -> str | None:
    """Return the column of VALUE_COLUMNS with this name; None for other names."""
    return _FIELD_OF.get(normal_name(name))


def stray_letters(names: Iterable[str]) -> frozenset[str]:
    """Return the single-letter names that are ambiguous in a table with these columns."""
    return frozenset() if set(names) >= _PRICE_LETTERS else _VALUE_LETTERS


def is_number(name: str) -> bool:
    """Return whether a column with this name holds numbers of a candle."""
    return field_of(name) is not None or ASSET_VOLUME.fullmatch(normal_name(name)) is not None


def is_time(name: str) -> bool:
    """Return whether a column with this name holds begin or end times."""
    return normal_name(name) in BEGINS or normal_name(name) in ENDS


def is_begin(name: str) -> bool:
    """Return whether a column with this name holds begin times."""
    return normal_name(name) in BEGINS


def is_unnamed(name: str) -> bool:
    """Return whether a column with this name may be an unnamed index of pandas."""
    return _UNNAMED.fullmatch(normal_name(name)) is not None


def is_header(cells: Iterable[str]) -> bool:
    """Return whether a row of cells names all prices."""
    fields = {field_of(cell) for cell in cells}
    return all(price in fields for price in PRICES)
