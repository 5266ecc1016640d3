"""PIVOT without the names of its values: what plain DuckDB answers, and no more access than before."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.query.errors import QueryError
from lakewriter.query.python.result import Result
from lakewriter.query.session import run, stream
from lakewriter.query.statement import pivot
from lakewriter.query.statement.pivot import name_values
from support.escapes import everything
from support.lakes import make_lake, rest_candle

OWN = pa.table(
    {
        "symbol": ["A", "B'x", None, "币", "A"],
        "year": [2000, 2001, 2001, 2002, 2002],
        "day": pa.array([1, 2, 3, 1, 2], pa.date32()),
        "flag": [True, False, True, None, True],
        "n": [1, 2, 3, 4, 5],
    }
)

STATEMENTS = [
    "PIVOT own ON symbol USING sum(n) GROUP BY year ORDER BY ALL",
    "pivot own on symbol using sum(n) group by year order by all;",
    "FROM (PIVOT own ON symbol USING sum(n) GROUP BY year) ORDER BY ALL LIMIT 2",
    "SELECT year, \"A\" FROM (PIVOT own ON symbol USING sum(n) GROUP BY year) ORDER BY ALL",
    "WITH a AS (FROM own WHERE n > 1) PIVOT a ON symbol USING sum(n) GROUP BY year ORDER BY ALL",
    "WITH p AS (PIVOT own ON year USING max(n) GROUP BY symbol) SELECT * FROM p ORDER BY ALL",
    "PIVOT (FROM own WHERE n > 0 /* ON x */ AND symbol <> 'ON ) USING') ON symbol USING sum(n) GROUP BY year ORDER BY ALL",
    "PIVOT own -- ON a comment\n ON symbol -- and USING another\n USING sum(n) GROUP BY year ORDER BY ALL",
    "PIVOT own ON symbol, year USING sum(n) GROUP BY flag ORDER BY ALL",
    "PIVOT own ON year + 1, symbol IN ('A', 'B''x') USING sum(n) GROUP BY flag ORDER BY ALL",
    "PIVOT own ON lower(symbol) USING sum(n) AS total, count(*) AS rows GROUP BY year ORDER BY ALL",
    "PIVOT own ON day USING sum(n) GROUP BY year ORDER BY ALL",
    "PIVOT own ON flag USING sum(n) GROUP BY year ORDER BY ALL",
    "PIVOT own ON CASE WHEN symbol IN ('A') THEN 'a' ELSE 'other' END USING sum(n) GROUP BY year ORDER BY ALL",
    "PIVOT (PIVOT own ON symbol USING sum(n) GROUP BY year) ON year USING max(\"A\") ORDER BY ALL",
    "PIVOT_WIDER own ON symbol USING sum(n) GROUP BY year ORDER BY ALL",
    "PIVOT \"own\" ON \"symbol\" USING max('币') GROUP BY year ORDER BY ALL",
    "(PIVOT own ON symbol USING sum(n) GROUP BY year) UNION ALL (PIVOT own ON symbol USING max(n) GROUP BY year) ORDER BY ALL",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    candles = [
        rest_candle(n, symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT") for n in range(3)
    ]
    return make_lake(tmp_path_factory.mktemp("pivot") / "lake", candles[:-2], hot=candles[-2:])


@pytest.mark.parametrize("sql", STATEMENTS)
def test_the_answer_is_duckdbs(store: LakeStore, sql: str) -> None:
    """In each form of the statement, the values become columns as in plain DuckDB."""
    with duckdb.connect() as plain:
        plain.register("own", OWN)
        expected = plain.sql(sql).to_arrow_table()
    found = run(store, sql, tables={"own": OWN})
    assert sorted(found.column_names) == sorted(expected.column_names)
    assert found.select(expected.column_names).equals(
        expected.cast(found.select(expected.column_names).schema)
    )


def test_candles_become_a_wide_table(store: LakeStore) -> None:
    """A table of time and symbol needs no list of symbols; candles of the journal are in it."""
    sql = "PIVOT (FROM candles_of('spot', $wanted, '1m')) ON symbol USING last(close) GROUP BY candle_begin_time ORDER BY ALL"
    found = run(store, sql, {"wanted": "*USDT"})
    assert found.column_names == ["candle_begin_time", "BTCUSDT", "ETHUSDT", "XRPUSDT"]
    assert found["XRPUSDT"].to_pylist() == [101.0, 102.0, 103.0]
    assert run(store, sql, {"wanted": "ETHUSDT"}).column_names == ["candle_begin_time", "ETHUSDT"]
    with stream(store, sql, {"wanted": "B*"}) as answer:
        assert answer.schema.names == ["candle_begin_time", "BTCUSDT"]


def test_parameters_outside_of_the_source_keep_their_place(store: LakeStore) -> None:
    """A parameter that only the rest of the statement uses is not asked for twice."""
    sql = (
        "FROM (PIVOT candles ON symbol USING sum($factor::INT * trade_num) GROUP BY market) WHERE market = $m"
    )
    assert Result(run(store, sql, {"factor": 2, "m": "spot"})).rows() == [("spot", 60, 60, 60)]
    with pytest.raises(UsageError, match="there is no parameter x"):
        run(store, sql, {"factor": 2, "m": "spot", "x": 1})
    with pytest.raises(UsageError, match=r"\$factor has no value"):
        run(store, sql, {"m": "spot"})


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("PIVOT own ON symbol USING sum(n) GROUP BY nothing", 'column "nothing"'),
        ("PIVOT own ON nothing USING sum(n)", '"nothing" not found'),
        ("PIVOT none ON symbol USING sum(n)", "there is no table none"),
        ("PIVOT (FROM own WHERE n > 9) ON symbol USING sum(n)", "PIVOT finds no value of symbol"),
        ("PIVOT (FROM range(11)) ON range USING count(*)", "PIVOT finds more than 10 values of range"),
        ("PIVOT own JOIN own AS o USING (n) ON year USING sum(n)", "PIVOT needs its values named"),
        ("PIVOT own ON symbol USING", "syntax error"),
        ("PIVOT own ON 'a", "unterminated"),
        ("PIVOT own ON symbol; SELECT 2", "one statement at a time"),
        ("PIVOT own ON \ud800", "is not UTF-8 text"),
    ],
)
def test_a_mistake_is_one_line(
    store: LakeStore, sql: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that cannot be answered says why, in words about the statement itself."""
    monkeypatch.setattr(pivot, "VALUES_MAX", 10)
    with pytest.raises(LakewriterError, match=message) as raised:
        run(store, sql, tables={"own": OWN})
    assert "\n" not in raised.value.what


