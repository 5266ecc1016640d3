"""`lakewriter gaps`, which shows the missing candles and the reasons."""

import time
from typing import TYPE_CHECKING, NoReturn

import click

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.option_values import GAPS_SHOWN
from lakewriter.cli.printed_table import print_table
from lakewriter.cli.series_check import check_matches
from lakewriter.cli.series_filter import filter_of
from lakewriter.cli.series_options import SeriesOptions
from lakewriter.cli.span import parse_until
from lakewriter.errors import LakewriterError
from lakewriter.gap import UNEXPLAINED
from lakewriter.lake.open import open_to_read
from lakewriter.suggested_commands import backfill_command, subscriptions_command, unsubscribe_command

if TYPE_CHECKING:
    from lakewriter.lake.coverage.absences import AbsentCandles


def run(
    series_options: SeriesOptions,
    until: str | None,
    show_all: bool,
    as_json: bool,
    lake: str | None,
) -> None:
    """Print the gaps, and raise if one has no reason."""
    from lakewriter.lake.coverage.absences import absent_candles
    from lakewriter.lake.coverage.facts import CoverageMoment
    from lakewriter.lake.coverage.tables import absent_table

    span = parse_until(until, time.time())
    store = open_to_read(lake or DEFAULT_LAKE)
    store.keep_presence()
    partition_filter = filter_of(series_options, span.day)
    moment = CoverageMoment(span.until_ms, span.now_ms)
    found = sorted(
        absent_candles(store, partition_filter, moment), key=lambda gap: (gap.start_ms, gap.series)
    )
    check_matches("gaps", store, partition_filter, {gap.series for gap in found})
    shown = found if show_all or as_json else found[-GAPS_SHOWN:]
    if found or as_json:
        print_table(absent_table(shown), as_json=as_json)
    else:
        print("no gaps: every expected candle is present")
    if len(shown) < len(found):
        click.echo(f"lakewriter: {len(found) - len(shown)} older gaps are not shown; --all", err=True)
    open_gaps = [gap for gap in found if not gap.has_reason]
    if open_gaps:
        _raise_unexplained(open_gaps, lake)


def _raise_unexplained(open_gaps: "list[AbsentCandles]", lake: str | None) -> NoReturn:
    """Raise the error for gaps without a reason, with a command as its hint."""
    candles = sum(gap.candles for gap in open_gaps)
    what = f"gaps: {candles} candles in {len(open_gaps)} gaps have no reason"
    never = [gap for gap in open_gaps if gap.never_came]
    ended = [gap for gap in open_gaps if gap.reason == UNEXPLAINED and gap.error and not gap.never_came]
    if never:
        raise LakewriterError(
            f"{what}; {never[0].series}: {never[0].error}", subscriptions_command(never[0].series, lake)
        )
    heals = "lakewriter record heals what the exchange still has"
    if ended:
        first = min(gap.series for gap in ended)
        raise LakewriterError(what, f"{heals}; if it was left on purpose: {unsubscribe_command(first, lake)}")
    silent = [gap for gap in open_gaps if gap.reason == UNEXPLAINED]
    raise LakewriterError(
        what, backfill_command(silent[0].series, silent[0].start_ms, lake) if silent else heals
    )
