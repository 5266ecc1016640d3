"""Candles, statements and filters for comparisons of lakewriter with plain DuckDB.

There is a filter for nearly every clause of DuckDB's SELECT that can contain a
predicate. Nearly every statement filters out some of the candles.
"""

import hashlib
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
from hypothesis import strategies as st

from lakewriter.candle import Candle
from lakewriter.interval import DAY_MS, HOUR_MS, INTERVALS
from lakewriter.query.schema import COLUMNS
from support.lakes import BEGIN_MS, rest_candle

SERIES = [
    ("spot", "BTCUSDT", "1h"),
    ("spot", "BTCUSDT", "1d"),
    ("spot", "ETHUSDT", "1h"),
    ("spot", "1F", "1h"),
    ("usdt_futures", "BTCUSDT", "1h"),
    ("usdt_futures", "币USDT", "1h"),
    ("coin_futures", "BTCUSD_PERP", "1mo"),
]
# The other intervals, so that there are files of days, months and years.
SERIES += [("usdt_futures", "ETHUSDT", name) for name in INTERVALS if name not in ("1h", "1d", "1mo")]
DAYS = (0, 1, 2, 3, 7)
HOURS = (0, 1, 7, 23)


def some(market: str, symbol: str, interval: str) -> Iterator[Candle]:
    """Candles of five days; no two have equal numbers."""
    if interval == "1mo":
        for month_ms, end_ms in (
            (1_717_200_000_000, 1_719_792_000_000),
            (1_719_792_000_000, 1_722_470_400_000),
        ):
            yield of(market, symbol, interval, month_ms, end_ms)
        return
    grid = INTERVALS[interval]
    hours = (0,) if interval == "1d" else HOURS
    times = [BEGIN_MS + day * DAY_MS + hour * HOUR_MS for day in DAYS for hour in hours]
    if interval not in ("1h", "1d"):
        times += [BEGIN_MS - 182 * DAY_MS, BEGIN_MS - 181 * DAY_MS]  # around the end of a year
    for begin_ms in sorted({grid.floor(time_ms) for time_ms in times}):
        yield of(market, symbol, interval, begin_ms, grid.end(begin_ms))


def of(market: str, symbol: str, interval: str, begin_ms: int, end_ms: int, **fields: object) -> Candle:
    seed = hashlib.sha256(f"{market}{symbol}{interval}{begin_ms}".encode()).digest()
    price = 100.0 + seed[0]
    close = price + (seed[3] - 128) / 16
    values: dict[str, object] = {
        "market": market,
        "symbol": symbol,
        "interval": interval,
        "begin_ms": begin_ms,
        "end_ms": end_ms,
        "open": price,
        "high": max(price, close) + seed[1] / 8,
        "low": min(price, close) - seed[2] / 8,
        "close": close,
        "volume": seed[4] + 1.0,
        "trade_num": 1_000_000 + seed[5],
        "event_ms": end_ms + seed[6] if seed[7] % 2 else None,
        "recv_us": (end_ms + seed[6]) * 1000,
        "source": ("stream", "rest", "archive")[seed[8] % 3],
    }
    return msgspec.structs.replace(rest_candle(0), **(values | fields))


ALL_ROWS = [one for series in SERIES for one in some(*series)]

# Read as they are by both; `$name` is a value of PARAMS.
PARAMS = {"symbol": "BTCUSDT", "day": date(2024, 7, 2), "many": ["ETHUSDT", "1F"], "price": 200.0}

