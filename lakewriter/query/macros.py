"""The table macros for candles, which every SQL session has.

    FROM resample('spot', 'BTCUSDT', '1m', '15m', since := '2024-06-30')

Only this module defines returns, volatility and buckets. DuckDB expands a macro
before it plans the statement. So market, symbol, interval and times reach the scan
of `candles` and prune its files.

Rules for all macros:

- `since` is inclusive, `until` is exclusive. Both are compared with begin times. They
  are text, DATE or TIMESTAMPTZ. They are UTC unless they name another zone.
- A bucket is an INTERVAL, or text such as '15m', '1h', '1d', '7d', '1mo' or '1M'.
- Buckets of days or less count from Monday 2000-01-03. Buckets of months count from
  January. So days begin at 00:00 UTC and weeks on Monday.
- A bucket has to consist of whole candles, so '90s' is an error for '1m'.
- A return compares a close with the previous close. If the previous candle is
  missing, the return is NULL, so no return spans two steps.
- A year has 365 days, since the exchange trades every day.
"""

# ruff: noqa: S608 - made of our own text alone

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import duckdb

from lakewriter.interval import DAY_MS, INTERVALS
from lakewriter.market import MARKETS
from lakewriter.query.engine import Engine
from lakewriter.query.schema import COLUMNS

YEAR_MS = 365 * DAY_MS

# A macro that needs only the newest candles has a predicate that every candle passes.
# The engine pushes the predicate down to the scan, and `pruning` finds it there. If
# the engine loses it, all files are read, and the answer is the same. The time of the
# predicate is random in each process, so no statement contains it by chance.
_MARK_TIME = datetime(9000, 1, 1, tzinfo=UTC) + timedelta(
    days=secrets.randbelow(300_000), milliseconds=secrets.randbelow(86_400_000)
)
NEWEST_MARK = _MARK_TIME.replace(tzinfo=None).isoformat(" ", "milliseconds")

# Only scans that filter by series and by a first time may have this predicate.
_NEWEST_ONLY = f"candle_begin_time < TIMESTAMPTZ '{NEWEST_MARK}+00'"


class Macro(NamedTuple):
    """A table function for FROM.

    Args:
        name: the macro's name, in lower case.
        parameters: the parameters in the syntax of CREATE MACRO. A parameter with `:=`
            is optional.
        what: one sentence about the macro's rows.
        columns: the meaning and unit of the columns that `candles` does not have.
        sql: the definition. A parameter hides a column with the same name, unless the
            SQL names the column's table.
    """

    name: str
    parameters: str
    what: str
    columns: str
    sql: str

    @property
    def call(self) -> str:
        """A call with the required parameters."""
        needed = [name for name in self.parameters.replace('"', "").split(", ") if ":=" not in name]
        return f"{self.name}({', '.join(needed)})"

    @property
    def signature(self) -> str:
        """A call with all parameters."""
        return f"{self.name}({self.parameters.replace(chr(34), '')})"


_SERIES = 'market, symbol, "interval"'
_BETWEEN = "since := '1970-01-01', until := '9999-12-31'"

# `1M` is a month here and on the command line, but a minute for the engine.
_INTERVAL = """(CASE "interval" WHEN '1M' THEN '1mo' ELSE "interval" END)"""
_BUCKET = r"regexp_replace(bucket::VARCHAR, '^(\d+)(mo|M)$', '\1 months')::INTERVAL"
_LENGTHS_MS = ", ".join(f"'{each.name}': {each.length_ms}" for each in INTERVALS.values())
_LENGTH_MS = f"(MAP {{{_LENGTHS_MS}}})[{_INTERVAL}]"
_MONTHS = f"(12 * date_part('year', {_BUCKET}) + date_part('month', {_BUCKET}))"

# No bucket consists of 3d candles, because the exchange chooses the day on which they begin.
_WHOLE = f"""(CASE
    WHEN {_INTERVAL} = '3d' THEN false
    WHEN {_INTERVAL} = '1mo' THEN {_MONTHS} > 0
    WHEN {_MONTHS} > 0 THEN {_LENGTH_MS} <= {DAY_MS}
    ELSE epoch_ms({_BUCKET}) % {_LENGTH_MS} = 0 END)"""
_SAME = f"regexp_replace(bucket::VARCHAR, '^(\\d+)M$', '\\1mo') = {_INTERVAL}"
_STEP = f"""(CASE WHEN {_WHOLE} THEN {_BUCKET}
    ELSE error('bucket: ' || bucket::VARCHAR || ' is not made of whole ' || {_INTERVAL} || ' candles')::INTERVAL END)"""
