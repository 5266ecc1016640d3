"""The parser of `--until`, and a command with the same selection, for hints."""

import shlex
from typing import NamedTuple

from lakewriter.cli.series_options import SeriesOptions
from lakewriter.partition import day_of
from lakewriter.written_time import NOW, parse_time

# Maximum time from a candle's end until the candle is in the journal, or its gap in the
# ledger. It includes a margin for clocks that differ.
ARRIVAL_S = 60.0


class UntilOption(NamedTuple):
    """The value of `--until`.

    Args:
        day: the last day to check; None is no limit.
        until_ms: the time up to which candles are expected; None is each series' own end.
        now_ms: a time shortly before the present, up to which candles must be present;
            None if `--until` is a time.
    """

    day: str | None
    until_ms: int | None
    now_ms: int | None


def parse_until(until: str | None, now_s: float) -> UntilOption:
    """Parse the value of `--until`.

    Raises:
        UsageError: if the value is not a day, a time, an age or `now`.
    """
    now_ms = int((now_s - ARRIVAL_S) * 1000)
    if until is None:
        return UntilOption(None, None, now_ms)
    if until.strip() == NOW:
        return UntilOption(day_of(now_ms).isoformat(), now_ms, now_ms)
    moment = parse_time(until, "--until", int(now_s * 1000))
    if moment.is_day:
        return UntilOption(moment.at.date().isoformat(), None, now_ms)
    return UntilOption(day_of(moment.ms).isoformat(), moment.ms, None)


def same_selection_command(
    command: str, series_options: SeriesOptions, until: str | None, lake: str | None
) -> str:
    """Return the command line that runs another command with the same options."""
    words = ["lakewriter", command]
    for option, names in zip(("--market", "--symbol", "--interval"), series_options[:3], strict=True):
        for name in names:
            words += [option, name]
    for option, value in (("--since", series_options.since), ("--until", until), ("--lake", lake)):
        if value is not None:
            words += [option, value]
    return shlex.join(words)