PREDICATES = [
    "true",
    "false",
    "NULL",
    "symbol = 'BTCUSDT'",
    "symbol == 'NONE'",
    "'BTCUSDT' = symbol",
    "symbol <> 'BTCUSDT'",
    "symbol != '1F' AND symbol != 'ETHUSDT'",
    "symbol < 'BTCUSDT'",
    "symbol <= 'BTCUSDT'",
    "symbol > 'C'",
    "symbol >= '币USDT'",
    "symbol BETWEEN 'A' AND 'C'",
    "symbol NOT BETWEEN 'A' AND 'C'",
    "symbol IN ('BTCUSDT', 'ETHUSDT')",
    "symbol IN ('1F')",
    "symbol IN ('x', NULL, '1F')",
    "symbol NOT IN ('BTCUSDT', 'ETHUSDT')",
    "symbol NOT IN ('BTCUSDT', NULL)",
    "symbol IN (" + ", ".join(f"'S{n}'" for n in range(30)) + ", 'ETHUSDT')",
    "(market, symbol) IN (('spot', '1F'), ('usdt_futures', 'BTCUSDT'))",
    "(market, symbol) = ('spot', '1F')",
    "symbol IS NULL",
    "symbol IS NOT NULL",
    "symbol IS DISTINCT FROM 'BTCUSDT'",
    "symbol IS NOT DISTINCT FROM 'BTCUSDT'",
    "NOT symbol = 'BTCUSDT'",
    "NOT (symbol = 'BTCUSDT' OR market = 'spot')",
    "symbol LIKE 'BTC%'",
    "symbol LIKE '%USDT'",
    "symbol NOT LIKE '%USDT'",
    "symbol ILIKE 'btc%'",
    "symbol SIMILAR TO '.*USD.*'",
    "symbol GLOB 'B*'",
    "starts_with(symbol, 'BTC')",
    "symbol ^@ 'ETH'",
    "prefix(symbol, '币')",
    "contains(symbol, 'USD_')",
    "regexp_matches(symbol, '^[0-9]')",
    "regexp_full_match(symbol, 'BTC.*')",
    "lower(symbol) = 'btcusdt'",
    "upper(symbol) = symbol",
    "left(symbol, 3) = 'BTC'",
    "length(symbol) = 2",
    "symbol || '' = 'BTCUSDT'",
    "concat(market, ':', symbol) = 'spot:1F'",
    "coalesce(symbol, 'x') = 'BTCUSDT'",
    "nullif(symbol, 'BTCUSDT') IS NULL",
    "CASE WHEN symbol = 'BTCUSDT' THEN true ELSE false END",
    "CASE symbol WHEN '1F' THEN market = 'spot' WHEN 'ETHUSDT' THEN false END",
    "if(market = 'spot', symbol = '1F', symbol = 'BTCUSDT')",
    "symbol = 'BTC' || 'USDT'",
    "symbol = upper('btcusdt')",
    "symbol COLLATE NOCASE = 'btcusdt'",
    "market = 'spot'",
    "market <> 'spot' AND \"interval\" = '1h'",
    "market = 'usdt_futures' OR symbol = 'ETHUSDT'",
    "market = symbol",
    "\"interval\" = '1d'",
    "\"interval\" IN ('1d', '1mo')",
    "\"interval\" > '1d'",
    "(symbol = '1F' AND \"date\" = '2024-07-01') OR (symbol = 'ETHUSDT' AND \"date\" >= '2024-07-05')",
    "symbol = 'BTCUSDT' OR high > 300",
    "symbol = 'BTCUSDT' AND (\"date\" = '2024-07-01' OR high > 300)",
    "\"date\" = '2024-07-01'",
    "\"date\" = DATE '2024-07-01'",
    "\"date\" <> '2024-07-01'",
    "\"date\" < '2024-07-03' AND \"date\" > '2024-06-30'",
    "\"date\" BETWEEN '2024-07-01' AND '2024-07-03'",
    "\"date\" NOT BETWEEN '2024-07-01' AND '2024-07-03'",
    "\"date\" BETWEEN '2024-07-03' AND '2024-07-01'",
    "\"date\" IN ('2024-06-30', '2024-07-03', '2024-07-07')",
    "\"date\" NOT IN ('2024-06-30', '2024-07-03')",
    "\"date\" < '2024-07-01' OR \"date\" > '2024-07-05'",
    "\"date\" IS NULL",
    "\"date\" >= '1900-01-01'",
    "\"date\" >= '9000-01-01'",
    "\"date\" = '2024-07-01'::TIMESTAMP",
    "\"date\"::TIMESTAMP = '2024-07-01 00:00:00'",
    "\"date\"::VARCHAR = '2024-07-01'",
    "CAST(\"date\" AS VARCHAR) LIKE '2024-07%'",
    "\"date\" + 1 = DATE '2024-07-02'",
    "\"date\" + INTERVAL 1 DAY > '2024-07-05'",
    "\"date\" - DATE '2024-06-30' = 2",
    "\"date\" = DATE '2024-06-30' + 3",
    "\"date\" < current_date",
    "\"date\" >= current_date - 30",
    "\"date\" = today()",
    "year(\"date\") = 2024",
    "month(\"date\") = 7",
    "extract(day FROM \"date\") = 1",
    "dayofweek(\"date\") = 1",
    "date_trunc('month', \"date\") = '2024-07-01'",
    "date_trunc('week', \"date\") = '2024-07-01'",
    "strftime(\"date\", '%Y-%m') = '2024-06'",
    "date_part('day', \"date\") < 3",
    "last_day(\"date\") = '2024-06-30'",
    "make_date(2024, 7, 1) = \"date\"",
    "candle_begin_time = '2024-07-01'",
    "candle_begin_time = '2024-07-01 07:00:00+00'",
    "candle_begin_time = '2024-07-01 09:00:00+02'",
    "candle_begin_time >= '2024-07-02' AND candle_begin_time < '2024-07-04'",
    "candle_begin_time BETWEEN '2024-07-01 07:00' AND '2024-07-02 07:00'",
    "candle_begin_time > '2024-07-06 23:00'",
    "candle_begin_time <= '2024-06-30'",
    "candle_begin_time <> '2024-07-01 07:00'",
    "candle_begin_time IN ('2024-07-01 07:00', '2024-07-04 23:00')",
    "candle_begin_time IS NULL",
    "candle_begin_time < now()",
    "candle_begin_time > now() - INTERVAL 3 DAYS",
    "candle_begin_time >= TIMESTAMPTZ '2024-07-02' + INTERVAL 36 HOURS",
    "candle_begin_time + INTERVAL 1 DAY >= '2024-07-07'",
    "candle_begin_time::DATE = '2024-07-03'",
    "CAST(candle_begin_time AS DATE) BETWEEN '2024-07-01' AND '2024-07-02'",
    "candle_begin_time::TIMESTAMP = '2024-07-01 07:00:00'",
    "candle_begin_time AT TIME ZONE 'UTC' = '2024-07-01 07:00:00'",
    "candle_begin_time AT TIME ZONE 'Asia/Tokyo' >= '2024-07-07'",
    "date_trunc('day', candle_begin_time) = '2024-07-03'",
    "date_trunc('month', candle_begin_time) = '2024-06-01'",
    "date_trunc('hour', candle_begin_time) > '2024-07-05 12:00'",
    "time_bucket(INTERVAL 2 DAYS, candle_begin_time) = '2024-07-01'",
    "hour(candle_begin_time) = 7",
    "epoch_ms(candle_begin_time) >= 1720000000000",
    "epoch(candle_begin_time) < 1720000000",
    "candle_begin_time = \"date\"",
    "candle_begin_time > \"date\" + INTERVAL 8 HOURS",
    "candle_end_time = '2024-07-01 08:00'",
    "candle_end_time <= '2024-07-01'",
    "candle_end_time > '2024-07-07'",
    "candle_end_time > '2024-07-09'",
    "candle_end_time BETWEEN '2024-07-02' AND '2024-07-03'",
    "candle_end_time IS NULL",
    "candle_end_time IN ('2024-08-01', '2024-07-02')",
    "candle_end_time >= '2024-07-01' AND \"interval\" = '1mo'",
    "candle_end_time - candle_begin_time > INTERVAL 1 HOUR",
    "candle_begin_time >= '2024-07-03' AND candle_end_time <= '2024-07-04'",
    "candle_end_time > '2024-07-03' AND \"date\" < '2024-07-03'",
    "candle_begin_time < '1970-01-02'",
    "candle_begin_time > '-infinity' AND candle_end_time < 'infinity'",
    "candle_begin_time < '2024-07-01 00:00:00.0005' AND symbol = '1F'",
    "candle_begin_time = timezone('Asia/Tokyo', TIMESTAMP '2024-07-01 09:00')",
    "candle_end_time::DATE = \"date\" + 1",
    "candle_end_time NOT IN ('2024-07-01', NULL)",
    "candle_end_time = '2024-07-01' AND \"date\" < '2024-07-01'",
    "\"date\" <= TIMESTAMPTZ '2024-07-01 12:00'",
    "\"date\" > '-infinity'::DATE AND \"date\" < '5000000-01-01'",
    "\"date\" IN (" + ", ".join(f"'{date(2024, 7, 1) + timedelta(days=2 * n)}'" for n in range(5000)) + ")",
    "(\"date\" > '2024-07-02') IS DISTINCT FROM (symbol > 'BT')",
    "(NULL AND symbol = '1F') IS NULL",
    "symbol NOT IN (" + ", ".join(f"'S{n}'" for n in range(5000)) + ", '1F')",
    "symbol COLLATE NOCASE BETWEEN 'a' AND 'c'",
    "symbol COLLATE de > 'b'",
    "COLUMNS('^(open|close)$') > 150",
    "c IS NOT NULL AND (c).symbol = '1F'",
    "CASE WHEN random() < 2 THEN symbol END = '1F'",
    "uuid() IS NOT NULL AND \"date\" = '2024-07-01'",
    "event_time IS NULL",
    "event_time > '2024-07-04'",
    "recv_time < '2024-07-02'",
    "source = 'archive'",
    "source IS DISTINCT FROM 'stream' AND symbol > 'B'",
    "high > 200",
    "high > 1e300 OR symbol = '1F'",
    "high BETWEEN 150 AND 250 AND \"date\" > '2024-07-02'",
    "high - low > 10 AND market = 'spot'",
    "trade_num IN (1000001, 1000002, 1000003, 1000100, 1000200)",
    "trade_num % 2 = 0 AND symbol IN ('1F', 'ETHUSDT')",
    "close > open OR (close < open AND market = 'spot')",
    "isnan(high)",
    "abs(close) = close",
    "random() < 2 AND symbol = '1F'",
    "hash(symbol) = hash('1F')",
    "symbol = $symbol",
    "\"date\" = $day",
    "\"date\" > $day - 2",
    "candle_begin_time >= $day",
    "symbol IN ($symbol, '1F')",
    "list_contains($many, symbol)",
    "symbol IN (SELECT unnest($many))",
    "symbol = ANY($many)",
    "high > $price AND symbol = $symbol AND \"date\" <= $day",
    "symbol = (SELECT 'ETHUSDT')",
    "symbol = (SELECT max(symbol) FROM candles WHERE market = 'spot')",
    "symbol IN (SELECT symbol FROM candles WHERE \"interval\" = '1d')",
    "symbol NOT IN (SELECT symbol FROM candles WHERE \"interval\" = '1d')",
    "symbol IN (SELECT s FROM (VALUES ('1F'), ('NONE')) v(s))",
    "\"date\" = (SELECT max(\"date\") FROM candles)",
    "\"date\" >= (SELECT max(\"date\") - 1 FROM candles)",
    "\"date\" IN (SELECT DATE '2024-07-01' + i::INT FROM range(3) r(i))",
    "high = (SELECT max(high) FROM candles b WHERE b.symbol = c.symbol AND b.\"date\" = c.\"date\")",
    "high > (SELECT avg(high) FROM candles b WHERE b.market = c.market)",
    "EXISTS (SELECT 1 FROM candles b WHERE b.symbol = c.symbol AND b.market = 'usdt_futures')",
    "NOT EXISTS (SELECT 1 FROM candles b WHERE b.symbol = c.symbol AND b.\"interval\" = '1d')",
    "high >= ALL (SELECT high FROM candles b WHERE b.\"date\" = '2024-07-01')",
    "high > ANY (SELECT high FROM candles b WHERE b.symbol = '1F')",
    "symbol = coalesce((SELECT max(symbol) FROM candles WHERE high > 1e9), 'ETHUSDT')",
    # What the empty first run would learn from a join, were it let.
    "symbol = (SELECT coalesce(max(symbol), 'ETHUSDT') FROM candles)",
    "\"date\" = DATE '2024-06-30' + (SELECT least(count(*), 3)::INT FROM candles)",
    "candle_begin_time >= (SELECT coalesce(max(candle_begin_time), TIMESTAMPTZ '2025-01-01') FROM candles)",
    "symbol IN (SELECT symbol FROM candles UNION ALL VALUES ('NONE'))",
]  # fmt: skip

