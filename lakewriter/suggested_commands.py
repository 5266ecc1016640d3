"""The command lines that hints and the lake's status suggest. Pure; a shell can run each.

`lake` is the lake as the user named it, or None for the default.
"""

import shlex

from lakewriter.partition import day_of
from lakewriter.series import Series


def command_line(*words: str, lake: str | None) -> str:
    """Return the command line of a lakewriter command.

    Args:
        words: the command and its arguments, without the lake.
    """
    lake_option = () if lake is None else ("--lake", lake)
    return shlex.join(["lakewriter", *words, *lake_option])


def subscriptions_command(series: Series, lake: str | None) -> str:
    """Return the command line that shows the subscriptions to a series' symbol."""
    # No symbol has a character that a shell would expand.
    query = f"lakewriter query \"FROM subscriptions WHERE symbol = '{series.symbol}'\""
    return query if lake is None else f"{query} --lake {shlex.quote(lake)}"


def unsubscribe_command(series: Series, lake: str | None) -> str:
    """Return the command line that unsubscribes a series."""
    return command_line("unsubscribe", ":".join(series), lake=lake)


def backfill_command(series: Series, since_ms: int, lake: str | None) -> str:
    """Return the command line that fetches the missing candles of a series since a time."""
    return command_line("backfill", ":".join(series), "--since", day_of(since_ms).isoformat(), lake=lake)
