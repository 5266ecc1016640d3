"""`--until`: a day to stop showing at, or a moment up to which candles are expected; and the next command."""

import shlex
from datetime import UTC, datetime
from typing import NamedTuple

from lakewriter.cli.series_options import SeriesOptions
from lakewriter.errors import UsageError
from lakewriter.partition import day_of
from lakewriter.series import Series

# A candle may take so long from its end until it is in the journal, or a gap in
# the ledger; clocks differ a little besides.
ARRIVAL_S = 60.0

UNTIL_HELP = "Only this day and earlier ones; a time, or now, is when every series has to last until."


class UntilOption(NamedTuple):
    """What `--until` means.

    Args:
        day: the last day to look at; None for all.
        until_ms: up to when candles are expected; None for as long as there are some.
        now_ms: the moment before which a candle must have arrived; None if `until_ms` is
            a moment of the past.
    """

    day: str | None
    until_ms: int | None
    now_ms: int | None


def parse_until(until: str | None, now_s: float) -> UntilOption:
    """Return what a user wrote behind `--until`.

    Raises:
        UsageError: if it is no day, time or `now`.
    """
    now_ms = int((now_s - ARRIVAL_S) * 1000)
    if until is None:
        return UntilOption(None, None, now_ms)
    if until == "now":
        return UntilOption(day_of(now_ms).isoformat(), now_ms, now_ms)
    try:
        moment = datetime.fromisoformat(until)
        if len(until) <= len("2024-06-30"):
            return UntilOption(moment.date().isoformat(), None, now_ms)
        moment_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--until: {until!r} is no day or time", "--until 2024-06-30, 2024-06-30T12:00:00Z, or now"
        ) from None
    return UntilOption(day_of(moment_ms).isoformat(), moment_ms, None)


def same_selection_command(
    command: str, series_options: SeriesOptions, until: str | None, lake: str | None
) -> str:
    """Return the line that runs another command on what was chosen for this one."""
    words = ["lakewriter", command]
    for option, names in zip(("--market", "--symbol", "--interval"), series_options[:3], strict=True):
        for name in names:
            words += [option, name]
    for option, value in (("--since", series_options.since), ("--until", until), ("--lake", lake)):
        if value is not None:
            words += [option, value]
    return shlex.join(words)


def subscriptions_command(series: Series, lake: str | None) -> str:
    """Return the line that shows which recorders subscribe to a series' symbol."""
    # No symbol has a character that a shell would expand.
    query = f"lakewriter query \"FROM subscriptions WHERE symbol = '{series.symbol}'\""
    return query if lake is None else f"{query} --lake {shlex.quote(lake)}"


def unsubscribe_command(series: Series, lake: str | None) -> str:
    """Return the line that says that a series was left on purpose."""
    return _line("unsubscribe", ":".join(series), lake)


def backfill_command(series: Series, since_ms: int, lake: str | None) -> str:
    """Return the line that fetches what a series lacks since a moment."""
    return _line("backfill", ":".join(series), lake, "--since", day_of(since_ms).isoformat())


def _line(command: str, subscription: str, lake: str | None, *options: str) -> str:
    given = () if lake is None else ("--lake", lake)
    return shlex.join(["lakewriter", command, subscription, *options, *given])
