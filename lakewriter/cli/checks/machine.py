"""The checks of the machine: versions, open files, time zones and proxies."""

import importlib.metadata
import os
import platform
import resource
import sys
from urllib.request import getproxies

from lakewriter import __version__
from lakewriter.binance.network import proxy_of
from lakewriter.cli.checks.finding import Finding
from lakewriter.errors import UsageError
from lakewriter.fast_packages import used_versions
from lakewriter.market import Market

# Packages whose versions matter for an answer or a file.
_PACKAGES = ("duckdb", "pyarrow", "pandas", "aiohttp", "websockets")

# Open files of a recorder beside its sockets: the journal, locks, libraries, and the files
# of eight parallel merges.
FILES_SPARE = 128

_VARIABLES = ("http", "https", "socks", "all", "no")
_ZONE = "America/New_York"


def check_versions() -> list[Finding]:
    """Return the versions; a failure if a package is absent."""
    found, absent = [f"lakewriter {__version__}", f"Python {platform.python_version()}"], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    findings = [Finding("versions", "ok", ", ".join(found))]
    if absent:
        advice = f"{sys.executable} -m pip install {' '.join(absent)}"
        findings.append(Finding("versions", "fail", f"not installed: {', '.join(absent)}", advice))
    return findings


def check_fast_packages() -> Finding:
    """Return which packages of the extra `fast` are used."""
    try:
        used = used_versions()
    except UsageError as error:
        return Finding("fast", "fail", error.what, error.hint)
    return Finding("fast", "ok", ", ".join(used) or "streams are read by websockets, on asyncio")


def check_open_files(connections: int, allowed: tuple[int, int] | None = None) -> Finding:
    """Return whether the process may open enough files.

    Args:
        connections: number of connections that a recorder needs; each is there twice while it is replaced.
        allowed: the soft and the hard limit; None reads those of this process.
    """
    soft, hard = allowed or resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + FILES_SPARE
    what = f"{_limit(soft)} allowed, about {needed} needed for {connections} connections"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return Finding("open files", "ok", what)
    advice = f"ulimit -n {2 * needed}, or LimitNOFILE={2 * needed} of the service"
    if hard != resource.RLIM_INFINITY and hard < needed:
        advice += f"; the hard limit is {hard}, so /etc/security/limits.conf, too"
    return Finding("open files", "fail", what, advice)


def check_time_zones() -> Finding:
    """Return whether Python and the engine know time zones."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(_ZONE)
    except ZoneInfoNotFoundError:
        advice = f"apt install tzdata, or {sys.executable} -m pip install tzdata"
        return Finding("time zones", "fail", f"no data: {_ZONE} is not known", advice)
    local = os.environ.get("TZ", "")
    return Finding("time zones", "ok", f"data found{f'; TZ={local}' if local else ''}; candles are in UTC")


def check_proxies_in_environment(markets: list[Market]) -> list[Finding]:
    """Return the proxies that the environment names, without passwords, and which hosts use them."""
    proxies = getproxies()
    named = {name: proxies[name] for name in _VARIABLES if proxies.get(name)}
    if not named:
        return [Finding("proxies", "ok", "none in the environment")]
    shown = ", ".join(f"{name}_proxy={_without_user(value)}" for name, value in named.items())
    findings = [Finding("proxies", "ok", shown)]
    wrong = set()
    for market in markets:
        for url in (market.stream_url, market.rest_url, market.archive_url, market.archive_list_url):
            try:
                proxy_of(url)
            except UsageError as error:
                wrong.add(Finding("proxies", "fail", error.what, error.hint))
    return findings + sorted(wrong, key=lambda each: each.what)


def _limit(number: int) -> str:
    return "any number" if number == resource.RLIM_INFINITY else str(number)


def _without_user(value: str) -> str:
    return value.rpartition("@")[2]
