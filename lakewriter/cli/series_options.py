"""The shared options that select series, and the output of rows."""

import functools
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

import click

from lakewriter.cli.completion_values import Complete, complete_interval, complete_market, complete_symbol
from lakewriter.cli.moment import parse_day
from lakewriter.cli.terminal import ignore_broken_pipe, standard_output, terminal_width
from lakewriter.errors import UsageError
from lakewriter.interval import parse_interval
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.market import parse_market, parse_symbol
from lakewriter.partition import day_start_ms


class SeriesOptions(NamedTuple):
    """The raw values of the options that select series."""

    markets: tuple[str, ...]
    symbols: tuple[str, ...]
    intervals: tuple[str, ...]
    since: str | None

    def partition_filter(self, until: str | None) -> PartitionFilter:
        """Return the filter of these options.

        Args:
            until: the last day, inclusive; None is no limit.

        Raises:
            UsageError: if an option is invalid.
        """
        partition_filter = PartitionFilter(
            markets=tuple(parse_market(name).name for name in self.markets),
            symbols=tuple(parse_symbol(symbol) for symbol in self.symbols),
            intervals=tuple(parse_interval(name).name for name in self.intervals),
            since=parse_day(self.since, "--since"),
            until=parse_day(until, "--until"),
        )
        if (
            partition_filter.since
            and partition_filter.until
            and partition_filter.until < partition_filter.since
        ):
            raise UsageError(f"--until: {partition_filter.until} is before --since {partition_filter.since}")
        return partition_filter


def with_series_and_since(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select series, and `--since`.

    The command takes them as the keyword argument `series_options`.
    """

    @functools.wraps(function)
    def with_since(series_options: SeriesOptions, since: str | None, **others: Any) -> Any:
        return function(series_options=series_options._replace(since=since), **others)

    click.option("--since", metavar="DATE|AGE", help="Only this day and later ones: 2024-06-30, or 7d.")(
        with_since
    )
    return with_series(with_since)


def with_series(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select series.

    The command takes them as the keyword argument `series_options`.
    """

    @functools.wraps(function)
    def with_choice(
        markets: tuple[str, ...], symbols: tuple[str, ...], intervals: tuple[str, ...], **others: Any
    ) -> Any:
        return function(series_options=SeriesOptions(markets, symbols, intervals, None), **others)

    for option in (
        _repeatable("interval", complete_interval),
        _repeatable("symbol", complete_symbol),
        _repeatable("market", complete_market),
    ):
        option(with_choice)
    return with_choice


def _repeatable(name: str, complete: Complete) -> Callable[..., Any]:
    return click.option(
        f"--{name}",
        f"{name}s",
        multiple=True,
        metavar=name.upper(),
        shell_complete=complete,
        help=f"Only this {name}; repeatable.",
    )


def begin_ms(day: date | None) -> int | None:
    """Return the start of a UTC day in milliseconds since the epoch; None for None."""
    return None if day is None else day_start_ms(day)


def print_table(table: Any, *, as_json: bool) -> None:
    """Print rows like `lakewriter query`, as an aligned table or one JSON object per line.

    On a terminal the table fits its width.
    """
    from lakewriter.query.execution import RowStream
    from lakewriter.query.output.text import DisplayLimits
    from lakewriter.query.output.writers import write_answer

    width = None if as_json else terminal_width()
    if width is not None:
        from lakewriter.cli.table_fit import fitted_lines

        with ignore_broken_pipe(), standard_output() as out:
            for line in fitted_lines(table, width):
                out.write(line.encode() + b"\n")
        return
    answer = RowStream(table.schema, iter(table.to_batches()))
    with ignore_broken_pipe(), standard_output() as out:
        write_answer("ndjson" if as_json else "table", answer, out, DisplayLimits())
