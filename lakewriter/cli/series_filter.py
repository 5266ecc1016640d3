"""The filter of the options that select series."""

from datetime import date

from lakewriter.cli.moment import parse_day
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.market import parse_market, parse_symbol
from lakewriter.partition import day_start_ms


def filter_of(series_options: SeriesOptions, until: str | None) -> PartitionFilter:
    """Return the filter of the options that select series.

    Args:
        until: the last day, inclusive; None is no limit.

    Raises:
        UsageError: if an option is invalid.
    """
    wanted = PartitionFilter(
        markets=tuple(parse_market(name).name for name in series_options.markets),
        symbols=tuple(parse_symbol(symbol) for symbol in series_options.symbols),
        intervals=tuple(parse_interval(name).name for name in series_options.intervals),
        since=parse_day(series_options.since, "--since"),
        until=parse_day(until, "--until"),
    )
    if wanted.since and wanted.until and wanted.until < wanted.since:
        raise UsageError(f"--until: {wanted.until} is before --since {wanted.since}")
    return wanted


def begin_ms(day: date | None) -> int | None:
    """Return the start of a UTC day in milliseconds since the epoch; None for None."""
    return None if day is None else day_start_ms(day)
