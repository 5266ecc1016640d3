"""The table macros for candles, which every SQL session has.

    FROM resample('spot', 'BTCUSDT', '1m', '15m', since := '2024-06-30')

Only this module defines returns, volatility and buckets. DuckDB expands a macro
before it plans the statement. So market, symbol, interval and times reach the scan
of `candles` and prune its files.

Rules for all macros:

- `symbol` is one symbol, a list ['BTCUSDT', 'ETHUSDT'], a text 'BTCUSDT,ETHUSDT', or a
  glob such as '*USDT'. Each symbol has its own rows, and returns never mix symbols.
- `since` is inclusive, `until` is exclusive. Both are compared with begin times. They
  are text, DATE or TIMESTAMPTZ. They are UTC unless they name another zone. An age
  such as '7d' counts back from now.
- A bucket is an INTERVAL, or text such as '15m', '1h', '1d', '7d', '1mo' or '1M'.
- Buckets of days or less count from Monday 2000-01-03. Buckets of months count from
  January. So days begin at 00:00 UTC and weeks on Monday.
- `zone` counts days and months by the clock of another zone, such as 'Asia/Shanghai'.
  `shift` lets buckets begin later, so '8h' makes days that begin at 08:00.
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
from lakewriter.query.schema import COLUMNS, FILLED_ROWS_MAX

YEAR_MS = 365 * DAY_MS

# A macro that needs only the newest candles has a predicate that every candle passes.
# The engine pushes the predicate down to the scan, and `pruning` finds it there. If
# the engine loses it, all files are read, and the answer is the same. The time of the
# predicate is random in each process, so no statement contains it by chance.
_MARK_TIME = datetime(9000, 1, 1, tzinfo=UTC) + timedelta(
    days=secrets.randbelow(300_000), milliseconds=secrets.randbelow(86_400_000)
)
NEWEST_MARK = _MARK_TIME.replace(tzinfo=None).isoformat(" ", "milliseconds")

# The predicate that shows the wanted symbols to `pruning`: no symbol is this text,
# followed by the hexadecimal symbols and globs.
SYMBOLS_MARK = f"lakewriter-{secrets.token_hex(8)}:"

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


def _moment(text: str) -> str:
    """Return SQL for the time that a parameter names: a time, or an age that counts back from now."""
    return f"coalesce(try_cast({text}::VARCHAR AS TIMESTAMPTZ), now() - {text}::VARCHAR::INTERVAL)"


_SINCE, _UNTIL = _moment("since"), _moment("until")
_BETWEEN = "since := '1970-01-01', until := '9999-12-31'"
_CLOCK = "zone := 'UTC', shift := '0s'"

# The symbols in upper case, with commas between. A list's text is "[A, B]", and may contain quotes.
_TEXT = "symbol::VARCHAR"
_JOINED = rf"regexp_replace(regexp_replace(upper({_TEXT}), '^\[(.*)\]$', '\1'), '[ '']', '', 'g')"
_SYMBOLS = f"string_split({_JOINED}, ',')"
_IS_GLOB = f"regexp_matches({_TEXT}, '[*?]|.\\[')"

# The engine pushes the first two alternatives down to the scan, and not the third one. So
# `pruning` takes the symbols from the inequality, which every candle passes.
_OF_SYMBOLS = f"""CASE WHEN NOT regexp_matches({_TEXT}, '[*?,[]') THEN c.symbol = upper({_TEXT})
    ELSE c.symbol <> '{SYMBOLS_MARK}' || hex({_JOINED})
        AND CASE WHEN NOT {_IS_GLOB} THEN list_contains({_SYMBOLS}, c.symbol)
            ELSE len(list_filter({_SYMBOLS}, lambda wanted: c.symbol GLOB wanted)) > 0 END END"""

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
_STEP = f"""(CASE WHEN {_SAME} OR {_WHOLE} THEN {_BUCKET}
    ELSE error('bucket: ' || bucket::VARCHAR || ' is not made of whole ' || {_INTERVAL} || ' candles')::INTERVAL END)"""
_YEARLY = f"(CASE WHEN {_INTERVAL} = '1mo' THEN 12.0 ELSE {YEAR_MS}.0 / nullif({_LENGTH_MS}, 0) END)"

# Buckets by the clock of a zone, less a shift. An hour that a clock shows twice is two
# hours, so a bucket up to an hour is counted back from its candle.
_BY_UTC = "(zone = 'UTC' AND shift = '0s')"
_IN_HOUR = f"({_BUCKET} <= INTERVAL 1 HOUR)"


def _bucketed(source: str) -> str:
    """Return SQL after FROM: the rows of a source, with the start of the bucket of each."""
    return f"""(SELECT k.*, CASE WHEN {_SAME} THEN k.candle_begin_time
        WHEN {_BY_UTC} THEN time_bucket(k.step, k.candle_begin_time)
        WHEN {_IN_HOUR} THEN k.candle_begin_time - (k.clock - k.on_clock)
        ELSE (k.on_clock + shift::INTERVAL) AT TIME ZONE zone END AS start
    FROM (SELECT j.*, time_bucket(j.step, j.clock) AS on_clock
        FROM (SELECT c.*, {_STEP} AS step, c.candle_begin_time AT TIME ZONE zone - shift::INTERVAL AS clock
            FROM {source} AS c) AS j) AS k)"""


def _start(start: str) -> str:
    """Return SQL for the start of a bucket; it fails if a candle contains it. Weeks begin on Monday."""
    return f"""CASE WHEN {_SAME} OR {_BY_UTC} THEN {start}
        WHEN {_INTERVAL} = '1mo' AND date_trunc('month', {start}) = {start} THEN {start}
        WHEN (epoch_ms({start}) - {4 * DAY_MS}) % {_LENGTH_MS} = 0 THEN {start}
        ELSE error('bucket: ' || {start}::VARCHAR || ' is within a candle of ' || {_INTERVAL})::TIMESTAMPTZ END"""


_BUCKET_END = f"""CASE WHEN {_SAME} THEN b.last_end
    WHEN {_BY_UTC} OR {_IN_HOUR} THEN b.start + {_BUCKET}
    ELSE (b.on_clock + {_BUCKET} + shift::INTERVAL) AT TIME ZONE zone END"""

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

# The grid of a series with gaps. A candle of 3d may begin on any day.
_GRID_STEP = f"(CASE WHEN {_INTERVAL} = '1mo' THEN INTERVAL 1 MONTH ELSE to_milliseconds({_LENGTH_MS}) END)"
_GRID_FLOOR = f"""(CASE WHEN {_INTERVAL} = '3d' THEN time_bucket({_GRID_STEP}, s.start, coalesce(s.first, '1970-01-01'::TIMESTAMPTZ))
    ELSE time_bucket({_GRID_STEP}, s.start) END)"""
_GRID_FIRST = f"(CASE WHEN {_GRID_FLOOR} < s.start THEN {_GRID_FLOOR} + {_GRID_STEP} ELSE {_GRID_FLOOR} END)"
_GRID_CHECKED = f"""(CASE WHEN (epoch_ms(s.stop) - epoch_ms(s.start)) // coalesce(nullif({_LENGTH_MS}, 0), {DAY_MS})
        * (SELECT count(*) FROM s) > {FILLED_ROWS_MAX}
    THEN error('filled: from since to until there are more than {FILLED_ROWS_MAX} candles')::TIMESTAMPTZ ELSE s.stop END)"""
_GAP_COLUMNS = ", ".join(
    {
        "market": "market AS market",
        "symbol": "coalesce(c.symbol, g.symbol) AS symbol",
        "interval": f'{_INTERVAL} AS "interval"',
        "date": """(coalesce(c.candle_begin_time, g.start) AT TIME ZONE 'UTC')::DATE AS "date\"""",
        "candle_begin_time": "coalesce(c.candle_begin_time, g.start) AS candle_begin_time",
        "candle_end_time": f"coalesce(c.candle_end_time, g.start + {_GRID_STEP}) AS candle_end_time",
    }.get(name, f'c."{name}"')
    for name in COLUMNS
)

