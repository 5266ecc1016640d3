"""The time of the cookbook's answers, beside DuckDB and Polars on the same files.

The lake has 1m candles of 45 days in twelve series, 1h of three years and 1d of five
years. Each question is asked in three ways, in turns:

    ours     as in docs/how-to/cookbook.md, without a path
    duckdb   SQL on a kept connection, with a glob of just the files of the answer
    polars   scan_parquet of the same glob

All ways return the same number, which is compared. A line shows the fastest round of
each, in milliseconds, with a warm page cache.

    python benchmarks/cookbook.py [--rounds 7] [--directory /tmp] [--only 5 6] [--quick]
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import lakewriter
from lakewriter.candle import SCHEMA
from lakewriter.candle_arrays import ends
from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode
from lakewriter.partition import split_by_partition
from lakewriter.series import Series

JULY_MS = 1_719_792_000_000  # 2024-07-01
SPOT = ("ADAUSDT", "AVAXUSDT", "BNBUSDT", "BTCUSDT", "DOGEUSDT", "DOTUSDT", "ETHUSDT", "LTCUSDT", "XRPUSDT")
PERPETUALS = ("BNBUSDT", "BTCUSDT", "ETHUSDT")
DAYS = {"1m": 45, "1h": 3 * 365, "1d": 5 * 365}
TRADES = 1_000

HIVE = (
    "hive_partitioning=true, hive_types_autocast=false, "
    "hive_types={'market': 'VARCHAR', 'symbol': 'VARCHAR', 'interval': 'VARCHAR', 'date': 'DATE'}"
)
HIVE_SCHEMA = {"market": pl.String, "symbol": pl.String, "interval": pl.String, "date": pl.Date}


def made_rows(series: Series, seed: int) -> pa.Table:
    """Return a random walk of a series until July 2024, as rows of the lake."""
    grid = INTERVALS[series.interval]
    begins = np.arange(JULY_MS - DAYS[series.interval] * DAY_MS, JULY_MS, grid.length_ms)
    random = np.random.default_rng(seed)
    count = len(begins)
    close = np.round(1000 * (seed + 1) * np.exp(np.cumsum(random.normal(0, 0.0005, count))), 2)
    opens = np.append(close[:1], close[:-1])
    volume = np.round(random.exponential(5, count), 5)
    columns: dict[str, Any] = {
        "candle_begin_time": begins,
        "candle_end_time": ends(grid, begins),
        "open": opens,
        "high": np.maximum(opens, close) + 0.5,
        "low": np.minimum(opens, close) - 0.5,
        "close": close,
        "volume": volume,
        "quote_volume": np.round(volume * close, 8),
        "trade_num": random.integers(1, 2000, count),
        "taker_buy_base_asset_volume": volume / 2,
        "taker_buy_quote_asset_volume": volume * close / 2,
        "event_time": ends(grid, begins) + 4,
        "recv_time": (ends(grid, begins) + 90) * 1000,
        "source": np.full(count, "stream"),
    }
    return pa.Table.from_arrays([pa.array(columns[f.name]).cast(f.type) for f in SCHEMA], schema=SCHEMA)


def make_lake(root: Path) -> int:
    """Make the lake; return the number of its candles."""
    LakeStore.create(str(root), "benchmark")
    names = [("spot", symbol) for symbol in SPOT] + [("usdt_futures", symbol) for symbol in PERPETUALS]
    total = 0
    for seed, (market, symbol) in enumerate(names):
        for interval in DAYS:
            series = Series(market, symbol, interval)
            rows = made_rows(series, seed)
            total += rows.num_rows
            for partition, some in split_by_partition(series, rows):
                path = root / partition.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(some, partition))
    return total


class Question(NamedTuple):
    """A question of the cookbook in three ways, which all return the same number."""

    number: int
    name: str
    ours: Callable[[], float]
    duckdb: Callable[[], float]
    polars: Callable[[], float]


class Ways:
    """The lake, a kept connection, and Polars' scans."""

    def __init__(self, root: Path, trades: pd.DataFrame) -> None:
        self.root = root
        self.lake = lakewriter.open_lake(root)
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone='UTC'")
        self.connection.register("trades", pa.Table.from_pandas(trades, preserve_index=False))
        self.trades = trades

    def glob(self, market: str = "*", symbol: str = "*", interval: str = "1m") -> str:
        return f"{self.root}/market={market}/symbol={symbol}/interval={interval}/date=*/*.parquet"

    def table(self, *names: str) -> str:
        return f"read_parquet('{self.glob(*names)}', {HIVE})"

    def sql(self, sql: str) -> pa.Table:
        return self.connection.sql(sql).to_arrow_table()

    def scan(self, *names: str) -> pl.LazyFrame:
        return pl.scan_parquet(self.glob(*names), hive_partitioning=True, hive_schema=HIVE_SCHEMA)


