"""Lakes with the sandbox's candles, and functions that damage one of their files."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from lakewriter.candle import SCHEMA
from lakewriter.candle_arrays import ends
from lakewriter.interval import DAY_MS
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import decode, encode
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.partition import Partition, partition_at
from lakewriter.sandbox.truth.candles import Truth
from lakewriter.series import Series
from lakewriter.verify.findings import VerifyReport
from lakewriter.verify.run import DEFAULT, VerifyOptions, verify

MONDAY_MS = 1_717_372_800_000  # 2024-06-03
BTC = Series("spot", "BTCUSDT", "1m")

# What a test expects or gets: check, kind, series, begin time.
Reported = tuple[str, str, Series, int]


def truth_table(truth: Truth, series: Series, start_ms: int, stop_ms: int, source: str = "rest") -> pa.Table:
    """Return the truth's candles that begin in a range, as a table of SCHEMA."""
    columns = dict(truth.arrays(*series, start_ms, stop_ms))
    begins = columns["candle_begin_time"]
    columns["candle_end_time"] = ends(series.grid, begins)
    columns["recv_time"] = columns["candle_end_time"] * 1000 + 50_000
    more = {
        "event_time": pa.nulls(len(begins), pa.int64()),
        "source": pa.array([source] * len(begins), pa.string()),
    }
    return pa.Table.from_arrays(
        [
            (more[name] if name in more else pa.array(columns[name])).cast(SCHEMA.field(name).type)
            for name in SCHEMA.names
        ],
        schema=SCHEMA,
    )


def merge_truth(
    store: LakeStore, series: Series, days: int, start_ms: int = MONDAY_MS, truth: Truth | None = None
) -> None:
    """Merge this many days of a series' truth, each partition at once."""
    truth = truth or Truth()
    each_day = range(start_ms, start_ms + days * DAY_MS, DAY_MS)
    for partition, some in groupby(each_day, partial(partition_at, series)):
        some_days = list(some)
        rows = truth_table(truth, series, some_days[0], some_days[-1] + DAY_MS)
        if rows.num_rows:
            store.merge(partition, rows)


def truth_lake(root: Path, series: Iterable[tuple[Series, int]], truth: Truth | None = None) -> LakeStore:
    """Create a lake with this many days of each series, from a Monday on."""
    store = LakeStore.create(str(root), "test")
    for each, days in series:
        merge_truth(store, each, days, truth=truth)
    return store


def rewrite(store: LakeStore, partition: Partition, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a partition's file directly, without locks or merges."""
    path = store.root / partition.file
    path.write_bytes(encode(change(decode(path.read_bytes(), "")), partition))


def edited(rows: pa.Table, at: int, **values: object) -> pa.Table:
    """Return the rows with other values in one row; times are milliseconds."""
    for name, value in values.items():
        number = SCHEMA.get_field_index(name)
        field = SCHEMA.field(number)
        kind = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        column = rows[name].cast(kind).to_pylist()
        column[at] = value
        rows = rows.set_column(number, field, pa.array(column, kind).cast(field.type))
    return rows


def verify_lake(
    store: LakeStore, wanted: PartitionFilter = ALL, options: VerifyOptions = DEFAULT, most: int = 100
) -> list[Reported]:
    """Verify a lake, and return the findings."""
    report = VerifyReport(most)
    for _ in verify(store, report, wanted, options):
        pass
    return reported(report)


def reported(report: VerifyReport) -> list[Reported]:
    """Return the content of a report."""
    return [
        (each.check, each.kind, Series(each.market, each.symbol, each.interval), each.begin_ms)
        for each in report.findings
    ]


def traded_row(rows: pa.Table, after: int = 100) -> int:
    """Return the position of the first row from `after` on whose high is above its low."""
    spread = rows["high"].to_numpy() > rows["low"].to_numpy()
    return int(np.flatnonzero(spread[after:])[0]) + after


LONG_AFTER_MS = MONDAY_MS + 400 * DAY_MS


class Published:
    """Published candles from a seed's truth, in a range of time.

    Args:
        source: "archive" or "rest".
        until_ms: candles that begin at or after it are not published.
        without: begin times of candles that are not published.
        change: a change of the published rows, relative to the truth.
    """

    def __init__(self, source="archive", until_ms=LONG_AFTER_MS, without=(), change=lambda rows: rows):
        self.source, self.until_ms, self.without, self.change = source, until_ms, without, change
        self.asked: list[tuple[Series, int, int]] = []

    async def rows(self, series: Series, start_ms: int, stop_ms: int) -> pa.Table | None:
        self.asked.append((series, start_ms, stop_ms))
        if start_ms >= self.until_ms:
            return None
        rows = truth_table(Truth(), series, start_ms, min(stop_ms, self.until_ms), self.source)
        begins = rows["candle_begin_time"].cast(pa.int64()).to_numpy()
        rows = rows.filter(pa.array(~np.isin(begins, self.without)))
        # Asked for now, long after the lake's rows were received.
        later = pa.array([LONG_AFTER_MS * 1000] * rows.num_rows).cast(SCHEMA.field("recv_time").type)
        return self.change(rows.set_column(SCHEMA.get_field_index("recv_time"), "recv_time", later))
