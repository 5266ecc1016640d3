"""`lakewriter coverage`, which checks that every candle is present or explained."""

import time
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.picture_file import Picture, picture_of
from lakewriter.cli.picture_options import PictureOptions
from lakewriter.cli.printed_table import print_table
from lakewriter.cli.runs.coverage_heatmap import check_picture
from lakewriter.cli.series_check import check_matches, check_not_empty
from lakewriter.cli.series_filter import filter_of
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.cli.span import parse_until, same_selection_command
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.open import open_to_read
from lakewriter.suggested_commands import subscriptions_command

if TYPE_CHECKING:
    from lakewriter.lake.coverage.days import SeriesCoverage


class CoverageTotals(msgspec.Struct):
    """The sums of all rows, which are the last object of `--json`.

    Args:
        series: the number of series.
        without_reason: the number of missing candles that the exchange may have, and that
            no recorder heals.
        never_came: the number of subscribed series without a first candle.
    """

    series: int = 0
    expected: int = 0
    present: int = 0
    missing: int = 0
    explained: int = 0
    without_reason: int = 0
    never_came: int = 0


def run(
    series_options: SeriesOptions,
    until: str | None,
    by_day: bool,
    as_json: bool,
    heatmap: bool,
    show_all: bool,
    picture_options: PictureOptions,
    lake: str | None,
) -> None:
    """Print the coverage, and raise if candles are missing without a reason."""
    from lakewriter.lake.coverage.days import series_coverage
    from lakewriter.lake.coverage.facts import CoverageMoment

    picture = picture_of(picture_options)
    heatmap = heatmap or picture.path is not None
    _check_options(
        picture, heatmap=heatmap, others={"--by-day": by_day, "--json": as_json}, show_all=show_all
    )
    span = parse_until(until, time.time())
    partition_filter = filter_of(series_options, span.day)
    store = open_to_read(lake or DEFAULT_LAKE)
    store.keep_presence()
    moment = CoverageMoment(span.until_ms, span.now_ms)
    found = list(series_coverage(store, partition_filter, moment, whole=True))
    check_matches("coverage", store, partition_filter, {coverage.series for coverage in found})
    if found and heatmap:
        from lakewriter.cli.runs.coverage_heatmap import show_heatmap
        from lakewriter.lake.coverage.absences import series_absences

        drawn = [
            each for each in series_absences(store, partition_filter, moment) if each.start_ms < each.stop_ms
        ]
        if drawn:
            show_heatmap(store, drawn, picture, show_all=show_all)
    elif found or as_json:
        print_table(_table(found, by_day=by_day, as_json=as_json), as_json=as_json)
    else:
        print("no candles yet")
    totals = _totals(found)
    if as_json:
        print(msgspec.json.encode({"totals": totals}).decode())
    if not found:
        # A time in `--until` does not select days.
        chosen = filter_of(series_options, span.day if span.until_ms is None else None)
        check_not_empty("coverage", store, chosen)
    if totals.without_reason:
        _raise_missing(found, totals, same_selection_command("gaps", series_options, until, lake), lake)


def _check_options(picture: Picture, *, heatmap: bool, others: Mapping[str, bool], show_all: bool) -> None:
    """Raise UsageError for options that do not belong together.

    Args:
        others: the options of tables, each with whether it is given.
    """
    check_picture(picture)
    table = next((option for option, is_given in others.items() if is_given), "")
    if heatmap and table:
        raise UsageError(f"{table}: a heat map is no table", "lakewriter coverage --heatmap")
    if show_all and not heatmap:
        raise UsageError("--all: only a heat map leaves out series", "lakewriter coverage --heatmap --all")


def _totals(found: "list[SeriesCoverage]") -> CoverageTotals:
    days = [day for coverage in found for day in coverage.days]
    return CoverageTotals(
        series=len(found),
        expected=sum(day.expected for day in days),
        present=sum(day.present for day in days),
        missing=sum(day.missing for day in days),
        explained=sum(day.explained for day in days),
        without_reason=sum(day.without_reason for day in days),
        never_came=sum(bool(coverage.never_came) for coverage in found),
    )


def _raise_missing(
    found: "list[SeriesCoverage]", totals: CoverageTotals, next_command: str, lake: str | None
) -> NoReturn:
    """Raise the error for candles that are missing without a reason, with a command as its hint."""
    bad = [coverage for coverage in found if any(day.without_reason for day in coverage.days)]
    never = [coverage for coverage in bad if coverage.never_came]
    what = f"coverage: {totals.without_reason:,} candles of {len(bad):,} series are missing without a reason"
    if not never:
        raise LakewriterError(what, next_command)
    others = f" (and {len(never) - 1:,} more series)" if len(never) > 1 else ""
    raise LakewriterError(
        f"{what}; {never[0].series}: {never[0].never_came}{others}",
        subscriptions_command(never[0].series, lake) if len(never) == len(bad) == 1 else next_command,
    )


def _summed(series: Any, days: list[Any]) -> tuple[object, ...]:
    expected, present, missing, explained = (
        sum(getattr(day, name) for day in days) for name in ("expected", "present", "missing", "explained")
    )
    first: date = days[0].date
    last: date = days[-1].date
    return (*series, first, last, expected, present, missing, explained, _percent(expected, missing))


def _percent(expected: int, missing: int) -> float:
    """Return the percentage of present candles, rounded down to 0.001."""
    return int((expected - missing) / expected * 100_000) / 1000 if expected else 100.0


def _table(found: "list[SeriesCoverage]", *, by_day: bool, as_json: bool) -> Any:
    """Return a table with one row for each series.

    Args:
        by_day: whether the table has one row for each series and day.
        as_json: whether to keep `left_at` if no series was left on purpose.
    """
    import pyarrow as pa

    rows: list[tuple[object, ...]] = []
    for coverage in found:
        of_one: list[tuple[object, ...]]
        if by_day:
            of_one = [(*day.series, *day[1:6], _percent(day.expected, day.missing)) for day in coverage.days]
        else:
            of_one = [_summed(coverage.series, coverage.days)]
        rows += [(*row, coverage.left_ms) for row in of_one]
    days = [("date", pa.date32())] if by_day else [("first", pa.date32()), ("last", pa.date32())]
    names = ("expected", "present", "missing", "explained")
    schema = pa.schema(
        [(name, pa.string()) for name in ("market", "symbol", "interval")]
        + days
        + [(name, pa.int64()) for name in names]
        + [("percent", pa.float64()), ("left_at", pa.timestamp("ms", tz="UTC"))]
    )
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    table = pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
    return (
        table if as_json or any(coverage.left_ms for coverage in found) else table.drop_columns(["left_at"])
    )