STATEMENTS = [
    "SELECT count(*) FROM candles",
    "SELECT count(*), count(event_time), min(candle_begin_time), max(candle_end_time), max(symbol) FROM candles",
    "FROM candles",
    "SELECT * EXCLUDE (recv_time) FROM candles WHERE symbol = '1F'",
    "SELECT COLUMNS('^(open|high)$') FROM candles WHERE \"date\" = '2024-07-01'",
    "SELECT DISTINCT symbol FROM candles WHERE market = 'spot'",
    "SELECT DISTINCT ON (symbol) symbol, candle_begin_time FROM candles ORDER BY symbol, candle_begin_time, market, \"interval\"",
    "SELECT max(\"date\"), min(symbol) FROM candles WHERE market = 'usdt_futures'",
    "SELECT * FROM candles ORDER BY candle_begin_time DESC, symbol, market, \"interval\" LIMIT 5",
    "SELECT * FROM candles WHERE symbol > 'B' ORDER BY high, symbol, candle_begin_time, market, \"interval\" LIMIT 7 OFFSET 3",
    "SELECT symbol FROM candles ORDER BY symbol LIMIT 2",
    "SELECT \"date\" FROM candles ORDER BY \"date\" DESC LIMIT 3",
    "SELECT * FROM candles LIMIT 0",
    "SELECT count(*) FROM (SELECT * FROM candles LIMIT 10)",
    "SELECT count(*) FROM (SELECT * FROM candles LIMIT 10) WHERE symbol IS NOT NULL",
    "SELECT symbol, max(high) AS h FROM candles GROUP BY symbol HAVING symbol < 'C'",
    "SELECT symbol, max(high) AS h FROM candles GROUP BY ALL HAVING h > 300",
    "SELECT \"date\", sum(volume) FROM candles GROUP BY \"date\" HAVING \"date\" IN ('2024-07-01', '2024-07-04')",
    "SELECT market, symbol, count(*) FROM candles GROUP BY GROUPING SETS ((market), (symbol), ()) HAVING market = 'spot'",
    "SELECT market, \"interval\", count(*) FROM candles GROUP BY ROLLUP (market, \"interval\")",
    "SELECT market, \"interval\", count(*) FROM candles WHERE symbol <> '1F' GROUP BY CUBE (market, \"interval\")",
    "SELECT count(*) FILTER (WHERE symbol = '1F'), count(*) FILTER (WHERE \"date\" > '2024-07-03') FROM candles",
    "SELECT symbol, arg_max(close, candle_begin_time) FROM candles WHERE \"interval\" = '1h' GROUP BY symbol, market",
    "SELECT symbol, market, row_number() OVER (PARTITION BY market, symbol, \"interval\" ORDER BY candle_begin_time) AS n FROM candles QUALIFY n = 2",
    "SELECT *, row_number() OVER (PARTITION BY symbol ORDER BY candle_begin_time, market, \"interval\") AS n FROM candles QUALIFY n <= 2 AND symbol = 'BTCUSDT'",
    "SELECT * FROM (SELECT *, lag(close) OVER (PARTITION BY market, symbol, \"interval\" ORDER BY candle_begin_time) AS b FROM candles) WHERE \"date\" = '2024-07-02'",
    "SELECT * FROM (SELECT symbol, \"date\", sum(volume) OVER (PARTITION BY \"date\") AS v FROM candles) WHERE symbol = '1F'",
    "SELECT * FROM (SELECT symbol, \"date\", sum(volume) OVER () AS v FROM candles) WHERE symbol = '1F'",
    "SELECT * FROM (SELECT symbol, \"date\", rank() OVER (ORDER BY high) AS r FROM candles) WHERE \"date\" = '2024-07-01' AND r < 50",
    "WITH x AS (SELECT * FROM candles) SELECT * FROM x WHERE symbol = '1F'",
    "WITH x AS MATERIALIZED (SELECT * FROM candles) SELECT * FROM x WHERE symbol = '1F'",
    "WITH x AS NOT MATERIALIZED (SELECT * FROM candles) SELECT * FROM x WHERE symbol = '1F' UNION ALL SELECT * FROM x WHERE \"date\" = '2024-07-01'",
    "WITH x AS MATERIALIZED (FROM candles) SELECT a.symbol, b.symbol FROM x a JOIN x b USING (candle_begin_time) WHERE a.symbol = '1F' AND b.market = 'spot'",
    "WITH x AS MATERIALIZED (FROM candles WHERE \"date\" < '2024-07-03') SELECT (SELECT max(high) FROM x WHERE symbol = '1F'), (SELECT min(low) FROM x WHERE symbol = 'ETHUSDT')",
    "WITH x AS (FROM candles WHERE market = 'spot'), y AS (FROM x WHERE symbol = 'BTCUSDT') SELECT count(*) FROM y, x WHERE x.symbol = '1F'",
    "WITH RECURSIVE t(s, n) AS (SELECT '1F', 0 UNION ALL SELECT c.symbol, n + 1 FROM candles c, t WHERE c.symbol > t.s AND n < 2 AND c.\"date\" = '2024-07-01') SELECT s, n FROM t",
    "WITH RECURSIVE t(d) AS (SELECT min(\"date\") FROM candles UNION SELECT d + 1 FROM t WHERE d + 1 IN (SELECT \"date\" FROM candles WHERE symbol = '1F')) SELECT d FROM t",
    "WITH RECURSIVE t(n, s) AS (SELECT 0, 'BTCUSDT' UNION ALL SELECT n + 1, (SELECT max(symbol) FROM candles WHERE symbol < s AND market = 'spot') FROM t WHERE n < 3) SELECT n, s FROM t",
    "WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t, (SELECT count(*) c FROM candles WHERE symbol = '1F') WHERE n < c) SELECT count(*), (SELECT count(*) FROM candles WHERE symbol = 'ETHUSDT') FROM t",
    "SELECT a.symbol, b.symbol, a.close - b.close FROM candles a JOIN candles b ON a.candle_begin_time = b.candle_begin_time WHERE a.symbol = 'BTCUSDT' AND a.market = 'spot' AND b.symbol = 'ETHUSDT'",
    "SELECT a.high, b.high FROM candles a JOIN candles b USING (symbol, \"interval\", candle_begin_time) WHERE a.market = 'spot' AND b.market = 'usdt_futures'",
    "SELECT count(*) FROM candles a JOIN candles b USING (symbol, \"date\") WHERE a.\"date\" = '2024-07-02'",
    "SELECT count(*) FROM candles a JOIN candles b ON a.symbol = b.symbol AND a.\"date\" = b.\"date\" + 1 AND b.\"date\" = '2024-07-02'",
    "SELECT count(*), count(b.symbol) FROM candles a LEFT JOIN candles b ON a.candle_begin_time = b.candle_begin_time AND b.symbol = '1F'",
    "SELECT count(*), count(b.symbol) FROM candles a LEFT JOIN candles b ON a.candle_begin_time = b.candle_begin_time AND a.symbol = '1F'",
    "SELECT count(*), count(b.symbol) FROM candles a LEFT JOIN candles b USING (candle_begin_time) WHERE b.symbol = '1F'",
    "SELECT count(*), count(a.symbol) FROM candles a RIGHT JOIN candles b ON a.symbol = b.symbol AND a.\"date\" = '2024-07-01'",
    "SELECT count(*), count(a.symbol), count(b.symbol) FROM (FROM candles WHERE symbol = '1F') a FULL JOIN (FROM candles WHERE symbol = 'ETHUSDT') b USING (candle_begin_time)",
    "SELECT count(*) FROM candles a SEMI JOIN candles b ON a.candle_begin_time = b.candle_begin_time AND b.symbol = '1F'",
    "SELECT count(*) FROM candles a ANTI JOIN candles b ON a.candle_begin_time = b.candle_begin_time AND b.symbol = '1F'",
    "SELECT count(*) FROM candles a ANTI JOIN (FROM candles WHERE market <> 'spot') b USING (symbol)",
    "SELECT symbol, high FROM candles JOIN (VALUES ('1F'), ('ETHUSDT')) v(s) ON symbol = s WHERE \"date\" = '2024-07-03'",
    "SELECT symbol, high FROM candles SEMI JOIN (VALUES ('1F'), ('ETHUSDT')) v(symbol) USING (symbol)",
    "SELECT symbol, n FROM candles RIGHT JOIN (VALUES ('1F', 1), ('NONE', 2)) v(s, n) ON symbol = s AND hour(candle_begin_time) = 0",
    "SELECT count(*) FROM candles c JOIN (SELECT DATE '2024-07-01' + i::INT AS d FROM range(3) r(i)) v ON c.\"date\" = v.d",
    "SELECT count(*) FROM candles c SEMI JOIN (SELECT symbol FROM candles UNION ALL VALUES ('NONE')) b ON c.symbol = b.symbol",
    "SELECT count(*) FROM candles c JOIN (SELECT coalesce(max(symbol), 'NONE') s FROM candles WHERE market = 'spot') b ON c.symbol = b.s",
    "SELECT count(*) FROM (SELECT coalesce(max(symbol), 'NONE') s FROM candles WHERE market = 'spot') b LEFT JOIN candles c ON c.symbol = b.s",
    "SELECT count(*) FROM candles c JOIN (SELECT count(*) n FROM candles WHERE symbol = '1F') b ON c.trade_num - 1000000 > b.n",
    "SELECT count(*) FROM candles CROSS JOIN (VALUES (1), (2)) WHERE symbol = '1F'",
    "SELECT count(*) FROM candles a, candles b WHERE a.symbol = '1F' AND b.symbol = 'ETHUSDT' AND a.high < b.high",
    "SELECT t, symbol, candle_begin_time FROM (VALUES ('1F', TIMESTAMPTZ '2024-07-02 12:00')) v(s, t) ASOF JOIN candles ON s = symbol AND t >= candle_begin_time",
    "SELECT count(*), sum(b.close) FROM candles a ASOF JOIN candles b ON a.symbol = b.symbol AND a.candle_begin_time > b.candle_begin_time AND a.market = b.market AND a.\"interval\" = b.\"interval\" WHERE a.\"date\" = '2024-07-04'",
    "SELECT count(*), count(b.close) FROM (FROM candles WHERE symbol = '1F') a ASOF LEFT JOIN (FROM candles WHERE symbol = 'ETHUSDT' AND \"date\" > '2024-07-03') b ON a.candle_begin_time >= b.candle_begin_time",
    "SELECT count(*), count(b.high) FROM (FROM candles WHERE symbol = '1F' AND \"date\" = '2024-07-01') a ASOF RIGHT JOIN candles b ON a.candle_begin_time >= b.candle_begin_time",
    "SELECT count(*) FROM candles NATURAL JOIN (SELECT symbol, market FROM candles WHERE \"date\" = '2024-07-07')",
    "SELECT count(*) FROM (FROM candles WHERE symbol = 'NONE') a RIGHT JOIN (FROM candles WHERE symbol = '1F') b ON true",
    "SELECT count(*) FROM candles a POSITIONAL JOIN candles b",
    "SELECT c.symbol, y.n FROM candles c, LATERAL (SELECT c.high + 1 AS h) x, LATERAL (SELECT count(*) n FROM candles b WHERE b.high > x.h) y WHERE c.symbol = '1F'",
    "SELECT i, n FROM range(5) r(i), LATERAL (SELECT count(*) n FROM candles c WHERE c.\"date\" = DATE '2024-06-30' + i::INT AND c.symbol = '1F')",
    "SELECT CASE WHEN EXISTS (FROM candles WHERE symbol = '1F') THEN (SELECT count(*) FROM candles WHERE symbol = 'ETHUSDT') ELSE (SELECT count(*) FROM candles WHERE market = 'usdt_futures') END",
    "SELECT count(*) FROM candles WHERE (SELECT count(*) FROM candles WHERE symbol = 'NONE') = 0 AND symbol = '1F'",
    "SELECT * FROM range((SELECT count(*) FROM candles WHERE symbol = '1F')) r(i)",
    "SELECT count(*) FROM candles USING SAMPLE 100%",
    "SELECT count(*) FROM candles TABLESAMPLE system(100%) WHERE symbol = '1F'",
    "SELECT count(*) FROM candles TABLESAMPLE reservoir(1000 ROWS) REPEATABLE (3)",
    "SELECT * FROM candles ORDER BY candle_begin_time, market, symbol, \"interval\" LIMIT (SELECT count(*) // 4 FROM candles WHERE symbol = '1F')",
    "SELECT * FROM (SELECT coalesce(event_time, candle_begin_time) t FROM candles) WHERE t > '2024-07-07'",
    "SELECT * FROM (SELECT *, \"date\" = '2024-07-01' AS x FROM candles) WHERE x",
    "SELECT symbol AS s FROM candles WHERE s = '1F'",
    "SELECT symbol, \"date\" FROM candles QUALIFY \"date\" = max(\"date\") OVER (PARTITION BY symbol)",
    "SELECT symbol, market FROM candles WHERE symbol = '1F' UNION BY NAME SELECT market, \"interval\" FROM candles WHERE symbol = 'ETHUSDT'",
    "SELECT symbol FROM candles EXCEPT ALL SELECT symbol FROM candles WHERE \"date\" > '2024-07-01'",
    "WITH RECURSIVE t(s) AS (SELECT 'spot' UNION SELECT c.symbol FROM candles c JOIN t ON c.market = t.s) SELECT * FROM t",
    "WITH RECURSIVE t(n) USING KEY (n) AS (SELECT 1 UNION SELECT n + 1 FROM t WHERE n < (SELECT count(*) FROM candles WHERE symbol = '1F')) FROM t",
    "SELECT s, h FROM (VALUES ('1F'), ('ETHUSDT'), ('NONE')) v(s), LATERAL (SELECT max(high) AS h FROM candles WHERE symbol = s)",
    "SELECT s, h FROM (VALUES ('1F'), ('NONE')) v(s) LEFT JOIN LATERAL (SELECT high AS h FROM candles WHERE symbol = s ORDER BY high, candle_begin_time LIMIT 2) ON true",
    "SELECT s, (SELECT max(high) FROM candles WHERE symbol = s AND \"date\" = '2024-07-01') FROM (VALUES ('1F'), ('NONE')) v(s)",
    "SELECT (SELECT count(*) FROM candles WHERE symbol = '1F'), (SELECT count(*) FROM candles WHERE \"date\" = '2024-07-01')",
    "SELECT symbol, high FROM candles WHERE symbol = '1F' UNION SELECT symbol, low FROM candles WHERE symbol = 'ETHUSDT'",
    "SELECT symbol FROM candles WHERE market = 'spot' INTERSECT SELECT symbol FROM candles WHERE market = 'usdt_futures'",
    "SELECT symbol FROM candles WHERE market = 'usdt_futures' EXCEPT SELECT symbol FROM candles WHERE market = 'spot'",
    "SELECT symbol FROM candles INTERSECT VALUES ('1F'), ('NONE')",
    "(VALUES ('1F'), ('NONE')) EXCEPT SELECT symbol FROM candles WHERE \"interval\" = '1h'",
    "SELECT * FROM (SELECT symbol, high FROM candles UNION ALL SELECT market, low FROM candles) WHERE symbol = 'spot'",
    "SELECT symbol FROM candles WHERE symbol = '1F' UNION ALL BY NAME SELECT market, symbol FROM candles WHERE \"date\" = '2024-07-01'",
    "PIVOT (SELECT \"date\", symbol, high FROM candles WHERE market = 'spot') ON symbol IN ('1F', 'ETHUSDT') USING max(high) GROUP BY \"date\"",
    "FROM (PIVOT candles ON market IN ('spot', 'usdt_futures') USING count(*) GROUP BY symbol) WHERE symbol = 'BTCUSDT'",
    "FROM (UNPIVOT (SELECT symbol, candle_begin_time, open, close FROM candles WHERE symbol = '1F') ON open, close) WHERE value > 150",
    "SELECT unnest(list(high ORDER BY high)) FROM candles WHERE symbol = '1F'",
    "SELECT symbol, list(DISTINCT \"interval\" ORDER BY \"interval\") FROM candles WHERE \"date\" <= '2024-07-01' GROUP BY symbol",
    "SELECT s.high FROM (SELECT {'high': high, 'symbol': symbol} AS s FROM candles) WHERE s.symbol = '1F'",
    "SELECT * FROM (SELECT symbol AS s, \"date\" AS d, max(high) FROM candles GROUP BY ALL) WHERE s = '1F' AND d > '2024-07-03'",
    "SELECT * FROM (SELECT upper(symbol) AS s, high FROM candles) WHERE s = '1F'",
    "SELECT symbol, high FROM (SELECT DISTINCT symbol, high FROM candles) WHERE symbol = '1F'",
    "SELECT symbol AS \"date\", \"date\" AS symbol FROM candles WHERE \"date\" = '2024-07-01'",
    "SELECT market AS symbol FROM candles WHERE symbol = '1F'",
    "SELECT c.symbol FROM candles AS c(symbol, market) WHERE c.symbol = 'spot'",
    "SELECT count(*) FROM main.candles WHERE symbol = '1F'",
    "SELECT count(*) FROM main.candles m WHERE m.symbol = '1F'",
    "SELECT main.candles.symbol FROM candles WHERE main.candles.\"date\" = '2024-07-01'",
    "SELECT main.candles.symbol FROM candles WHERE candles.symbol = '1F'",
    "WITH candles AS (SELECT * FROM candles WHERE symbol = '1F') SELECT count(*) FROM candles",
    "WITH c AS (FROM main.candles), candles AS (FROM c WHERE market = 'spot') SELECT count(*) FROM candles WHERE symbol = '1F'",
    "SELECT count(*) FROM (WITH candles AS (SELECT 1 AS x) SELECT * FROM candles) a, (FROM candles WHERE symbol = '1F') b",
    "SELECT column_name, \"max\" FROM (SUMMARIZE candles) WHERE column_name IN ('symbol', 'date')",
    "DESCRIBE candles",
    "-- a comment\nSELECT count(*) FROM candles /* another */ WHERE symbol = '1F';",
    "SELECT count(*) FROM candles WHERE symbol = '1F' AND (SELECT count(*) FROM range(100)) = 100",
    "SELECT count(*) FROM candles c, range(3) r(i) WHERE c.\"date\" = DATE '2024-07-01' + i::INT",
    "SELECT i, (SELECT count(*) FROM candles WHERE \"date\" = DATE '2024-06-30' + i::INT) FROM range(4) r(i)",
    "SELECT symbol FROM candles WHERE symbol = '1F' AND now() > candle_begin_time AND current_date > \"date\" AND random() < 2",
    "SELECT symbol, (market = 'spot') AS spot, max(high) FROM candles GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 3",
    "FROM (FROM candles WHERE \"date\" = '2024-07-01' ORDER BY high, symbol, market, \"interval\", candle_begin_time LIMIT 5) WHERE symbol <> 'BTCUSDT'",
]  # fmt: skip


