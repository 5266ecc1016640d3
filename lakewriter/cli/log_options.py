"""The options of a recorder's log. `recorder_log` has their meaning."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from lakewriter.cli.option_values import LOG_FORMATS


class LogOptions(NamedTuple):
    """The raw values of the options of the log. None leaves the choice to the config.

    Args:
        log_format: "text" or "json".
        log_candles: whether each recorded candle has a line.
        quiet: whether only warnings and errors are logged.
    """

    log_format: str | None
    log_candles: bool | None
    quiet: bool


def with_log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the log. The command takes them as the keyword argument `log_options`."""

    @functools.wraps(function)
    def with_choice(log_format: str | None, log_candles: bool | None, quiet: bool, **others: Any) -> Any:
        return function(log_options=LogOptions(log_format, log_candles, quiet), **others)

    for option in (
        click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors."),
        click.option(
            "--log-candles/--no-log-candles",
            default=None,
            help="Also log a line for each recorded candle.  [default: no]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            help="Lines of text, or JSON objects.  [default: text]",
        ),
    ):
        option(with_choice)
    return with_choice
