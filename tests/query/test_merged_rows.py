"""Unflushed candles of few partitions are merged before the engine sees them, of many inside of it."""

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from lakewriter.candle import Candle, precedence
from lakewriter.query.scan.merged_rows import PARTITIONS_MAX, merge_journal
from lakewriter.query.scan.snapshot import take_snapshot
from lakewriter.query.session import run
from support.lakes import add_foreign, make_lake, rest_candle
from support.lengths import examples

SYMBOLS = [f"S{number:02}USDT" for number in range(PARTITIONS_MAX + 2)]
SQL = (
    'SELECT market, symbol, "interval", "date"::VARCHAR AS day, candle_begin_time, close, trade_num, source'
    " FROM candles WHERE symbol {} ORDER BY ALL"
)

CHANGES = st.fixed_dictionaries(
    {
        "trade_num": st.integers(0, 3),
        "close": st.sampled_from([1.0, 2.0, 3.0]),
        "recv_us": st.integers(1, 3).map(lambda second: second * 1_000_000),
        "source": st.sampled_from(["stream", "rest", "archive"]),
    }
)
CANDLES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1440]), CHANGES), max_size=12)


def candles_of(symbol: str, drawn: Iterable[tuple[int, int, dict[str, object]]]) -> list[Candle]:
    return [
        msgspec.structs.replace(rest_candle(minute + day, symbol=symbol), **changes)
        for minute, day, changes in drawn
    ]


def best(candles: Iterable[Candle]) -> list[Candle]:
    """Return the winner of each key; the later of two equal ones."""
    found: dict[int, Candle] = {}
    for one in candles:
        if one.begin_ms not in found or precedence(one) >= precedence(found[one.begin_ms]):
            found[one.begin_ms] = one
    return sorted(found.values(), key=lambda one: one.begin_ms)


def without_ties(candles: list[Candle]) -> list[Candle]:
    """Leave out candles that no rule decides between."""
    return list({(one.begin_ms, precedence(one)): one for one in candles}.values())


@examples(12, 400, suppress_health_check=list(HealthCheck))
@given(in_file=CANDLES, in_journal=CANDLES)
def test_best_rows_are_returned_either_way(
    tmp_path_factory: pytest.TempPathFactory,
    in_file: list[tuple[int, int, dict[str, object]]],
    in_journal: list[tuple[int, int, dict[str, object]]],
) -> None:
    """The answer for one symbol and its part of the answer for many are the best row of each key."""
    all_of_it = without_ties([*candles_of(SYMBOLS[0], in_file), *candles_of(SYMBOLS[0], in_journal)])
    stored = [one for one in all_of_it if one in candles_of(SYMBOLS[0], in_file)]
    hot = [one for one in all_of_it if one not in stored]
    others = [rest_candle(0, symbol=symbol) for symbol in SYMBOLS[1:]]
    store = make_lake(tmp_path_factory.mktemp("lake"), stored, [*hot, *others])
    expected = [(one.begin_ms, str(one.close), one.trade_num, one.source) for one in best([*stored, *hot])]
    for condition in (f"= '{SYMBOLS[0]}'", "LIKE 'S%'"):
        rows = [row for row in run(store, SQL.format(condition)).to_pylist() if row["symbol"] == SYMBOLS[0]]
        found = [
            (
                int(row["candle_begin_time"].timestamp() * 1000),
                str(row["close"]),
                row["trade_num"],
                row["source"],
            )
            for row in rows
        ]
        assert found == expected
        assert all(row["day"] == str(row["candle_begin_time"].date()) for row in rows)


def test_few_partitions_are_merged_here(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Many partitions, or a file of another tool, are left to the engine."""
    few = make_lake(tmp_path_factory.mktemp("few"), [rest_candle(0)], [rest_candle(1)])
    merged = merge_journal(few, take_snapshot(few))
    assert merged is not None
    rows, others = merged
    assert rows.num_rows == 2
    assert (others.journal, others.own) == ([], ())
    add_foreign(few.root, [rest_candle(2)])
    assert merge_journal(few, take_snapshot(few)) is None
    settled = make_lake(tmp_path_factory.mktemp("settled"), [rest_candle(0)])
    assert merge_journal(settled, take_snapshot(settled)) is None
    many = make_lake(
        tmp_path_factory.mktemp("many"), [], [rest_candle(0, symbol=symbol) for symbol in SYMBOLS]
    )
    assert merge_journal(many, take_snapshot(many)) is None


def test_duplicates_of_another_tool_stay(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Only keys with unflushed candles are decided; the others are as in the file."""
    root = tmp_path_factory.mktemp("lake")
    store = make_lake(root, [], [rest_candle(1, trade_num=11)])
    add_foreign(root, [rest_candle(0), rest_candle(0), rest_candle(1), rest_candle(1)], "candles.parquet")
    rows = run(store, "SELECT trade_num FROM candles ORDER BY candle_begin_time").to_pylist()
    assert [row["trade_num"] for row in rows] == [10, 10, 11]
