"""The auditor: it compares a lake with the recorders' promises and with the sandbox's truth.

    PYTHONPATH=tests python -m crash.audit LAKE LOGS --truth-seed 7

It reads the lake with plain DuckDB, file by file. Of lakewriter it uses only the sandbox's
truth. LOGS is a directory of recorders' logs. Each candle that a complete line reports as
recorded must be in the lake once, with its true values. The auditor prints its findings as
JSON, and exits with 1 if there is any.
"""

import argparse
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb

from lakewriter.sandbox import Truth

RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?) at ", re.MULTILINE)
PARTITION = re.compile(
    r"market=([^/]+)/symbol=([^/]+)/interval=([^/]+)/date=(\d{4}-\d\d-\d\d)/candles\.parquet"
)
STATE = "_lakewriter"

# The periods of files that are longer than a day.
OF_MONTHS = ("15m", "30m", "1h", "2h")
OF_YEARS = ("4h", "6h", "8h", "12h", "1d", "3d", "1w", "1mo")

COLUMNS = """epoch_ms(candle_begin_time), epoch_ms(candle_end_time), open, high, low, close, volume,
    quote_volume, trade_num, taker_buy_base_asset_volume, taker_buy_quote_asset_volume"""


class Key(NamedTuple):
    """A candle's key, as in a log line."""

    market: str
    symbol: str
    interval: str
    begin: str


@dataclass
class Findings:
    """The result of an audit; all counts but the first two are errors.

    Args:
        promised: candles that the logs report as recorded.
        present: candles in the lake.
        lost: promised candles that the lake lacks.
        duplicated: keys with more than one row.
        different: candles that differ from the truth.
        unreadable: files that DuckDB refuses, with its reason.
        stray: files that are neither a period's own file nor below _lakewriter, and empty
            directories.
        segments: remaining segments in the journal.
    """

    promised: int = 0
    present: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether the audit found no error."""
        return not any(
            (self.lost, self.duplicated, self.different, self.unreadable, self.stray, self.segments)
        )


def main() -> None:
    """Run the audit, print its result, and exit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lake", type=Path)
    parser.add_argument("logs", type=Path)
    parser.add_argument("--truth-seed", type=int, default=0)
    options = parser.parse_args()
    findings = audit(options.lake, options.logs, Truth(options.truth_seed))
    print(json.dumps(asdict(findings), ensure_ascii=False))
    sys.exit(not findings.clean)


def audit(lake: Path, logs: Path, truth: Truth) -> Findings:
    """Return the findings on the lake."""
    findings = Findings()
    present: Counter[Key] = Counter()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in _files(lake):
            found = PARTITION.fullmatch(name)
            period = None if found is None else _period(*found.groups()[2:])
            if found is None or period is None:
                findings.stray.append(name)
                continue
            try:
                rows = connection.execute(
                    f"SELECT {COLUMNS} FROM read_parquet(?, hive_partitioning = false)", [str(lake / name)]
                ).fetchall()
            except duckdb.Error as error:
                findings.unreadable.append(f"{name}: {error}")
                continue
            series = found.groups()[:3]
            present.update(Key(*series, time_text(row[0])) for row in rows)
            findings.different += _different(truth, series, period, rows)
    promised = promised_in(logs)
    findings.promised, findings.present = len(promised), len(present)
    findings.lost = _named(promised - present.keys())
    findings.duplicated = _named(key for key, count in present.items() if count > 1)
    findings.segments = [str(path) for path in sorted(lake.glob(f"{STATE}/journal/*/*.ndjson*"))]
    return findings


def promised_in(logs: Path) -> set[Key]:
    """Return the candles that complete lines of a log report as recorded."""
    return {
        Key(*found.groups())
        for log in logs.glob("*.log")
        for found in RECORDED.finditer(whole_lines(log.read_text()))
    }


def whole_lines(text: str) -> str:
    """Return the text without an unfinished last line."""
    return text[: text.rfind("\n") + 1]


def recorded_line(key: str) -> str:
    """Return the log line that promises the candle of a key, such as "spot BTCUSDT 1m 2024-06-30 15:00"."""
    return f"recorded {key} at once\n"


def key_text(series: tuple[str, ...], begin_ms: float) -> str:
    """Return the key of a candle as logs name it."""
    return f"{' '.join(series)} {time_text(begin_ms)}"


def time_text(begin_ms: float) -> str:
    """Return a time as logs name it, with seconds if it has any."""
    moment = datetime.fromtimestamp(begin_ms / 1000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}".removesuffix(":00")


def _period(interval: str, day: str) -> tuple[int, int] | None:
    """Return the milliseconds of a file's period; None if the day is not the first of one."""
    first = datetime.fromisoformat(day).replace(tzinfo=UTC)
    begin, stop = first, first + timedelta(days=1)
    if interval in OF_MONTHS:
        begin, stop = first.replace(day=1), (first.replace(day=1) + timedelta(days=31)).replace(day=1)
    elif interval in OF_YEARS:
        begin, stop = first.replace(month=1, day=1), first.replace(year=first.year + 1, month=1, day=1)
    if first != begin:
        return None
    return int(begin.timestamp() * 1000), int(stop.timestamp() * 1000)


def _different(
    truth: Truth, series: tuple[str, ...], period: tuple[int, int], rows: list[tuple[float, ...]]
) -> list[str]:
    """Return the rows that are not among the true candles of the partition."""
    begins = [int(row[0]) for row in rows] or [period[0]]
    start_ms, stop_ms = max(period[0], min(begins)), min(period[1], max(begins) + 1)
    true = {
        (candle.begin_ms, candle.end_ms, *candle.numbers())
        for candle in truth.candles(*series, start_ms, stop_ms)
    }
    return [f"{key_text(series, row[0])}: {row[1:]}" for row in rows if row not in true]


def _files(lake: Path) -> list[str]:
    """Return all files and empty directories outside of _lakewriter, hidden files included."""
    names = []
    for directory, directories, files in os.walk(lake):
        if Path(directory) == lake:
            directories[:] = [name for name in directories if name != STATE]
        names += [str((Path(directory) / file).relative_to(lake)) for file in files]
        if not files and not directories:
            names.append(f"{Path(directory).relative_to(lake)}/")
    return sorted(names)


def _named(keys: Iterable[Key]) -> list[str]:
    return [" ".join(key) for key in sorted(keys)]


if __name__ == "__main__":
    main()