OHLCV = """time_bucket(INTERVAL 1 hour, candle_begin_time) AS hour, arg_min(open, candle_begin_time) AS open,
    max(high) AS high, min(low) AS low, arg_max(close, candle_begin_time) AS close, sum(volume) AS volume"""
BTC = ("spot", "BTCUSDT", "1m")


def hours(ways: Ways) -> Question:
    sql = f"SELECT symbol, {OHLCV} FROM {ways.table('spot')} GROUP BY ALL HAVING count(*) = 60 ORDER BY ALL"

    def polars() -> float:
        keys = ["symbol", pl.col("candle_begin_time").dt.truncate("1h").alias("hour")]
        ordered = ways.scan("spot").sort("symbol", "candle_begin_time").group_by(keys, maintain_order=True)
        columns = [pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()]
        found = ordered.agg(*columns, pl.col("volume").sum(), pl.len().alias("n"))
        return found.filter(pl.col("n") == 60).collect().height

    return Question(
        1,
        "hourly OHLCV of a market from 1m",
        lambda: len(ways.lake.query("FROM resample('spot', '*', '1m', '1h') WHERE complete")),
        lambda: ways.sql(sql).num_rows,
        polars,
    )


def basis(ways: Ways) -> Question:
    def ours() -> float:
        spot, future = (
            ways.lake.matrix("close", market, "BTCUSDT", "1m", index="candle_begin_time")
            for market in ("spot", "usdt_futures")
        )
        return len((future / spot - 1).resample("1D").mean())

    def polars() -> float:
        spot, future = (
            ways.scan(m, "BTCUSDT").select("candle_begin_time", "close") for m in ("spot", "usdt_futures")
        )
        joined = spot.join(future, on="candle_begin_time", suffix="_f")
        day = pl.col("candle_begin_time").dt.date()
        daily = joined.group_by(day).agg((pl.col("close_f") / pl.col("close") - 1).mean())
        return daily.sort("candle_begin_time").collect().height

    spot, future = (ways.table(market, "BTCUSDT") for market in ("spot", "usdt_futures"))
    sql = f"""SELECT candle_begin_time::DATE AS day, avg(f.close / s.close - 1) FROM {spot} s
        JOIN {future} f USING (candle_begin_time) GROUP BY ALL ORDER BY day"""
    return Question(2, "basis by minute, its daily mean", ours, lambda: ways.sql(sql).num_rows, polars)


def z_score(ways: Ways) -> Question:
    def ours() -> float:
        close = ways.lake.matrix("close", *BTC)
        day = close.rolling("24h")
        return len((close - day.mean()) / day.std())

    def polars() -> float:
        close, end = pl.col("close"), "candle_end_time"
        score = (close - close.rolling_mean_by(end, "24h")) / close.rolling_std_by(end, "24h")
        return ways.scan(*BTC).select(end, "close").sort(end).select(end, score).collect().height

    sql = f"""SELECT candle_end_time, (close - avg(close) OVER day) / stddev(close) OVER day FROM {ways.table(*BTC)}
        WINDOW day AS (ORDER BY candle_end_time RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW)"""
    return Question(3, "rolling z-score over 24 h", ours, lambda: ways.sql(sql).num_rows, polars)


def correlation(ways: Ways) -> Question:
    daily = ("spot", "*", "1d")

    def in_duckdb() -> float:
        long = ways.connection.sql(f"SELECT symbol, candle_end_time, close FROM {ways.table(*daily)}").df()
        wide = long.pivot(index="candle_end_time", columns="symbol", values="close")
        return np.log(wide).diff().corr().size

    def polars() -> float:
        wide = ways.scan(*daily).select("symbol", "candle_end_time", "close").collect()
        wide = wide.pivot("symbol", index="candle_end_time", values="close").sort("candle_end_time")
        returns = wide.select(pl.exclude("candle_end_time").log().diff()).drop_nulls()
        return returns.corr().to_numpy().size

    return Question(
        5,
        "correlation of daily log returns",
        lambda: np.log(ways.lake.matrix("close", "spot", "*USDT", "1d")).diff().corr().size,
        in_duckdb,
        polars,
    )


