"""The values that the shell completes: subscriptions, markets, symbols, intervals and saved queries.

Symbols are those of the lake's directories. No file is opened but the config, no network is
used, and no error ends a completion. A value that needs more text ends with a colon or a
comma, and has the type `part`, so that the shell adds no space.
"""

import os
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

from lakewriter.cli.default_lake import DEFAULT_LAKE
from lakewriter.errors import LakewriterError

# More symbols than a shell can show in a few screens are still listed; spot has about 3,500.
SYMBOLS_MAX = 10_000

PART = "part"

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def complete_subscription(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Complete a subscription: the market, then symbols, then intervals; after a comma the next one."""
    from lakewriter.market import MARKETS

    parts = incomplete.split(":")
    if len(parts) == 1:
        return _items(f"{market}:" for market in MARKETS if market.startswith(incomplete))
    market = parts[0]
    if market not in MARKETS or len(parts) > 3:
        return []
    head, comma, last = parts[-1].rpartition(",")
    before = ":".join(parts[:-1]) + f":{head}{comma}"
    chosen = set(head.split(","))
    if len(parts) == 3:
        intervals = [name for name in MARKETS[market].intervals if name not in chosen]
        return _items(f"{before}{name}" for name in intervals if name.startswith(last))
    symbols = [*_symbols(ctx, (market,)), MARKETS[market].busy_symbol]
    wanted = [each for each in dict.fromkeys(symbols) if each not in chosen and _begins(each, last)]
    return [CompletionItem(f"{before}{name}:", PART) for name in wanted]


def complete_market(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Complete the name of a market."""
    from lakewriter.market import MARKETS

    return _items(name for name in MARKETS if name.startswith(incomplete))


def complete_symbol(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Complete a symbol of the lake, in the markets of `--market`, if they are given."""
    from lakewriter.market import MARKETS

    markets = ctx.params.get("markets") or tuple(MARKETS)
    return _items(name for name in _symbols(ctx, markets) if _begins(name, incomplete))


def complete_interval(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Complete the name of an interval."""
    from lakewriter.interval import INTERVALS

    return _items(name for name in INTERVALS if name.startswith(incomplete))


def complete_query(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the name of a saved query, with its title."""
    from lakewriter.cli.query_values import queries_directory
    from lakewriter.query.saved import saved_queries

    try:
        queries = saved_queries(queries_directory(ctx.params.get("queries")))
    except (LakewriterError, OSError):
        return []
    return [
        CompletionItem(each.name, help=each.title) for each in queries if each.name.startswith(incomplete)
    ]


def _items(values: Iterable[str]) -> list[CompletionItem[str]]:
    return [CompletionItem(value, PART if value.endswith((":", ",")) else "plain") for value in values]


def _begins(symbol: str, incomplete: str) -> bool:
    return symbol.startswith(incomplete.upper())


def _symbols(ctx: click.Context, markets: Iterable[str]) -> list[str]:
    """Return the symbols of a lake on a disk, sorted."""
    import urllib.parse

    root = _lake(ctx)
    found: set[str] = set()
    for market in markets:
        try:
            with os.scandir(f"{root}/market={market}") as entries:
                names = [each.name for each in entries if each.name.startswith("symbol=")]
        except (OSError, ValueError):
            continue
        found.update(urllib.parse.unquote(name.partition("=")[2]) for name in names)
    return sorted(found)[:SYMBOLS_MAX]


def _lake(ctx: click.Context) -> str:
    """Return the lake of the command line, of the environment, or of the config."""
    from pathlib import Path

    from lakewriter.config import find_config

    named = ctx.params.get("lake") or ctx.find_root().obj or ctx.find_root().params.get("lake")
    if not named:
        try:
            config = find_config(ctx.params.get("config_path"))
        except LakewriterError:
            config = None
        named = config.lake if config is not None and "config_path" in ctx.params else None
    try:
        return str(Path(named or DEFAULT_LAKE).expanduser())
    except RuntimeError:
        return DEFAULT_LAKE