def as_statement(predicate: str) -> str:
    return f"SELECT * FROM candles c WHERE {predicate}"


def params_of(sql: str) -> dict[str, Any]:
    """Return the values of a statement's parameters."""
    return {name: value for name, value in PARAMS.items() if f"${name}" in sql}


def plain_glob(root: Path) -> duckdb.DuckDBPyConnection:
    """Plain DuckDB over a plain glob, with only the partition types set."""
    columns = ", ".join(
        "candle_begin_time::DATE AS date" if name == "date" else f'"{name}"' for name in COLUMNS
    )
    connection = duckdb.connect()
    connection.execute("SET TimeZone='UTC'")
    connection.execute(
        f"CREATE VIEW candles AS SELECT {columns} FROM read_parquet('{root}/**/*.parquet', "
        "hive_partitioning=true, hive_types_autocast=false, "
        "hive_types={'market': 'VARCHAR', 'symbol': 'VARCHAR', 'interval': 'VARCHAR', 'date': 'DATE'})"
    )
    return connection


def plain_copy(root: Path) -> duckdb.DuckDBPyConnection:
    """Return plain DuckDB with the rows of a plain glob in memory, so that statements open no files."""
    connection = plain_glob(root)
    connection.execute("CREATE TABLE copied AS FROM candles")
    connection.execute("CREATE OR REPLACE VIEW candles AS FROM copied")
    return connection