def wide(ways: Ways) -> Question:
    def polars() -> float:
        long = ways.scan("spot").select("symbol", "candle_end_time", "close").collect()
        return long.pivot("symbol", index="candle_end_time", values="close").sort("candle_end_time").height

    names = ", ".join(f"'{symbol}'" for symbol in SPOT)
    sql = f"""PIVOT (SELECT symbol, candle_end_time, close FROM {ways.table("spot")})
        ON symbol IN ({names}) USING first(close) GROUP BY candle_end_time ORDER BY candle_end_time"""
    return Question(
        6,
        "wide matrix of 1m closes, 9 symbols",
        lambda: len(ways.lake.matrix("close", "spot", "*USDT", "1m")),
        lambda: len(ways.connection.sql(sql).df()),
        polars,
    )


def profile(ways: Ways) -> Question:
    sql = (
        "SELECT floor(close / 100) * 100 AS price, sum(volume) AS volume FROM {} GROUP BY ALL ORDER BY price"
    )

    def polars() -> float:
        price = (pl.col("close") / 100).floor() * 100
        return ways.scan(*BTC).group_by(price).agg(pl.col("volume").sum()).sort("close").collect().height

    return Question(
        8,
        "volume by price bucket",
        lambda: len(ways.lake.query(sql.format("candles_of('spot', 'BTCUSDT', '1m')"))),
        lambda: ways.sql(sql.format(ways.table(*BTC))).num_rows,
        polars,
    )


def trades_beside(ways: Ways) -> Question:
    def ours() -> float:
        candles = ways.lake.candles("spot", ways.trades["symbol"].unique(), "1m", columns=["close"])
        beside = pd.merge_asof(ways.trades, candles, left_on="time", right_index=True, by="symbol")
        return float(beside["close"].sum().round(2))

    def polars() -> float:
        symbols = ways.trades["symbol"].unique().tolist()
        candles = ways.scan("spot").filter(pl.col("symbol").is_in(symbols))
        candles = candles.select("symbol", "candle_end_time", "close").sort("candle_end_time")
        mine = pl.from_pandas(ways.trades).lazy().with_columns(pl.col("time").cast(pl.Datetime("ms", "UTC")))
        beside = mine.join_asof(
            candles, left_on="time", right_on="candle_end_time", by="symbol", check_sortedness=False
        ).collect()
        return round(float(beside["close"].sum()), 2)

    sql = f"""SELECT t.*, c.close FROM trades t ASOF JOIN (
            SELECT * FROM {ways.table("spot")} WHERE symbol IN ('BTCUSDT', 'ETHUSDT')
        ) c ON c.symbol = t.symbol AND c.candle_end_time <= t.time"""
    in_duckdb = lambda: round(float(np.sum(ways.sql(sql)["close"].to_numpy())), 2)  # noqa: E731
    return Question(9, "1,000 trades beside the candle before", ours, in_duckdb, polars)


def drawdowns(ways: Ways) -> Question:
    daily = ("spot", "*", "1d")

    def ours() -> float:
        closes = ways.lake.matrix("close", "spot", "*USDT", "1d")
        return float((closes / closes.cummax() - 1).min().sum().round(6))

    def polars() -> float:
        fall = pl.col("close") / pl.col("close").cum_max().over("symbol") - 1
        rows = ways.scan(*daily).sort("symbol", "candle_end_time").select("symbol", fall)
        return round(float(rows.group_by("symbol").agg(pl.col("close").min()).collect()["close"].sum()), 6)

    sql = f"""SELECT symbol, min(fall) AS fall FROM (
            SELECT symbol, close / max(close) OVER (PARTITION BY symbol ORDER BY candle_end_time) - 1 AS fall
            FROM {ways.table(*daily)}
        ) GROUP BY symbol"""
    in_duckdb = lambda: round(float(np.sum(ways.sql(sql)["fall"].to_numpy())), 6)  # noqa: E731
    return Question(11, "deepest drawdown of each symbol", ours, in_duckdb, polars)


