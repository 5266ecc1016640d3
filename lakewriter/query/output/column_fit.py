"""The columns of a table that fit a terminal. Pure.

The least important columns of candles are left out first. If the table is still too
wide, the columns in the middle follow.
"""

from collections.abc import Iterator, Sequence

# Columns of candles, the least important first. Symbol, time and close stay.
_FIRST_TO_GO = (
    "recv_time",
    "event_time",
    "taker_buy_quote_asset_volume",
    "taker_buy_base_asset_volume",
    "source",
    "date",
    "candle_end_time",
    "quote_volume",
    "trade_num",
    "volume",
    "interval",
    "open",
    "high",
    "low",
    "market",
)


def columns_that_fit(names: Sequence[str], widths: list[int], width_max: int | None) -> list[int]:
    """Return the indexes of the columns that fit, at least one.

    Args:
        names: the columns' names.
        widths: the columns' widths in characters.
        width_max: the maximum width of the table in characters; None is no limit.
    """
    columns = list(range(len(widths)))

    def fits(columns: list[int]) -> bool:
        places = list(with_omissions(columns, len(widths)))
        taken = sum(1 if at is None else widths[at] for at in places)
        return width_max is None or taken + 2 * (len(places) - 1) <= width_max

    for name in _FIRST_TO_GO:
        if fits(columns):
            return columns
        columns = [at for at in columns if names[at] != name] or columns
    if fits(columns):
        return columns
    chosen = columns[:1]
    for count in range(2, len(columns)):
        right = count // 2
        more = columns[: count - right] + columns[len(columns) - right :]
        if not fits(more):
            break
        chosen = more
    return chosen


def with_omissions(columns: list[int], count: int) -> Iterator[int | None]:
    """Yield the indexes of the columns, and None for each run of omitted columns.

    Args:
        columns: the indexes of the columns that stay, ascending.
        count: the number of all columns.
    """
    before = -1
    for at in columns:
        if at > before + 1:
            yield None
        yield at
        before = at
    if before + 1 < count:
        yield None
