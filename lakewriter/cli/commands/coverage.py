"""lakewriter coverage: is every candle there, or does something say why not?"""

import time
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, NamedTuple

import click
import msgspec

from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.series_check import check_matches, check_something_there
from lakewriter.cli.series_options import Choice, filters, print_table
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.open import open_to_read
from lakewriter.partition import day_of

# A candle may take so long from its end until it is in the journal, or a gap in
# the ledger; clocks differ a little besides.
ARRIVAL_S = 60.0


class Totals(msgspec.Struct):
    """What `--json` prints last, and the sum of what is above it.

    Args:
        series: how many series were looked at.
        without_reason: missing candles that nobody heals, and that the exchange may have.
    """

    series: int = 0
    expected: int = 0
    present: int = 0
    missing: int = 0
    explained: int = 0
    without_reason: int = 0


class _Span(NamedTuple):
    until: str | None  # a day, for the filter
    until_ms: int | None


@click.command(name="coverage", short_help="Check that every candle is there or explained.")
@filters
@click.option(
    "--until",
    metavar="DATE|TIME|now",
    help="Only this day and earlier ones; a time, or now, is when every series has to last until.",
)
@click.option("--by-day", is_flag=True, help="One row a series and day.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row, and one of totals.")
@lake_option
def command(
    choice: Choice,
    until: str | None,
    by_day: bool,
    as_json: bool,
    lake: str | None,
) -> None:
    """Check that every candle is there, or that a ledger says why not.

    A series spans from its first candle or gap to its last one. With --until
    now it spans to the last candle that closed a minute ago or earlier, so that
    cron notices a recorder that no longer runs.

    Exit 0 if nothing is missing without a reason, else 1; that a candle is
    unhealable is explained, but no reason. Exit 1, too, for an empty lake into
    which nobody records, and 2 if the lake has nothing of what is chosen. With --json the last line is an
    object whose only key is "totals".

    \b
    lakewriter coverage
    lakewriter coverage --until now --lake /srv/candles
    lakewriter coverage --symbol BTCUSDT --since 2024-06-01 --by-day
    lakewriter coverage --json
    """
    from lakewriter.lake.coverage import coverage

    span = _span(until, time.time())
    wanted = choice.until(span.until)
    store = open_to_read(lake or DEFAULT_LAKE)
    days = list(coverage(store, wanted, span.until_ms))
    check_matches("coverage", store, wanted, {day.series for day in days})
    if by_day:
        rows: list[tuple[object, ...]] = [
            (*day.series, *day[1:6], _percent(day.expected, day.missing)) for day in days
        ]
    else:
        rows = [_summed(series, list(of_one)) for series, of_one in groupby(days, key=lambda day: day.series)]
    if rows or as_json:
        print_table(_table(rows, by_day=by_day), as_json=as_json)
    else:
        print("no candles yet")
    totals = Totals(
        series=len({day.series for day in days}),
        expected=sum(day.expected for day in days),
        present=sum(day.present for day in days),
        missing=sum(day.missing for day in days),
        explained=sum(day.explained for day in days),
        without_reason=sum(day.without_reason for day in days),
    )
    if as_json:
        print(msgspec.json.encode({"totals": totals}).decode())
    if not days:
        check_something_there("coverage", store, wanted)
    if totals.without_reason:
        bad = len({day.series for day in days if day.without_reason})
        raise LakewriterError(
            f"coverage: {totals.without_reason:,} candles of {bad:,} series are missing without a reason",
            "lakewriter gaps",
        )


def _span(until: str | None, now_s: float) -> _Span:
    """Return what --until means: a day to stop showing at, or a moment to last until."""
    if until is None:
        return _Span(None, None)
    if until == "now":
        now_ms = int((now_s - ARRIVAL_S) * 1000)
        return _Span(day_of(now_ms).isoformat(), now_ms)
    try:
        moment = datetime.fromisoformat(until)
        if len(until) <= len("2024-06-30"):
            return _Span(moment.date().isoformat(), None)
        moment_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--until: {until!r} is no day or time", "--until 2024-06-30, 2024-06-30T12:00:00Z, or now"
        ) from None
    return _Span(day_of(moment_ms).isoformat(), moment_ms)


def _summed(series: Any, days: list[Any]) -> tuple[object, ...]:
    expected, present, missing, explained = (
        sum(getattr(day, name) for day in days) for name in ("expected", "present", "missing", "explained")
    )
    first: date = days[0].date
    last: date = days[-1].date
    return (*series, first, last, expected, present, missing, explained, _percent(expected, missing))


def _percent(expected: int, missing: int) -> float:
    """Return how much is there, never rounded up to 100."""
    return int((expected - missing) / expected * 100_000) / 1000 if expected else 100.0


def _table(rows: list[tuple[object, ...]], *, by_day: bool) -> Any:
    import pyarrow as pa

    days = [("date", pa.date32())] if by_day else [("first", pa.date32()), ("last", pa.date32())]
    names = ("expected", "present", "missing", "explained")
    schema = pa.schema(
        [(name, pa.string()) for name in ("market", "symbol", "interval")]
        + days
        + [(name, pa.int64()) for name in names]
        + [("percent", pa.float64())]
    )
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
