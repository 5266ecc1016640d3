"""The counts, findings and totals that `lakewriter verify` prints."""

from collections.abc import Iterable
from typing import Any

import click
import msgspec

from lakewriter.candle import VALUE_COLUMNS
from lakewriter.cli.printed_table import print_table
from lakewriter.cli.terminal import ignore_broken_pipe, standard_output
from lakewriter.interval import INTERVALS
from lakewriter.series import Series
from lakewriter.status.wording import counted
from lakewriter.verify.findings import CHECKS, Check, FindingCounts, VerifyFinding, VerifyReport


class CheckTotals(msgspec.Struct):
    """The result of one check of one series, in `--json`."""

    market: str
    symbol: str
    interval: str
    check: str
    checked: int
    findings: int
    corrected: int
    added: int


class VerifyTotals(msgspec.Struct):
    """The last object of `--json`.

    Args:
        findings: the number of all findings, printed or not.
        shown: the number of printed findings.
        corrected, added: the numbers of candles that `--repair` replaced and added.
        unknown: the number of candles with a null in an optional column. These are no
            findings.
        by_check: the counts for each series and check.
    """

    findings: int
    shown: int
    corrected: int
    added: int
    unknown: int
    by_check: list[CheckTotals]


def print_report(report: VerifyReport, *, as_json: bool, repair: bool) -> None:
    """Print the checks and their findings.

    Args:
        repair: whether the table shows the counts of corrected and added candles.
    """
    if as_json:
        return _print_json(report)
    if not report.counts:
        return print("nothing to verify yet")
    print_table(_counts_table(report, repair=repair), as_json=False)
    if report.findings:
        with ignore_broken_pipe(), standard_output() as out:
            out.write(b"\n")
        print_table(_findings_table(report.findings), as_json=False)
    hidden = report.total - len(report.findings)
    if hidden:
        click.echo(f"lakewriter: {counted(hidden, 'more finding')} not shown; --max-findings", err=True)
    if report.unknown_candles:
        click.echo(f"lakewriter: {_unknown_text(report)}", err=True)
    return None


def _unknown_text(report: VerifyReport) -> str:
    names = ", ".join(name for name in VALUE_COLUMNS if name in report.unknown_columns)
    have = "has" if report.unknown_candles == 1 else "have"
    return f"{counted(report.unknown_candles, 'candle')} {have} no {names}"


def _print_json(report: VerifyReport) -> None:
    rows = _by_check(report)
    totals = VerifyTotals(
        findings=report.total,
        shown=len(report.findings),
        corrected=sum(row.corrected for row in rows),
        added=sum(row.added for row in rows),
        unknown=report.unknown_candles,
        by_check=rows,
    )
    print_table(_findings_table(report.findings), as_json=True)
    with ignore_broken_pipe(), standard_output() as out:
        out.write(msgspec.json.encode({"totals": totals}) + b"\n")


def _by_check(report: VerifyReport) -> list[CheckTotals]:
    lengths, checks = list(INTERVALS), list(CHECKS)

    def place(item: tuple[tuple[Series, Check], FindingCounts]) -> tuple[str, str, int, int]:
        (series, check), _ = item
        return series.market, series.symbol, lengths.index(series.interval), checks.index(check)

    ordered = sorted(report.counts.items(), key=place)
    return [
        CheckTotals(*series, check, tally.checked, tally.findings, tally.corrected, tally.added)
        for (series, check), tally in ordered
    ]


def _counts_table(report: VerifyReport, *, repair: bool) -> Any:
    import pyarrow as pa

    names = ["market", "symbol", "interval", "check", "checked", "findings"]
    names += ["corrected", "added"] if repair else []
    rows = _by_check(report)
    return pa.table({name: [getattr(row, name) for row in rows] for name in names})


def _findings_table(findings: Iterable[VerifyFinding]) -> Any:
    import pyarrow as pa

    found = sorted(findings, key=lambda finding: CHECKS.index(finding.check))
    texts = ("check", "kind", "market", "symbol", "interval")
    columns = {name: pa.array([getattr(finding, name) for finding in found], pa.string()) for name in texts}
    columns["time"] = pa.array([finding.begin_ms for finding in found], pa.timestamp("ms", tz="UTC"))
    columns["what"] = pa.array([finding.what for finding in found], pa.string())
    return pa.table(columns)