def movers(ways: Ways) -> Question:
    sql = f"""WITH c AS (FROM {ways.table("spot")}), newest AS (SELECT max(candle_end_time) AS moment FROM c)
        SELECT symbol, 100 * (arg_max(close, candle_begin_time) / arg_min(open, candle_begin_time) - 1) AS change
        FROM c, newest WHERE candle_begin_time >= moment - INTERVAL 24 HOURS GROUP BY symbol ORDER BY abs(change) DESC"""

    def polars() -> float:
        rows = (
            ways.scan("spot")
            .select("symbol", "candle_begin_time", "candle_end_time", "open", "close")
            .collect()
        )
        rows = rows.filter(
            pl.col("candle_begin_time") >= pl.col("candle_end_time").max() - timedelta(hours=24)
        )
        rows = rows.sort("symbol", "candle_begin_time").group_by("symbol")
        change = (100 * (pl.col("close").last() / pl.col("open").first() - 1)).alias("change")
        return round(float(rows.agg(change)["change"].abs().max()), 6)

    top = {"market": "spot", "interval": "1m"}
    return Question(
        4,
        "top movers of the last 24 h, 9 symbols",
        lambda: round(abs(ways.lake.query("top_movers", top).arrow()["change_percent"][0].as_py()), 6),
        lambda: round(abs(ways.sql(sql)["change"][0].as_py()), 6),
        polars,
    )


def shanghai(ways: Ways) -> Question:
    hourly = ("spot", "BTCUSDT", "1h")
    day = "date_trunc('day', candle_begin_time AT TIME ZONE 'Asia/Shanghai')"
    sql = f"""SELECT {day} AS day, {OHLCV.partition(" AS hour, ")[2]} FROM {ways.table(*hourly)}
        GROUP BY ALL HAVING count(*) = 24 ORDER BY day"""

    def polars() -> float:
        day = pl.col("candle_begin_time").dt.convert_time_zone("Asia/Shanghai").dt.truncate("1d").alias("day")
        rows = ways.scan(*hourly).sort("candle_begin_time").group_by(day, maintain_order=True)
        columns = [pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()]
        found = rows.agg(*columns, pl.col("volume").sum(), pl.len().alias("n"))
        return found.filter(pl.col("n") == 24).collect().height

    ours = "FROM resample('spot', 'BTCUSDT', '1h', '1d', zone := 'Asia/Shanghai') WHERE complete"
    return Question(
        12,
        "days in Shanghai, from three years of 1h",
        lambda: len(ways.lake.query(ours)),
        lambda: ways.sql(sql).num_rows,
        polars,
    )


def quantiles(ways: Ways) -> Question:
    daily = ("spot", "BTCUSDT", "1d")
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    sql = f"""SELECT dayname(candle_begin_time) AS day, quantile_cont(change, {shares}) AS quantiles FROM {{}}
        GROUP BY ALL"""
    changes = f"""(SELECT candle_begin_time, close / lag(close) OVER (ORDER BY candle_begin_time) - 1 AS change
        FROM {ways.table(*daily)})"""
    ours = sql.replace("change,", "simple_return,").format("returns('spot', 'BTCUSDT', '1d')")

    def polars() -> float:
        rows = ways.scan(*daily).sort("candle_begin_time")
        rows = rows.select(
            pl.col("candle_begin_time").dt.weekday().alias("day"), pl.col("close").pct_change()
        )
        quantiles = [pl.col("close").quantile(share, "linear").alias(str(share)) for share in shares]
        return round(float(rows.group_by("day").agg(quantiles).collect()["0.5"].sum()), 9)

    def middle(table: pa.Table) -> float:
        return round(sum(values[2] for values in table["quantiles"].to_pylist()), 9)

    return Question(
        13,
        "quantiles of daily returns by weekday",
        lambda: middle(ways.lake.query(ours).arrow()),
        lambda: middle(ways.sql(sql.format(changes))),
        polars,
    )