def asked_plainly(plain: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Return plain DuckDB's answer."""
    return plain.sql(sql, params=params_of(sql) or None).to_arrow_table()


def in_any_order(table: pa.Table) -> list[str]:
    return sorted(repr(row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True))


TEXTS = st.sampled_from(
    ["1F", "BTCUSDT", "ETHUSDT", "BTCUSD_PERP", "币USDT", "spot", "usdt_futures", "1h", "1mo", "A", "z"]
)
DATES = st.dates(date(2024, 6, 28), date(2024, 7, 9)).map(str)
TIMES = st.builds("{} {:02}:{:02}".format, DATES, st.integers(0, 23), st.sampled_from([0, 1, 59]))
COMPARED = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])


def comparison(columns: list[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    column = st.sampled_from(columns)
    value = values.map(lambda text: f"'{text}'")
    many = st.lists(value, min_size=1, max_size=25).map(", ".join)
    return st.one_of(
        st.builds("{} {} {}".format, column, COMPARED, value),
        st.builds("{} BETWEEN {} AND {}".format, column, value, value),
        st.builds("{} {} ({})".format, column, st.sampled_from(["IN", "NOT IN"]), many),
        st.builds("{} IS {}NULL".format, column, st.sampled_from(["", "NOT "])),
    )


FILTERS = st.recursive(
    st.one_of(
        comparison(["market", "symbol", '"interval"'], TEXTS),
        comparison(['"date"'], DATES),
        comparison(["candle_begin_time", "candle_end_time"], TIMES),
        st.builds("high {} {}".format, COMPARED, st.integers(100, 400)),
        st.builds("event_time IS {}NULL".format, st.sampled_from(["", "NOT "])),
    ),
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("(NOT {})".format, inner),
    ),
    max_leaves=7,
)


def two_scans(one: str, other: str) -> str:
    """Return a statement with two scans of different filters."""
    return (
        "SELECT a.market, a.symbol, a.high, b.symbol, b.low "
        f"FROM (FROM candles WHERE {one}) a FULL JOIN (FROM candles WHERE {other}) b USING (candle_begin_time)"
    )
