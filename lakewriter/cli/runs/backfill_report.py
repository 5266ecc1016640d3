"""The plan, progress and report that `lakewriter backfill` prints."""

import asyncio
import logging
import time
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from lakewriter.backfill.planner import BackfillPlan
from lakewriter.backfill.progress import Progress as Done
from lakewriter.cli.table_fit import PIPE_WIDTH, fitted_lines
from lakewriter.cli.terminal import terminal_width

log = logging.getLogger(__name__)

REFRESH_S = 0.25

# Time between two log lines with the progress, without a terminal.
LINE_EVERY_S = 10.0

# Maximum number of series in a printed plan. The totals count the others too.
SERIES_SHOWN_MAX = 50
_UNKNOWN_SHOWN_MAX = 5


# Counts of what workers did. The other fields follow from the plan, the files and the lake.
DONE_BY_WORKERS = ("corrections", "retried")


class BackfillReport(msgspec.Struct):
    """The output of `--json` after a backfill.

    Args:
        at_least: the names of the fields that are lower bounds, because a worker was lost. The
            lake and the other fields are right.
    """

    series: int = 0
    candles_from_archive: int = 0
    candles_from_rest: int = 0
    corrections: int = 0
    explained: int = 0
    unhealable: int = 0
    unexplained: int = 0
    files: int = 0
    file_bytes: int = 0
    files_refused: int = 0
    pages: int = 0
    retried: int = 0
    unknown: list[str] = []
    partitions_failed: int = 0
    series_unreadable: int = 0
    store_away: bool = False
    seconds: float = 0.0
    at_least: list[str] = []

    @property
    def problem(self) -> str:
        """The error text of the command; "" if it succeeds."""
        parts = []
        if self.unknown:
            shown = ", ".join(self.unknown[:_UNKNOWN_SHOWN_MAX])
            more = len(self.unknown) - _UNKNOWN_SHOWN_MAX
            parts.append(f"no source knows {shown}" + (f" and {more} more" if more > 0 else ""))
        if self.unhealable:
            parts.append(f"{self.unhealable:,} candles could not be fetched (lakewriter gaps)")
        if self.unexplained:
            parts.append(f"{self.unexplained:,} candles are missing, and the reason is not known yet")
        if self.partitions_failed:
            parts.append(f"{self.partitions_failed:,} partitions could not be merged and are unchanged")
        if self.series_unreadable:
            why = "are not complete" if self.store_away else "have files that cannot be read"
            parts.append(f"{self.series_unreadable:,} series {why}")
        if self.store_away:
            parts.append("the store was away")
        return "; ".join(parts)

    @property
    def hint(self) -> str:
        """The hint for the error text."""
        if self.unknown:
            return "check the spelling"
        if self.series_unreadable and not self.store_away:
            return "lakewriter verify --check partition"
        return "the same command retries missing candles"


async def show_progress(plan: BackfillPlan, done: Done, console: Console | None) -> None:
    """Show the progress until cancelled, as a bar on a terminal, or as log lines.

    Args:
        console: the console of the terminal; None logs lines.
    """
    total = max(1, _work(plan))
    began_s = time.monotonic()
    if console is None:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            log.info("%s", _line(done, total, time.monotonic() - began_s))
    with Progress(
        TextColumn("backfill"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} candles/s"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[current]}"),
        console=console,
        transient=True,
    ) as progress:
        task: TaskID = progress.add_task("", total=total, rate=0.0, current="")
        while True:
            rate = (done.from_archive + done.from_rest) / max(0.001, time.monotonic() - began_s)
            progress.update(task, completed=min(total, _steps(done)), rate=rate, current=done.current)
            await asyncio.sleep(REFRESH_S)


def summary_of(plan: BackfillPlan) -> str:
    """Return a summary of the plan in one line."""
    return (
        f"{len(plan.series):,} series lack {sum(series_plan.candles for series_plan in plan.series):,} candles: "
        f"{sum(series_plan.file_count for series_plan in plan.series):,} files "
        f"({_size(sum(series_plan.file_bytes for series_plan in plan.series))}), "
        f"{sum(series_plan.pages for series_plan in plan.series):,} pages of REST"
    )