@pytest.mark.parametrize(
    "sql",
    [
        "PIVOT read_text('{outside}') ON size USING count(*)",
        "PIVOT '{outside}' ON a USING count(*)",
        "PIVOT (FROM read_csv('{outside}')) ON a USING count(*)",
        "PIVOT own ON (SELECT content FROM read_text('{outside}')) USING count(*)",
        "PIVOT own ON symbol USING max((SELECT content FROM read_text('{outside}')))",
        "PIVOT (WITH x AS (COPY (SELECT 1) TO '{new}') FROM x) ON a USING count(*)",
        "WITH x AS (COPY (SELECT 1 AS a) TO '{new}') PIVOT x ON a USING count(*)",
        "PIVOT own ON symbol) TO '{new}' (USING count(*)",
        "PIVOT own ON getenv('HOME') USING count(*)",
        "CREATE TABLE t AS PIVOT own ON symbol USING sum(n)",
        "COPY (PIVOT own ON symbol USING sum(n)) TO '{new}'",
        "PIVOT secret_frame ON hidden USING count(*)",
    ],
)
def test_no_statement_escapes_by_a_pivot(store: LakeStore, tmp_path: Path, sql: str) -> None:
    """The guard checks the statement that finds the values, and the one with the values."""
    secret_frame = pa.table({"hidden": ["hidden"]})
    (tmp_path / "secret.csv").write_text("a,b\nhidden,1\n")
    before = everything(tmp_path)
    with pytest.raises(LakewriterError) as raised:
        run(store, sql.format(outside=tmp_path / "secret.csv", new=tmp_path / "new.csv"), tables={"own": OWN})
    assert everything(tmp_path) == before
    assert "hidden,1" not in str(raised.value)
    assert secret_frame is not None


def test_a_hostile_value_stays_a_text(store: LakeStore) -> None:
    """Quotes in a value end no text in the statement."""
    values = ["'); DROP", "x' OR 'a'='a", "--", "/*", "$x", "\\'", "a\nb"]
    found = run(store, "PIVOT t ON v USING count(*)", tables={"t": pa.table({"v": values})})
    assert sorted(found.column_names) == sorted(values)
    assert found.to_pylist() == [dict.fromkeys(found.column_names, 1)]


def test_other_statements_stay_as_they_are() -> None:
    """Only a PIVOT without values is changed, and nothing is asked for another statement."""
    for sql in (
        "SELECT 1",
        "SELECT 'PIVOT own ON symbol'",
        "PIVOT own ON symbol IN ('A') USING sum(n)",
        "FROM own PIVOT (sum(n) FOR symbol IN ('A'))",
        "PIVOT own USING sum(n) GROUP BY symbol",
    ):
        assert name_values(sql, lambda statement: pytest.fail(statement)) == sql
    with pytest.raises(QueryError, match="finds no value of symbol"):
        name_values("PIVOT own ON symbol", lambda _: [])
