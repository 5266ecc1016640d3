"""The reason for an answer without candles, and the errors of unreadable files."""

from errno import EACCES
from pathlib import Path

import duckdb
import pytest

from lakewriter.lake.lake import LakeStore
from lakewriter.query.errors import as_lakewriter_error
from lakewriter.query.session import stream
from support.lakes import make_lake, rest_candle


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Two days of spot, one candle of futures, and one symbol in the journal alone."""
    return make_lake(
        tmp_path_factory.mktemp("absence"),
        [
            rest_candle(0),
            rest_candle(1440),
            rest_candle(0, symbol="BNBUSDT"),
            rest_candle(0, interval="1h"),
            rest_candle(0, market="usdt_futures", symbol="ETHUSDT"),
            rest_candle(0, market="coin_futures", interval="1h"),
        ],
        [rest_candle(0, symbol="NEWUSDT")],
    )


def why(store: LakeStore, sql: str) -> str:
    with stream(store, sql) as answer:
        for _ in answer.batches:
            pass
        return answer.explain_empty()


def test_what_cannot_be_looked_into_fails_no_answer(tmp_path: Path) -> None:
    """A broken link in a directory's place is skipped, in the answer and in its reason."""
    store = make_lake(tmp_path, [rest_candle(0)])
    (tmp_path / "market=spot" / "symbol=RING").symlink_to("symbol=RING")
    assert why(store, "FROM candles WHERE market = 'coin_futures'") == (
        "no candles: there is no market coin_futures; there is spot"
    )


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("symbol = 'btcusdt'", "there is no symbol btcusdt; there is BTCUSDT"),
        ("symbol = 'BTCUSD'", "there is no symbol BTCUSD; there is BTCUSDT"),
        ("symbol = 'XYZ'", "there is no symbol XYZ; there are BNBUSDT, BTCUSDT, ETHUSDT, NEWUSDT"),
        ("symbol IN ('XYZ', 'ABC')", "there is no such symbol; there are BNBUSDT, BTCUSDT, ETHUSDT, NEWUSDT"),
        ("market = 'binance'", "there is no market binance; there are coin_futures, spot, usdt_futures"),
        ("market = 'spot' AND symbol = 'ETHUSDT'", "spot has no symbol ETHUSDT; usdt_futures has"),
        ("symbol = 'NEWUSDT' AND \"interval\" = '2m'", "spot NEWUSDT has no interval 2m; there is 1m"),
        (
            "market = 'spot' AND symbol = 'BTCUSDT' AND \"interval\" = '15m'",
            "spot BTCUSDT has no interval 15m; there are 1m, 1h: FROM resample('spot', 'BTCUSDT', '1m', '15m')",
        ),
        (
            "symbol = 'BTCUSDT' AND \"interval\" = '4h'",
            "BTCUSDT has no interval 4h; there are 1m, 1h: FROM resample('spot', 'BTCUSDT', '1m', '4h')",
        ),
        (
            "market = 'spot' AND symbol = 'BTCUSDT' AND \"interval\" = '1m' AND candle_begin_time >= '2025-01-01'",
            "spot BTCUSDT 1m has 2024-06-30 to 2024-07-01 (UTC), and none of the days asked for",
        ),
        (
            "market = 'usdt_futures' AND \"date\" < '2024-06-30'",
            "usdt_futures ETHUSDT 1m has 2024-06-30 (UTC), and none of the days asked for",
        ),
        (
            "candle_begin_time < '2024-01-01'",
            "these 6 series have 2024-06-30 to 2024-07-01 (UTC), and none of the days asked for",
        ),
    ],
)
def test_what_is_absent_is_named(store: LakeStore, where: str, said: str) -> None:
    """An empty answer names the first level without a match and the existing names, also for a count."""
    assert why(store, f"FROM candles WHERE {where}") == f"no candles: {said}"
    assert why(store, f"SELECT count(*) FROM candles WHERE {where}") == f"no candles: {said}"


@pytest.mark.parametrize(
    "sql",
    [
        "FROM candles",
        "SELECT 1 WHERE false",
        "FROM candles WHERE close < 0",
        "FROM candles WHERE symbol = 'NEWUSDT'",
        "FROM candles LIMIT 0",
        "SELECT count(*) FROM candles WHERE symbol IN ('BTCUSDT', 'XYZ')",
        "FROM gaps",
        "FROM candles WHERE symbol = 'XYZ' UNION ALL FROM candles WHERE symbol = 'BTCUSDT'",
    ],
)
def test_nothing_is_said_where_the_partitions_are(store: LakeStore, sql: str) -> None:
    """No reason is given if rows were found, or if the partitions exist."""
    assert why(store, sql) == ""


def test_a_lake_that_is_all_in_the_journal(tmp_path: Path) -> None:
    """Before a recording's first file, an empty answer names the journal's series."""
    lake = make_lake(tmp_path, [], [rest_candle(0)])
    assert why(lake, "SELECT count(*) FROM candles") == ""
    union = "FROM candles WHERE symbol = '{}' UNION ALL FROM candles WHERE symbol = 'XYZ'"
    assert why(lake, union.format("BTCUSDT")) == ""
    assert why(lake, union.format("ABC")) == "no candles: spot has no symbol ABC; there is BTCUSDT"


def test_each_side_of_a_join_is_looked_at(store: LakeStore) -> None:
    """A misspelled second symbol of a join is reported, even if the first has candles."""
    said = why(store, "FROM correlation('spot', 'BTCUSDT', '1m', 'bnbusd')")
    assert said == "no candles: spot has no symbol BNBUSD; there is BNBUSDT"


def test_an_empty_lake_says_so(tmp_path: Path) -> None:
    """In an empty lake, that is the reason."""
    said = "no candles: the lake is empty"
    assert why(make_lake(tmp_path), "SELECT count(*) FROM candles WHERE symbol = 'BTCUSDT'") == said
    assert why(LakeStore.open(str(tmp_path)), "FROM candles") == said


def test_many_names_are_counted(tmp_path: Path) -> None:
    """Of a thousand symbols the reason lists a few, and counts the rest."""
    lake = make_lake(tmp_path, [], [rest_candle(0, symbol=f"S{number:02}USDT") for number in range(20)])
    said = why(lake, "FROM candles WHERE symbol = '?'")
    assert (
        said == "no candles: spot has no symbol ?; there are S00USDT, S01USDT, S02USDT, S03USDT and 16 more"
    )


def test_a_file_that_may_not_be_read_is_not_to_be_moved() -> None:
    """Without permission on a file, each reader's hint says how to get it."""
    root = Path("/srv/candles")
    ours = as_lakewriter_error(PermissionError(EACCES, "Permission denied", "/srv/candles/market=spot"), root)
    assert (ours.what, ours.hint) == (
        "lake: /srv/candles/market=spot: Permission denied",
        "run this as the user who records, or let others read: chmod -R a+rX /srv/candles",
    )
    theirs = duckdb.IOException('IO Error: Cannot open file "/srv/candles/x.parquet": Permission denied')
    assert as_lakewriter_error(theirs, root).hint == ours.hint