def dollar_bars(ways: Ways) -> Question:
    sql = """SELECT min(candle_begin_time) AS begin, arg_min(open, candle_begin_time) AS open, max(high) AS high,
            min(low) AS low, arg_max(close, candle_begin_time) AS close, sum(quote_volume) AS quote_volume
        FROM (SELECT *, floor((sum(quote_volume) OVER (ORDER BY candle_begin_time) - quote_volume) / 1e6) AS bar
            FROM {}) GROUP BY bar ORDER BY begin"""

    def polars() -> float:
        quote = pl.col("quote_volume")
        bar = ((quote.cum_sum() - quote) / 1e6).floor().alias("bar")
        rows = (
            ways.scan(*BTC).sort("candle_begin_time").with_columns(bar).group_by("bar", maintain_order=True)
        )
        columns = [pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()]
        return rows.agg(pl.col("candle_begin_time").first(), *columns, quote.sum()).collect().height

    return Question(
        14,
        "dollar bars of a million",
        lambda: len(ways.lake.query(sql.format("candles_of('spot', 'BTCUSDT', '1m')"))),
        lambda: ways.sql(sql.format(ways.table(*BTC))).num_rows,
        polars,
    )


def series(ways: Ways) -> Question:
    keys = ["market", "symbol", "interval"]

    def polars() -> float:
        time = pl.col("candle_begin_time")
        found = ways.scan("*", "*", "*").group_by(keys).agg(time.min().alias("f"), time.max(), pl.len())
        return float(found.sort(keys).collect()["len"].sum())

    sql = f"""SELECT market, symbol, "interval", min(candle_begin_time), max(candle_begin_time), count(*) AS candles
        FROM {ways.table("*", "*", "*")} GROUP BY ALL ORDER BY ALL"""
    return Question(
        17,
        "the series, since when, how many candles",
        lambda: float(ways.lake.series()["candles"].sum()),
        lambda: float(np.sum(ways.sql(sql)["candles"].to_numpy())),
        polars,
    )


def thousand(ways: Ways) -> Question:
    """A hundred questions are enough; the line shows the time of one."""
    symbols = [SPOT[number % len(SPOT)] for number in range(100)]
    high = ["high"]
    return Question(
        18,
        "max(high) of one symbol after the other, each",
        lambda: sum(ways.lake.candles("spot", s, "1d", columns=high)["high"].max() for s in symbols),
        lambda: sum(
            ways.sql(f"SELECT max(high) FROM {ways.table('spot', symbol, '1d')}")[0][0].as_py()
            for symbol in symbols
        ),
        lambda: sum(
            ways.scan("spot", symbol, "1d").select(pl.col("high").max()).collect().item()
            for symbol in symbols
        ),
    )


QUESTIONS = (
    hours, basis, z_score, movers, correlation, wide, profile, trades_beside, drawdowns, shanghai, quantiles,
    dollar_bars, series, thousand,
)  # fmt: skip


def made_trades() -> pd.DataFrame:
    random = np.random.default_rng(1)
    stop = datetime.fromtimestamp(JULY_MS / 1000, UTC)
    seconds = np.sort(random.integers(60, 40 * 86_400, TRADES))[::-1]
    times = pd.to_datetime([stop - timedelta(seconds=int(each)) for each in seconds], utc=True)
    return pd.DataFrame({"time": times, "symbol": random.choice(["BTCUSDT", "ETHUSDT"], TRADES)})


def fastest_ms(question: Question, rounds: int) -> list[float]:
    """Return the fastest round of each way, after a check that all return the same number."""
    ways = (question.ours, question.duckdb, question.polars)
    answers = [way() for way in ways]
    assert max(answers) - min(answers) <= 1e-6 * abs(max(answers)), (question.name, answers)
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, taken in zip(ways, times, strict=True):
            gc.collect()
            started_s = time.perf_counter()
            way()
            taken.append((time.perf_counter() - started_s) * 1000)
    return [min(each) for each in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", default=None)
    parser.add_argument("--only", type=int, nargs="*", default=[])
    parser.add_argument("--quick", action="store_true", help="one round of each: whether it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        root = Path(directory) / "lake"
        total = make_lake(root)
        minutes = (len(SPOT) + len(PERPETUALS)) * DAYS["1m"] * 1440
        print(f"{total:,} candles, {minutes:,} of them of 1m; {TRADES:,} trades")
        print(f"{'':>3}  {'question':45} {'ours':>8} {'duckdb':>8} {'polars':>8} ms")
        ways = Ways(root, made_trades())
        for make in QUESTIONS:
            question = make(ways)
            if options.only and question.number not in options.only:
                continue
            times = fastest_ms(question, options.rounds)
            if make is thousand:
                times = [each / 100 for each in times]
            cells = " ".join(f"{each:8.1f}" for each in times)
            print(f"{question.number:>3}  {question.name:45} {cells}", flush=True)


if __name__ == "__main__":
    main()
