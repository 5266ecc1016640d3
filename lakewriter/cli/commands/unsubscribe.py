"""`lakewriter unsubscribe`, which ends the subscriptions of a recorder that ended permanently."""

import click

from lakewriter.cli import DEFAULT_LAKE, lake_option
from lakewriter.cli.subscription_options import subscriptions_argument
from lakewriter.errors import UsageError
from lakewriter.lake.open import open_to_change
from lakewriter.subscription import parse_subscription


@click.command(name="unsubscribe", short_help="Unsubscribe series of an ended recorder on purpose.")
@subscriptions_argument(required=True)
@lake_option
def command(subscriptions: tuple[str, ...], lake: str | None) -> None:
    """Unsubscribe series on purpose: coverage expects no more candles of them.

    For recorders that ended for good. A recorder that starts, or reloads its
    config, ends its old subscriptions by itself.

    Exit 1 if a running recorder subscribes to one of them, 2 if no recorder does.

    \b
    lakewriter unsubscribe spot:ETHUSDT:1m
    lakewriter unsubscribe 'usdt_futures:*:1m,5m' --lake /srv/candles
    """
    from lakewriter.lake.coverage.expectation import format_minute
    from lakewriter.lake.published import publish
    from lakewriter.lake.subscriptions import end_periods, read_periods

    parsed = [parse_subscription(text) for text in subscriptions]
    store = open_to_change(lake or DEFAULT_LAKE)
    open_series = {period.series for period in read_periods(store.state_dir) if period.is_open}
    chosen = set()
    for subscription in parsed:
        covered = {series for series in open_series if subscription.covers(*series)}
        if not covered:
            raise UsageError(
                f"unsubscribe: no recorder of the lake subscribes to {subscription}",
                'lakewriter query "FROM subscriptions WHERE stop IS NULL"',
            )
        chosen |= covered
    ended = end_periods(store, chosen)
    publish(store)
    for period in ended:
        print(f"{period.series} is unsubscribed since {format_minute(period.stop_ms or period.seen_ms)}")
