"""`lakewriter unsubscribe`, which ends the subscriptions of a recorder that ended permanently."""

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.clock import present_ms
from lakewriter.errors import LakeError, UsageError
from lakewriter.lake.open import open_to_change
from lakewriter.lake.row_file import HOST_MARK
from lakewriter.subscription import parse_subscription


def run(subscriptions: tuple[str, ...], host: str | None, lake: str | None) -> None:
    """End the subscriptions, and print them."""
    from lakewriter.lake.coverage.expectation import format_minute
    from lakewriter.lake.host_reports import LIVING_MS, living_anywhere, read_host_reports, remove_report
    from lakewriter.lake.published import current_ledgers, host_name, publish
    from lakewriter.lake.subscriptions import end_periods, end_periods_elsewhere, read_host_periods

    if not subscriptions and host is None:
        raise UsageError("unsubscribe: names no subscription and no host", "lakewriter unsubscribe --help")
    parsed = [parse_subscription(text) for text in subscriptions]
    store = open_to_change(lake or DEFAULT_LAKE)
    with current_ledgers(store) as root:
        known = read_host_periods(root)
        alive = living_anywhere(store, root, present_ms())
        hosts = {each.host for each in known} | {each.host for each in read_host_reports(root)}
    if host is not None and host not in hosts:
        names = ", ".join(sorted(filter(None, hosts)))
        raise UsageError(f"unsubscribe: the lake has no host {host}", names and f"its hosts are: {names}")
    still = [each for each in known if each.period.is_open and host in (None, each.host)]
    chosen = [] if parsed else still
    for subscription in parsed:
        covered = [each for each in still if subscription.covers(*each.period.series)]
        if not covered:
            raise UsageError(
                f"unsubscribe: no recorder of the lake subscribes to {subscription}",
                'lakewriter query "FROM subscriptions WHERE stop IS NULL"',
            )
        chosen += covered
    own = host_name(store)
    elsewhere = [each for each in dict.fromkeys(chosen) if each.host != own]
    for each in elsewhere:
        if f"{each.period.journal}{HOST_MARK}{each.host}" in alive:
            raise LakeError(
                f"subscriptions: {each.period.series} is recorded at this moment, on the host {each.host}",
                "take it out of the config there, or stop its recorder; one that died counts as dead"
                f" {LIVING_MS // 1000} s after its last report",
            )
    ended = end_periods(store, {each.period.series for each in chosen if each.host == own})
    if elsewhere:
        ended += end_periods_elsewhere(store, elsewhere)
    publish(store)
    if host not in (None, own) and not parsed:
        remove_report(store, str(host))
    for period in ended:
        print(f"{period.series} is unsubscribed since {format_minute(period.stop_ms or period.seen_ms)}")
