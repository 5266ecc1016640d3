"""lakewriter gaps: which candles are absent, and why."""

import click

from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.series_check import check_matches
from lakewriter.cli.series_options import Choice, filters, print_table
from lakewriter.errors import LakewriterError
from lakewriter.lake.open import open_to_read

# More rows than a person reads; --all prints the rest.
ROWS_SHOWN = 40


@click.command(name="gaps", short_help="Show which candles are absent, and why.")
@filters
@click.option("--until", metavar="DATE", help="Only this day and earlier ones.")
@click.option("--all", "show_all", is_flag=True, help=f"Print every gap, not only the newest {ROWS_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a gap, all of them.")
@lake_option
def command(
    choice: Choice,
    until: str | None,
    show_all: bool,
    as_json: bool,
    lake: str | None,
) -> None:
    """Show which candles are absent, and why: what ledgers tell of and is not there, newest last.

    \b
    pending        a recorder is healing it
    exchange_halt  the exchange has no such candle, though the symbol trades
    not_listed, delisted, delivered   it did not trade yet, or no more
    unhealable     the error says why

    Exit 1 if one of them has no reason: it is unhealable, or pending while its
    recorder no longer lives. Exit 2 if the lake has no series that matches.

    \b
    lakewriter gaps
    lakewriter gaps --market spot --symbol BTCUSDT --since 2024-06-01
    lakewriter gaps --json --lake /srv/candles
    """
    from lakewriter.lake.coverage import absent, absent_table

    store = open_to_read(lake or DEFAULT_LAKE)
    wanted = choice.until(until)
    found = sorted(absent(store, wanted), key=lambda each: (each.start_ms, each.told.gap.series))
    check_matches("gaps", store, wanted, {each.told.gap.series for each in found})
    shown = found if show_all or as_json else found[-ROWS_SHOWN:]
    if found or as_json:
        print_table(absent_table(shown), as_json=as_json)
    else:
        print("no gaps: every absent candle that a ledger tells of is there by now")
    if len(shown) < len(found):
        click.echo(f"lakewriter: {len(found) - len(shown)} older gaps are not shown; --all", err=True)
    open_gaps = [each for each in found if not each.has_reason]
    if open_gaps:
        candles = sum(each.candles for each in open_gaps)
        raise LakewriterError(
            f"gaps: {candles} candles in {len(open_gaps)} gaps have no reason",
            "lakewriter record heals what the exchange still has",
        )
