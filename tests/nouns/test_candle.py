"""The candle, its table, and the rule for duplicates. Other test modules build their candles here."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakewriter.candle
from lakewriter.candle import SCHEMA, deduplicate, int_column, precedence, to_table, to_tables
from support.candles import (
    candles,
    from_table,
    settled,
    stream_candle,
    unknown_candles,
)
from support.lengths import examples


@examples(25, 200)
@given(st.lists(candles()))
def test_table_round_trip(rows):
    """A table gives back all fields of its candles."""
    table = to_table(rows)
    assert table.schema.equals(SCHEMA)
    assert from_table(table) == rows


@examples(25, 200)
@given(st.lists(st.lists(candles(), max_size=5)), st.integers(1, 12))
def test_many_tables_are_those_of_each_list(lists, rows_together):
    """However many lists share a table, each list gives its own rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lakewriter.candle, "_ROWS_TOGETHER", rows_together)
        tables = list(to_tables(lists))
    assert [from_table(table) for table in tables] == lists


def test_schema():
    """The columns have the documented names, order and types."""
    assert [f"{field.name}: {field.type}" for field in SCHEMA] == [
        "candle_begin_time: timestamp[ms, tz=UTC]",
        "candle_end_time: timestamp[ms, tz=UTC]",
        "open: double",
        "high: double",
        "low: double",
        "close: double",
        "volume: double",
        "quote_volume: double",
        "trade_num: int64",
        "taker_buy_base_asset_volume: double",
        "taker_buy_quote_asset_volume: double",
        "event_time: timestamp[ms, tz=UTC]",
        "recv_time: timestamp[us, tz=UTC]",
        "source: string",
    ]


def test_precedence_order():
    """The archive wins, then more trades, then the later receive time."""
    ascending = [
        stream_candle(trade_num=5, recv_us=9),
        stream_candle(trade_num=6, recv_us=1),
        stream_candle(trade_num=6, recv_us=2, source="rest"),
        stream_candle(trade_num=0, recv_us=0, source="archive"),
        stream_candle(trade_num=1, recv_us=0, source="archive"),
    ]
    assert sorted([*ascending[2:], *ascending[:2]], key=precedence) == ascending


@examples(25, 200)
@given(st.lists(candles(5), max_size=60))
def test_settle_is_the_law(rows):
    """`deduplicate` and `precedence` choose the same rows, also among full ties."""
    assert from_table(deduplicate(to_table(rows))) == settled(rows)


@given(st.lists(candles(5), max_size=40))
def test_settle_twice(rows):
    """A table without duplicates is returned unchanged, as the same object."""
    once = deduplicate(to_table(rows))
    assert deduplicate(once) is once


@examples(25, 200)
@given(st.lists(candles(5), max_size=40, unique_by=lambda row: (row.begin_ms, precedence(row))), st.randoms())
def test_settle_in_any_order(rows, random):
    """Without full ties the order of rows makes no difference."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert deduplicate(to_table(shuffled)).equals(deduplicate(to_table(rows)))


@examples(25, 200)
@given(st.lists(candles(5), max_size=30), st.lists(candles(5), max_size=30))
def test_settle_in_steps(one, other):
    """Deduplication in steps gives the same rows as at once."""
    late = deduplicate(to_table(one + other))
    early = deduplicate(pa.concat_tables([deduplicate(to_table(one)), to_table(other)]))
    assert early.equals(late)


def test_settle_with_unknown_counts():
    """A foreign row without a number of trades loses to one that has it."""
    known = to_table([stream_candle(1, trade_num=0)])
    unknown = known.set_column(8, "trade_num", pa.nulls(1, pa.int64()))
    unknown = unknown.set_column(13, "source", pa.nulls(1, pa.string()))
    for order in ([known, unknown], [unknown, known]):
        assert deduplicate(pa.concat_tables(order)).equals(known)


def test_precedence_of_unknown_trades():
    """Of two rows without a number of trades the larger volume wins; any number of trades beats both."""
    ascending = [
        stream_candle(trade_num=None, volume=None, recv_us=9),
        stream_candle(trade_num=None, volume=5.0, recv_us=8),
        stream_candle(trade_num=None, volume=7.0, recv_us=1),
        stream_candle(trade_num=None, volume=7.0, recv_us=2),
        stream_candle(trade_num=0, volume=1.0, recv_us=0),
        stream_candle(trade_num=None, volume=1.0, recv_us=0, source="archive"),
    ]
    assert sorted([*ascending[3:], *ascending[:3]], key=precedence) == ascending


@examples(25, 200)
@given(st.lists(unknown_candles(3), max_size=40))
def test_settle_is_the_law_for_unknown_trades(rows):
    """With unknown trades and volumes, `deduplicate` and `precedence` choose the same rows."""
    kept = to_table(settled(rows))
    assert [precedence(row) for row in from_table(deduplicate(to_table(rows)))] == [
        precedence(row) for row in from_table(kept)
    ]


def test_int_column():
    """Times become integers, and null the smallest integer."""
    table = to_table([stream_candle(0, event_ms=None), stream_candle(1, event_ms=7)])
    assert int_column(table, "event_time").tolist() == [-(2**63), 7]
    assert int_column(SCHEMA.empty_table(), "trade_num").tolist() == []


def test_to_add_a_column() -> None:
    """The module's docstring lists each module that names a column."""
    package = Path(lakewriter.__file__).parent
    naming = {
        path.relative_to(package).with_suffix("").as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\btaker_buy_quote", path.read_text())
    }
    lines = re.findall(r"^    (\S.*?)  ", lakewriter.candle.__doc__ or "", re.MULTILINE)
    assert {name for line in lines for name in line.split(", ")} == naming - {"candle"}