_BUCKET_OF = f"CASE WHEN {_SAME} THEN c.candle_begin_time ELSE time_bucket({_STEP}, c.candle_begin_time) END"
_YEARLY = f"(CASE WHEN {_INTERVAL} = '1mo' THEN 12.0 ELSE {YEAR_MS}.0 / nullif({_LENGTH_MS}, 0) END)"

# In these markets volume counts contracts, so quote volume / volume is no price.
_CONTRACT_MARKETS = ", ".join(f"'{name}'" for name, market in MARKETS.items() if market.volume_in_contracts)

_CANDLES_OF = 'candles_of(market, symbol, "interval", since := since, until := until)'
_RETURNS = 'returns(market, symbol, "interval", since := since, until := until)'

_OHLCV = """
    arg_min(b.open, b.candle_begin_time) AS open,
    max(b.high) AS high,
    min(b.low) AS low,
    arg_max(b.close, b.candle_begin_time) AS close,
    sum(b.volume) AS volume,
    sum(b.quote_volume) AS quote_volume,
    sum(b.trade_num)::BIGINT AS trade_num,
    sum(b.taker_buy_base_asset_volume) AS taker_buy_base_asset_volume,
    sum(b.taker_buy_quote_asset_volume) AS taker_buy_quote_asset_volume"""

# A macro calls only macros before it.
MACROS = {
    macro.name: macro
    for macro in (
        Macro(
            "candles_of",
            f"{_SERIES}, {_BETWEEN}",
            "The candles of one series, as `candles` has them; in no promised order.",
            "those of candles",
            f"""
SELECT c.* FROM candles AS c
WHERE c.market = market AND c.symbol = upper(symbol) AND c."interval" = {_INTERVAL}
  AND c.candle_begin_time >= since::TIMESTAMPTZ AND c.candle_begin_time < until::TIMESTAMPTZ
  -- implied by the line above; avoids opening the files of other days
  AND c."date" BETWEEN since::TIMESTAMPTZ::DATE AND until::TIMESTAMPTZ::DATE""",
        ),
        Macro(
            "latest",
            "since := '1970-01-01'",
            "The newest candle of each series that has one since then.",
            "those of candles",
            f"""
SELECT c.* FROM candles AS c
WHERE c.candle_begin_time >= since::TIMESTAMPTZ AND c."date" >= since::TIMESTAMPTZ::DATE AND c.{_NEWEST_ONLY}
QUALIFY row_number() OVER (PARTITION BY c.market, c.symbol, c."interval" ORDER BY c.candle_begin_time DESC) = 1
ORDER BY c.market, c.symbol, c."interval\"""",
        ),
        Macro(
            "resample",
            f"{_SERIES}, bucket, {_BETWEEN}",
            "A series in longer candles, and the number of candles in each.",
            "candles: source candles in it; expected: candles in a whole bucket; complete: whether all are present",
            f"""
SELECT r.start AS candle_begin_time,
    CASE WHEN {_SAME} THEN r.last_end ELSE r.start + {_BUCKET} END AS candle_end_time,
    r.* EXCLUDE (start, last_end, made_of),
    r.made_of AS candles,
    CASE WHEN {_SAME} THEN 1 WHEN {_INTERVAL} = '1mo' THEN {_MONTHS}
        ELSE (epoch_ms(r.start + {_BUCKET}) - epoch_ms(r.start)) // {_LENGTH_MS} END::BIGINT AS expected,
    r.made_of = expected AS complete
FROM (
    SELECT b.start, {_OHLCV},
        count(*) AS made_of, max(b.candle_end_time) AS last_end
    FROM (SELECT {_BUCKET_OF} AS start, c.* FROM {_CANDLES_OF} AS c) AS b
    GROUP BY b.start
) AS r
ORDER BY r.start""",
        ),
        Macro(
            "returns",
            f"{_SERIES}, bucket := NULL, {_BETWEEN}",
            "The change of a series' close from candle to candle, or from bucket to bucket.",
            "simple_return: close / previous close - 1; log_return: its natural logarithm, ln(close / previous close)",
            f"""
SELECT r.candle_begin_time, r.candle_end_time, r.close,
    r.close / r.before - 1 AS simple_return,
    ln(r.close / r.before) AS log_return
FROM (
    SELECT c.candle_begin_time, c.candle_end_time, c.close,
        CASE WHEN lag(c.candle_end_time) OVER by_time = c.candle_begin_time AND c.close > 0
            THEN nullif(greatest(lag(c.close) OVER by_time, 0), 0) END AS before
    FROM resample(market, symbol, "interval", coalesce(bucket::VARCHAR, {_INTERVAL}), since := since, until := until) AS c
    WINDOW by_time AS (ORDER BY c.candle_begin_time)
) AS r
ORDER BY r.candle_begin_time""",
        ),
        Macro(
            "vwap",
            f"{_SERIES}, bucket := '1d', {_BETWEEN}",
            "The volume-weighted average price of a series, bucket by bucket.",
            "vwap: quote per base asset, sum(quote_volume) / sum(volume); on coin_futures, whose volume counts"
            " contracts, (high + low + close) / 3 weighted by them; NULL if nothing was traded",
            f"""
SELECT b.start AS candle_begin_time,
    sum(b.paid) / nullif(sum(b.volume), 0) AS vwap,
    arg_max(b.close, b.begin) AS close,
    sum(b.volume) AS volume,
    sum(b.trade_num)::BIGINT AS trade_num,
    count(*) AS candles
FROM (
    SELECT {_BUCKET_OF} AS start, c.candle_begin_time AS begin, c.close, c.volume, c.trade_num,
        CASE WHEN c.market IN ({_CONTRACT_MARKETS}) THEN (c.high + c.low + c.close) / 3 * c.volume ELSE c.quote_volume END AS paid
    FROM {_CANDLES_OF} AS c
) AS b
GROUP BY b.start
ORDER BY b.start""",
        ),
        Macro(
            "realised_volatility",
            f"{_SERIES}, bucket := '1d', {_BETWEEN}",
            "The volatility of a series in each bucket, from the log returns of its candles.",
            "returns: their number; realised_volatility: sqrt(sum(r²)), of the present returns;"
            " annualised: sqrt(sum(r²) / returns × candles in a year of 365 days)",
            f"""
SELECT v.start AS candle_begin_time, v.returns, sqrt(v.squares) AS realised_volatility,
    sqrt(v.squares / v.returns * {_YEARLY}) AS annualised
FROM (
    SELECT b.start, count(*) AS returns, sum(b.log_return * b.log_return) AS squares
    FROM (SELECT {_BUCKET_OF} AS start, c.log_return FROM {_RETURNS} AS c WHERE c.log_return IS NOT NULL) AS b
    GROUP BY b.start
) AS v
ORDER BY v.start""",
        ),
        Macro(
            "correlation",
            f"{_SERIES}, other, bucket := '1d', other_market := NULL, {_BETWEEN}",
            "The correlation of two symbols of a market, or of two markets.",
            "returns: steps that both symbols have; correlation: Pearson's, of log returns in the bucket, -1 to 1, NULL if one"
            " never moved; beta: covariance over the variance of `other`",
            f"""
SELECT b.start AS candle_begin_time,
    count(*) AS returns,
    CASE WHEN min(b.one) < max(b.one) AND min(b.two) < max(b.two) THEN corr(b.one, b.two) END AS correlation,
    CASE WHEN min(b.two) < max(b.two) THEN regr_slope(b.one, b.two) END AS beta
FROM (
    SELECT {_BUCKET_OF} AS start, c.log_return AS one, o.log_return AS two
    FROM {_RETURNS} AS c
    JOIN returns(coalesce(other_market, market), other, "interval", since := since, until := until) AS o
        ON o.candle_begin_time = c.candle_begin_time
    WHERE c.log_return IS NOT NULL AND o.log_return IS NOT NULL
) AS b
GROUP BY b.start
ORDER BY b.start""",
        ),
    )
}