def print_plan(plan: BackfillPlan, seconds: float, *, as_json: bool) -> None:
    """Print the plan, series by series.

    Args:
        seconds: the estimated duration of the backfill.
    """
    if as_json:
        print(msgspec.json.encode(_plan_rows(plan, seconds)).decode())
        return
    for line in fitted_lines(_plan_table(plan), terminal_width() or PIPE_WIDTH, counts_rows=False):
        print(line)
    if len(plan.series) > SERIES_SHOWN_MAX:
        print(f"… and {len(plan.series) - SERIES_SHOWN_MAX:,} more series")
    print(f"{summary_of(plan)}; about {_duration(seconds)}")


def _plan_table(plan: BackfillPlan) -> Any:
    import pyarrow as pa

    shown = plan.series[:SERIES_SHOWN_MAX]
    columns: dict[str, list[Any]] = {
        name: [getattr(each.series, name) for each in shown] for name in ("market", "symbol", "interval")
    }
    columns["from"] = [_day(each.missing[0][0]) if each.missing else "" for each in shown]
    columns["missing"] = [each.candles for each in shown]
    columns["files"] = [each.file_count for each in shown]
    columns["size"] = [_size(each.file_bytes) for each in shown]
    columns["pages"] = [each.pages for each in shown]
    columns["weight"] = [each.weight for each in shown]
    return pa.table(columns)


def print_report(report: BackfillReport, *, as_json: bool) -> None:
    """Print the report."""
    if as_json:
        print(msgspec.json.encode(report).decode())
        return
    print(
        f"{report.series:,} series: {report.candles_from_archive:,} candles of {report.files:,} files, "
        f"{report.candles_from_rest:,} by REST, "
        f"{'at least ' if report.at_least else ''}{report.corrections:,} corrected, "
        f"{report.explained:,} explained in {report.seconds:.1f} s"
    )
    if report.files_refused:
        print(f"{report.files_refused:,} files were unusable; their candles were requested by REST")


def report_of(plan: BackfillPlan, done: Done, seconds: float = 0.0) -> BackfillReport:
    """Return the report of a backfill."""
    return BackfillReport(
        series=len(plan.series),
        candles_from_archive=done.from_archive,
        candles_from_rest=done.from_rest,
        corrections=done.corrections,
        explained=done.explained,
        unhealable=done.unhealable,
        unexplained=done.unexplained,
        files=done.files,
        file_bytes=done.file_bytes,
        files_refused=sum(done.refused.values()),
        pages=done.pages,
        retried=done.retried,
        unknown=[str(series) for series in plan.unknown],
        partitions_failed=len(done.unmerged),
        series_unreadable=len(done.unreadable),
        store_away=done.is_away,
        seconds=round(seconds, 3),
    )


def _plan_rows(plan: BackfillPlan, seconds: float) -> dict[str, object]:
    rows = [
        {
            "market": series_plan.series.market,
            "symbol": series_plan.series.symbol,
            "interval": series_plan.series.interval,
            "candles": series_plan.candles,
            "missing": [[_time(low), _time(high)] for low, high in series_plan.missing],
            "files": [planned.file.path for planned in series_plan.files],
            "file_bytes": series_plan.file_bytes,
            "rest": [[_time(low), _time(high)] for low, high in series_plan.rest],
            "pages": series_plan.pages,
            "weight": series_plan.weight,
        }
        for series_plan in plan.series
    ]
    return {"series": rows, "unknown": [str(series) for series in plan.unknown], "seconds": round(seconds, 1)}


def _work(plan: BackfillPlan) -> int:
    # Each series has one more step, in which its end is checked and explained.
    return sum(series_plan.file_count + series_plan.pages + 1 for series_plan in plan.series)


def _steps(done: Done) -> int:
    return done.files + done.pages + done.series


def _line(done: Done, total: int, seconds: float) -> str:
    share = min(1.0, _steps(done) / total)
    candles = done.from_archive + done.from_rest
    left = "" if not share else f", about {_duration(seconds / share - seconds)} left"
    return f"{share:.0%}: {candles:,} candles, {candles / max(0.001, seconds):,.0f}/s{left}; {done.current}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _day(time_ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time_ms / 1000))


def _time(time_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ms / 1000))