# A macro calls only macros before it.
MACROS = {
    macro.name: macro
    for macro in (
        Macro(
            "candles_of",
            f"{_SERIES}, {_BETWEEN}",
            "The candles of one symbol or several, as `candles` has them; in no promised order.",
            "those of candles",
            f"""
SELECT c.* FROM candles AS c
WHERE c.market = market AND c."interval" = {_INTERVAL} AND {_OF_SYMBOLS}
  AND c.candle_begin_time >= {_SINCE} AND c.candle_begin_time < {_UNTIL}
  -- implied by the line above; avoids opening the files of other days
  AND c."date" BETWEEN {_SINCE}::DATE AND {_UNTIL}::DATE""",
        ),
        Macro(
            "filled",
            f"{_SERIES}, since := NULL, until := NULL",
            "The candles of candles_of, and a row of NULL for each missing one, in order.",
            "those of candles; a missing candle has only its symbol and times. From `since` to `until`;"
            " without them, from the first candle of each symbol to its last one",
            f"""
WITH c AS MATERIALIZED (
    FROM candles_of(market, symbol, "interval",
        since := coalesce(since::VARCHAR, '1970-01-01'), until := coalesce(until::VARCHAR, '9999-12-31'))
), s AS (
    SELECT f.symbol, f.first, coalesce({_SINCE}, f.first) AS start, coalesce({_UNTIL}, f.stop) AS stop
    FROM (
        SELECT n.symbol, min(c.candle_begin_time) AS first, max(c.candle_end_time) AS stop
        FROM (SELECT unnest({_SYMBOLS}) AS symbol WHERE NOT {_IS_GLOB} UNION SELECT c.symbol FROM c) AS n(symbol)
        LEFT JOIN c ON c.symbol = n.symbol
        GROUP BY n.symbol
    ) AS f
), g AS (SELECT s.symbol, unnest(range({_GRID_FIRST}, {_GRID_CHECKED}, {_GRID_STEP})) AS start FROM s)
SELECT {_GAP_COLUMNS}
FROM c FULL JOIN g ON g.symbol = c.symbol AND g.start = c.candle_begin_time
ORDER BY ALL""",
        ),
        Macro(
            "latest",
            "since := '1970-01-01'",
            "The newest candle of each series that has one since then.",
            "those of candles",
            f"""
SELECT c.* FROM candles AS c
WHERE c.candle_begin_time >= {_SINCE} AND c."date" >= {_SINCE}::DATE AND c.{_NEWEST_ONLY}
QUALIFY row_number() OVER (PARTITION BY c.market, c.symbol, c."interval" ORDER BY c.candle_begin_time DESC) = 1
ORDER BY c.market, c.symbol, c."interval\"""",
        ),
        Macro(
            "resample",
            f"{_SERIES}, bucket, {_BETWEEN}, {_CLOCK}",
            "Symbols in longer candles, and the number of candles in each.",
            "candles: source candles in it; expected: candles in a whole bucket; complete: whether all are present",
            f"""
SELECT r.symbol, {_start("r.start")} AS candle_begin_time,
    r.stop AS candle_end_time,
    r.* EXCLUDE (symbol, start, stop, candles),
    r.candles,
    CASE WHEN {_SAME} THEN 1 WHEN {_INTERVAL} = '1mo' THEN {_MONTHS}
        ELSE (epoch_ms(r.stop) - epoch_ms(r.start)) // {_LENGTH_MS} END::BIGINT AS expected,
    r.candles = expected AS complete
FROM (
    SELECT b.* EXCLUDE (on_clock, last_end), {_BUCKET_END} AS stop
    FROM (
        SELECT b.symbol, b.start, b.on_clock, {_OHLCV},
            count(*) AS candles, max(b.candle_end_time) AS last_end
        FROM {_bucketed(_CANDLES_OF)} AS b
        GROUP BY b.symbol, b.start, b.on_clock
    ) AS b
) AS r
ORDER BY r.symbol, r.start""",
        ),
        Macro(
            "returns",
            f"{_SERIES}, bucket := NULL, {_BETWEEN}, {_CLOCK}",
            "The change of each symbol's close from candle to candle, or from bucket to bucket.",
            "simple_return: close / previous close - 1; log_return: its natural logarithm, ln(close / previous close)",
            f"""
SELECT r.symbol, r.candle_begin_time, r.candle_end_time, r.close,
    r.close / r.before - 1 AS simple_return,
    ln(r.close / r.before) AS log_return
FROM (
    SELECT c.symbol, c.candle_begin_time, c.candle_end_time, c.close,
        CASE WHEN lag(c.candle_end_time) OVER by_time = c.candle_begin_time AND c.close > 0
            THEN nullif(greatest(lag(c.close) OVER by_time, 0), 0) END AS before
    FROM resample(market, symbol, "interval", coalesce(bucket::VARCHAR, {_INTERVAL}), since := since, until := until,
        zone := zone, shift := shift) AS c
    WINDOW by_time AS (PARTITION BY c.symbol ORDER BY c.candle_begin_time)
) AS r
ORDER BY r.symbol, r.candle_begin_time""",
        ),
        Macro(
            "vwap",
            f"{_SERIES}, bucket := '1d', {_BETWEEN}, {_CLOCK}",
            "The volume-weighted average price of each symbol, bucket by bucket.",
            "vwap: quote per base asset, sum(quote_volume) / sum(volume); on coin_futures, whose volume counts"
            " contracts, (high + low + close) / 3 weighted by them; NULL if nothing was traded",
            f"""
SELECT b.symbol, {_start("b.start")} AS candle_begin_time,
    sum(b.paid) / nullif(sum(b.volume), 0) AS vwap,
    arg_max(b.close, b.candle_begin_time) AS close,
    sum(b.volume) AS volume,
    sum(b.trade_num)::BIGINT AS trade_num,
    count(*) AS candles
FROM (
    SELECT c.*,
        CASE WHEN c.market IN ({_CONTRACT_MARKETS}) THEN (c.high + c.low + c.close) / 3 * c.volume ELSE c.quote_volume END AS paid
    FROM {_bucketed(_CANDLES_OF)} AS c
) AS b
GROUP BY b.symbol, b.start
ORDER BY b.symbol, b.start""",
        ),
        Macro(
            "realised_volatility",
            f"{_SERIES}, bucket := '1d', {_BETWEEN}, {_CLOCK}",
            "The volatility of each symbol in each bucket, from the log returns of its candles.",
            "returns: their number; realised_volatility: sqrt(sum(r²)), of the present returns;"
            " annualised: sqrt(sum(r²) / returns × candles in a year of 365 days)",
            f"""
SELECT v.symbol, {_start("v.start")} AS candle_begin_time, v.returns, sqrt(v.squares) AS realised_volatility,
    sqrt(v.squares / v.returns * {_YEARLY}) AS annualised
FROM (
    SELECT b.symbol, b.start, count(*) AS returns, sum(b.log_return * b.log_return) AS squares
    FROM {_bucketed(_RETURNS)} AS b
    WHERE b.log_return IS NOT NULL
    GROUP BY b.symbol, b.start
) AS v
ORDER BY v.symbol, v.start""",
        ),
        Macro(
            "correlation",
            f"{_SERIES}, other, bucket := '1d', other_market := NULL, {_BETWEEN}, {_CLOCK}",
            "The correlation of each symbol with another one, of the same market or of two.",
            "returns: steps that both symbols have; correlation: Pearson's, of log returns in the bucket, -1 to 1, NULL if one"
            " never moved; beta: covariance over the variance of `other`",
            f"""
SELECT b.symbol, {_start("b.start")} AS candle_begin_time,
    count(*) AS returns,
    CASE WHEN min(b.one) < max(b.one) AND min(b.two) < max(b.two) THEN corr(b.one, b.two) END AS correlation,
    CASE WHEN min(b.two) < max(b.two) THEN regr_slope(b.one, b.two) END AS beta
FROM (
    SELECT c.symbol, c.start, c.log_return AS one, o.log_return AS two
    FROM {_bucketed(_RETURNS)} AS c
    JOIN returns(coalesce(other_market, market), CASE WHEN regexp_matches(other::VARCHAR, '[*?,[]')
        THEN error('other: ' || other::VARCHAR || ' is not one symbol')::VARCHAR ELSE other END,
        "interval", since := since, until := until) AS o
        ON o.candle_begin_time = c.candle_begin_time
    WHERE c.log_return IS NOT NULL AND o.log_return IS NOT NULL
) AS b
GROUP BY b.symbol, b.start
ORDER BY b.symbol, b.start""",
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
