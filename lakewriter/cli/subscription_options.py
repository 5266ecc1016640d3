"""The argument that names subscriptions, and the option that names another exchange."""

from collections.abc import Callable
from typing import Any

import click

from lakewriter.cli.completion_values import complete_subscription


def subscriptions_argument(*, required: bool = False) -> Callable[..., Any]:
    """Return the decorator that adds subscriptions to a command, as the keyword argument `subscriptions`."""
    metavar = "MARKET:SYMBOLS:INTERVALS..." if required else "[MARKET:SYMBOLS:INTERVALS]..."
    return click.argument(
        "subscriptions", nargs=-1, required=required, metavar=metavar, shell_complete=complete_subscription
    )


exchange_option = click.option(
    "--exchange", metavar="URL", help="One server that offers all three markets, like our sandbox."
)
