"""The checks of the exchange's endpoints, and of the host's clock against the exchange's."""

import asyncio
from collections.abc import Awaitable, Iterable

from lakewriter.binance.connection_cause import Place
from lakewriter.binance.market_clients import MarketClients
from lakewriter.binance.network import Network
from lakewriter.binance.reachability import (
    Reached,
    host_of,
    probe_archive,
    probe_archive_list,
    probe_rest,
    probe_stream,
)
from lakewriter.cli.checks.finding import Finding, Level
from lakewriter.clock import Clock
from lakewriter.market import MARKETS
from lakewriter.subscription import Subscription, is_glob

# An error of the host's clock does not harm candles, but the times of receipt.
CLOCK_MS_MAX = 1000.0

_ADVICE: dict[Place, str] = {
    "dns": "getent hosts {host}; check /etc/resolv.conf, or the network of the container",
    "refused": "curl -v {url}; check the port, and the firewall's rules for outgoing connections",
    "unreachable": "ip route get 1.1.1.1; the machine has no way to the internet",
    "timeout": "curl -v {url}; a firewall may drop it: allow outgoing port 443, or set https_proxy",
    "tls": "curl -v {url}; a proxy may read the traffic (SSL_CERT_FILE=its-ca.pem), or the date is wrong (date)",
    "proxy": "check https_proxy and no_proxy; lakewriter uses {via}",
    "http": "{meaning}",
    "broken": "curl -v {url}; a firewall may read the traffic, or the URL names another server",
    "silent": "name another endpoint for [markets.…] in lakewriter.toml, or look at the symbol on the exchange",
}
_REGION = (
    "name an endpoint that serves you in lakewriter.toml, such as [markets.spot] stream_url, or use a proxy"
)


async def check_exchange(
    clients: MarketClients,
    network: Network,
    subscriptions: Iterable[Subscription],
    clock: Clock,
    *,
    timeout_s: float,
) -> list[Finding]:
    """Probe each endpoint of the markets at once; return the findings in the order of the markets.

    Args:
        subscriptions: name the markets, and a symbol of each.
        timeout_s: the most time for one endpoint.
    """
    symbols = probed_symbols(subscriptions)
    probes: dict[str, Awaitable[Reached]] = {}
    for market, symbol in symbols.items():
        client = clients[market]
        probes |= {
            f"{market} rest": probe_rest(client, clock, timeout_s),
            f"{market} stream": probe_stream(client, symbol, clock, timeout_s),
            f"{market} archive list": probe_archive_list(client, symbol, clock, timeout_s),
            f"{market} archive": probe_archive(client, network, symbol, clock, timeout_s),
        }
    reached = await asyncio.gather(*probes.values())
    findings = [_finding(check, one) for check, one in zip(probes, reached, strict=True)]
    return [*findings, *_check_clock(reached)]


def probed_symbols(subscriptions: Iterable[Subscription]) -> dict[str, str]:
    """Return the symbol to probe in each market: the first one that is named in full, or a well-known one."""
    symbols: dict[str, str] = {}
    for each in subscriptions:
        named = next((symbol for symbol in each.symbols if not is_glob(symbol)), None)
        if named is not None or each.market not in symbols:
            symbols.setdefault(each.market, named or MARKETS[each.market].busy_symbol)
    return symbols


def _finding(check: str, reached: Reached) -> Finding:
    through = f" through {reached.via}" if reached.via else ""
    took = f" in {reached.seconds * 1000:.0f} ms" if reached.place is None else ""
    what = f"{reached.url}{through}: {reached.what}{took}"
    if reached.place is None:
        return Finding(check, "ok", what)
    # Candles can be recorded and healed without the archive.
    is_archive = check.endswith(("archive", "archive list"))
    level: Level = "warn" if reached.place == "silent" or is_archive else "fail"
    advice = _ADVICE[reached.place].format(
        host=host_of(reached.url), url=reached.url, via=reached.via or "no proxy", meaning=_meaning(reached)
    )
    if is_archive and reached.place != "silent":
        advice += "; only backfill and verify need the archive"
    return Finding(check, level, what, advice)


def _meaning(reached: Reached) -> str:
    if "HTTP 451" in reached.what or "HTTP 403" in reached.what:
        return _REGION
    if any(words in reached.what for words in ("HTTP 418", "HTTP 429", "pause")):
        return "wait; requests during a ban make it longer"
    if "HTTP 5" in reached.what:
        return f"curl -v {reached.url}; try again later"
    return f"curl -v {reached.url}; correct the URL in lakewriter.toml, or log in to the network"


def _check_clock(reached: Iterable[Reached]) -> list[Finding]:
    """Return the finding about the host's clock, by the quickest answer."""
    known = [each for each in reached if each.ahead_ms is not None]
    if not known:
        return [
            Finding("clock", "warn", "the exchange's time is not known", "repair the REST endpoint first")
        ]
    best = min(known, key=lambda each: each.seconds)
    ahead_ms = best.ahead_ms or 0.0
    doubt_ms = best.seconds * 1000 / 2
    way = "behind" if ahead_ms > 0 else "ahead of"
    what = f"the host is {_length(abs(ahead_ms))} {way} the exchange, ±{doubt_ms:.0f} ms"
    if abs(ahead_ms) - doubt_ms <= CLOCK_MS_MAX:
        return [Finding("clock", "ok", what)]
    advice = (
        "timedatectl set-ntp true; candles are not harmed, recv_time is (a sandbox has a time of its own)"
    )
    return [Finding("clock", "warn", what, advice)]


def _length(ms: float) -> str:
    if ms < 10_000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:,.0f} s" if ms < 48 * 3_600_000 else f"{ms / 86_400_000:,.0f} days"