# DuckDB binds macros when it creates them, and each statement creates its own `candles`
# later. So an empty table stands for `candles` meanwhile.
_STAND_IN = "CREATE TABLE memory.main.candles ({})".format(
    ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
)


def create_macros(engine: Engine, connection: duckdb.DuckDBPyConnection, names: Iterable[str]) -> None:
    """Create the macros that the engine lacks, and the macros that they call.

    Args:
        connection: a cursor of the engine, without a table `candles`.
        names: the macros' names, all of them in MACROS.
    """
    if engine.macros.issuperset(names):
        return
    with engine.making_macros:
        wanted = set(names)
        made: list[str] = []
        added = set()
        for macro in reversed(MACROS.values()):
            if macro.name in wanted:
                wanted |= {name for name in MACROS if f"{name}(" in macro.sql}
                if macro.name in engine.macros:
                    continue
                added.add(macro.name)
                what = f"{macro.what} {macro.columns}".replace("'", "''")
                made += [
                    f"COMMENT ON MACRO TABLE {macro.name} IS '{what}'",
                    f"CREATE MACRO {macro.name}({macro.parameters}) AS TABLE {macro.sql}",
                ]
        if made:
            steps = ["BEGIN", _STAND_IN, *reversed(made), "DROP TABLE memory.main.candles", "COMMIT"]
            connection.execute("; ".join(steps))
            engine.macros |= added
