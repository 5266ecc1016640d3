"""`lakewriter doctor`, which checks the machine, the lake and each endpoint, and says what to do."""

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import msgspec

from lakewriter.binance.network import Network
from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.checks.exchange import check_exchange
from lakewriter.cli.checks.finding import Finding
from lakewriter.cli.checks.lake_state import check_lake
from lakewriter.cli.checks.machine import (
    check_fast_packages,
    check_open_files,
    check_proxies_in_environment,
    check_time_zones,
    check_versions,
)
from lakewriter.cli.connect import clients_of
from lakewriter.cli.state_dir import check_state_dir
from lakewriter.cli.terminal import finished_report, wrapped
from lakewriter.clock import Clock
from lakewriter.config import FILE_NAME, Config, find_config, parse_duration
from lakewriter.errors import LakewriterError, UsageError, printable
from lakewriter.lake.root import local_root
from lakewriter.market import MARKETS
from lakewriter.status.wording import counted
from lakewriter.subscription import Subscription, is_glob, parse_subscription

# Series of a glob, for the number of connections. USDⓈ-M lists about 600 symbols.
GLOB_SYMBOLS = 600

TIMEOUT_S_MAX = 60.0

# Time beyond the timeout of each endpoint, for imports and a slow machine.
SPARE_S = 5.0

_HINT = "the lines above say what to do; lakewriter doctor again, after it"


class DoctorReport(msgspec.Struct):
    """The output of `lakewriter doctor --json`."""

    ok: int
    warnings: int
    failures: int
    checks: list[Finding]


def run(
    subscriptions: tuple[str, ...],
    config_path: str | None,
    exchange: str | None,
    timeout: str,
    as_json: bool,
    lake: str | None,
) -> None:
    """Check everything, and print the report."""
    timeout_s = parse_duration(timeout) / 1000
    if timeout_s > TIMEOUT_S_MAX:
        raise UsageError(f"--timeout: {timeout} is more than {TIMEOUT_S_MAX:.0f}s")
    named = [parse_subscription(text) for text in subscriptions]
    config_findings, config = _checked_config(config_path)
    wanted = named or config.parsed_subscriptions() or _every_market()
    used = [config.market(each.market, exchange) for each in wanted]
    uri = lake or config.lake or DEFAULT_LAKE
    check_state_dir(uri)
    exchange_check = _InBackground(
        "exchange", lambda found: _check_exchange(found, wanted, config, exchange, uri, timeout_s)
    )
    lake_check = _InBackground("lake", lambda found: found(check_lake(uri)))
    findings = [
        *check_versions(),
        check_fast_packages(),
        *config_findings,
        check_time_zones(),
        check_open_files(_connections(wanted, config)),
        *lake_check.findings(timeout_s),
        *check_proxies_in_environment(used),
        *exchange_check.findings(timeout_s + SPARE_S),
    ]
    report = DoctorReport(*_counts(findings), findings)
    with finished_report():
        print(msgspec.json.encode(report).decode() if as_json else _text(report))
    if report.failures:
        raise LakewriterError(f"doctor: {counted(report.failures, 'check')} failed", _HINT)


class _InBackground:
    """A check in a thread that the exit does not wait for: a disk or a resolver may hang.

    Args:
        name: the name of the check.
        check: calls its argument with the findings.
    """

    _threads: ClassVar[list[threading.Thread]] = []

    def __init__(self, name: str, check: Callable[[Callable[[list[Finding]], None]], None]) -> None:
        self._name = name
        self._answer: queue.SimpleQueue[list[Finding] | Exception] = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, args=(check,), name=f"doctor-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def findings(self, timeout_s: float) -> list[Finding]:
        """Wait for the findings; return a failure if they do not come in time."""
        try:
            answer = self._answer.get(timeout=timeout_s)
        except queue.Empty:
            what = f"no answer within {timeout_s:.0f} s: a disk, a mount or a resolver hangs"
            return [
                Finding(self._name, "fail", what, "df -h; dmesg | tail; getent hosts data.binance.vision")
            ]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _run(self, check: Callable[[Callable[[list[Finding]], None]], None]) -> None:
        try:
            check(self._answer.put)
        except Exception as error:  # noqa: BLE001 - raised again by `findings`
            self._answer.put(error)

    @classmethod
    def has_pending(cls) -> bool:
        """Return whether a thread still runs."""
        return any(thread.is_alive() for thread in cls._threads)


has_pending = _InBackground.has_pending


def _checked_config(path: str | None) -> tuple[list[Finding], Config]:
    try:
        found = find_config(path)
    except UsageError as error:
        return [Finding("config", "fail", error.what, error.hint)], Config()
    if found is None:
        return [Finding("config", "ok", f"no {FILE_NAME} here", "lakewriter init writes one")], Config()
    return [
        Finding("config", "ok", f"{path or FILE_NAME}: {counted(len(found.subscriptions), 'subscription')}")
    ], found


def _every_market() -> list[Subscription]:
    return [Subscription(name, ("*",), ("1m",)) for name in MARKETS]


def _connections(subscriptions: list[Subscription], config: Config) -> int:
    """Return about how many connections a recorder of the subscriptions opens."""
    streams: Counter[str] = Counter()
    for each in subscriptions:
        symbols = sum(GLOB_SYMBOLS if is_glob(symbol) else 1 for symbol in each.symbols)
        streams[each.market] += symbols * len(each.intervals)
    return sum(-(-count // config.market(market).streams_max) for market, count in streams.items())


def _check_exchange(
    found: Callable[[list[Finding]], None],
    wanted: list[Subscription],
    config: Config,
    exchange: str | None,
    uri: str,
    timeout_s: float,
) -> None:
    """Check the endpoints; report the findings before the loop waits for its threads."""

    async def check() -> None:
        clock = Clock()
        async with Network() as network:
            clients = clients_of(_local_root(uri), partial(config.market, exchange=exchange), network, clock)
            found(await check_exchange(clients, network, wanted, clock, timeout_s=timeout_s))

    asyncio.run(check())


def _local_root(uri: str) -> Path:
    """Return the directory with the lake's record of bans; the working directory has none."""
    try:
        return local_root(uri)
    except LakewriterError:
        return Path()


def _counts(findings: list[Finding]) -> tuple[int, int, int]:
    counts = Counter(each.level for each in findings)
    return counts["ok"], counts["warn"], counts["fail"]


def _text(report: DoctorReport) -> str:
    width = max(len(each.check) for each in report.checks)
    lines = []
    for each in report.checks:
        lines.append(
            wrapped(f"{each.level:<4}  {each.check:<{width}}  {printable(each.what)}", hanging=width + 8)
        )
        if each.advice:
            lines.append(wrapped(f"→ {printable(each.advice)}", width + 8, width + 10))
    lines.append(
        f"\n{report.ok} ok, {counted(report.warnings, 'warning')}, {counted(report.failures, 'failure')}"
    )
    return "\n".join(lines)
