"""The shared options that select series. `series_filter` has their meaning."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from lakewriter.cli.completion_values import Complete, complete_interval, complete_market, complete_symbol


class SeriesOptions(NamedTuple):
    """The raw values of the options that select series."""

    markets: tuple[str, ...]
    symbols: tuple[str, ...]
    intervals: tuple[str, ...]
    since: str | None


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
