"""The auditor: it compares a lake with the recorders' promises and with the sandbox's truth.

    PYTHONPATH=tests python -m crash.audit LAKE LOGS --truth-seed 7

It reads the lake with plain DuckDB, file by file. Of lakewriter it uses only the
sandbox's
truth. LOGS is a directory of recorders' logs. Each candle that a complete line reports as
recorded must be in the lake once, with its true values. The auditor prints its findings
as
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
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb

from lakewriter.sandbox import Truth

RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d) at ", re.MULTILINE)
PARTITION = re.compile(
    r"market=([^/]+)/symbol=([^/]+)/interval=([^/]+)/date=(\d{4}-\d\d-\d\d)/candles\.parquet"
)
STATE = "_lakewriter"

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
        stray: files that are neither a partition's own file nor below _lakewriter.
        segments: number of remaining segments in the journal.
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
            if found is None:
                findings.stray.append(name)
                continue
            try:
                rows = connection.execute(
                    f"SELECT {COLUMNS} FROM read_parquet(?, hive_partitioning = false)", [str(lake / name)]
                ).fetchall()
            except duckdb.Error as error:
                findings.unreadable.append(f"{name}: {error}")
                continue
            keys = [Key(*found.groups()[:3], _minute(row[0])) for row in rows]
            present.update(keys)
            findings.different += _different(truth, found, rows)
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


def _different(truth: Truth, partition: re.Match[str], rows: list[tuple[float, ...]]) -> list[str]:
    """Return the rows that are not among the true candles of the partition."""
    market, symbol, interval, day = partition.groups()
    day_ms = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
    start_ms = max(day_ms, int(min((row[0] for row in rows), default=day_ms)))
    stop_ms = min(day_ms + 86_400_000, int(max((row[0] for row in rows), default=day_ms)) + 1)
    true = {
        (candle.begin_ms, candle.end_ms, *candle.numbers())
        for candle in truth.candles(market, symbol, interval, start_ms, stop_ms)
    }
    return [f"{market} {symbol} {interval} {_minute(row[0])}: {row[1:]}" for row in rows if row not in true]


def _files(lake: Path) -> list[str]:
    """Return all files outside of _lakewriter, hidden files included."""
    names = []
    for directory, directories, files in os.walk(lake):
        if Path(directory) == lake:
            directories[:] = [name for name in directories if name != STATE]
        names += [str((Path(directory) / file).relative_to(lake)) for file in files]
    return sorted(names)


def _minute(begin_ms: float) -> str:
    return f"{datetime.fromtimestamp(begin_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _named(keys: Iterable[Key]) -> list[str]:
    return [" ".join(key) for key in sorted(keys)]


if __name__ == "__main__":
    main()
