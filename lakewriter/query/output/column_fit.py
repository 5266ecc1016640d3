"""Which columns of a table a terminal has room for. Pure.

Of candles those are left out first that a reader misses least; if that is not
enough, or there are none, the ones in the middle.
"""

from collections.abc import Iterator, Sequence

# What a reader of candles misses least, first; at last symbol, time and close are left.
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
    """Return which columns have room: one at least."""
    kept = list(range(len(widths)))

    def fits(columns: list[int]) -> bool:
        places = list(with_omissions(columns, len(widths)))
        taken = sum(1 if at is None else widths[at] for at in places)
        return width_max is None or taken + 2 * (len(places) - 1) <= width_max

    for name in _FIRST_TO_GO:
        if fits(kept):
            return kept
        kept = [at for at in kept if names[at] != name] or kept
    if fits(kept):
        return kept
    chosen = kept[:1]
    for count in range(2, len(kept)):
        right = count // 2
        more = kept[: count - right] + kept[len(kept) - right :]
        if not fits(more):
            break
        chosen = more
    return chosen


def with_omissions(columns: list[int], count: int) -> Iterator[int | None]:
    """Yield the columns, and None wherever some were left out."""
    before = -1
    for at in columns:
        if at > before + 1:
            yield None
        yield at
        before = at
    if before + 1 < count:
        yield None
