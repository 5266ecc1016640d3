"""The rows of the SQL tables `gaps`, `coverage`, `instruments`, `subscriptions` and `forgotten`."""

from collections.abc import Iterable

import pyarrow as pa

from lakewriter.lake.coverage.absences import AbsentCandles, absent_candles
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.forgotten import read_forgotten
from lakewriter.lake.instruments import read_instruments
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.published import current_ledgers
from lakewriter.lake.subscriptions import read_periods

_TIME = pa.timestamp("ms", tz="UTC")

_SERIES = [("market", pa.string()), ("symbol", pa.string()), ("interval", pa.string())]

GAPS_SCHEMA = pa.schema(
    [
        *_SERIES,
        ("start", _TIME),
        ("stop", _TIME),
        ("candles", pa.int64()),
        ("reason", pa.string()),
        ("detected_at", _TIME),
        ("resolved_at", _TIME),
        ("error", pa.string()),
    ]
)

COVERAGE_SCHEMA = pa.schema(
    [
        *_SERIES,
        ("date", pa.date32()),
        ("expected", pa.int64()),
        ("present", pa.int64()),
        ("missing", pa.int64()),
        ("explained", pa.int64()),
    ]
)

INSTRUMENTS_SCHEMA = pa.schema(
    [
        ("market", pa.string()),
        ("symbol", pa.string()),
        ("status", pa.string()),
        ("contract_type", pa.string()),
        ("onboard_at", _TIME),
        ("delivery_at", _TIME),
        ("first_seen", _TIME),
        ("last_seen", _TIME),
    ]
)

SUBSCRIPTIONS_SCHEMA = pa.schema(
    [
        *_SERIES,
        ("start", _TIME),
        ("stop", _TIME),
        ("last_seen", _TIME),
        ("recorder", pa.string()),
    ]
)

FORGOTTEN_SCHEMA = pa.schema(
    [
        *_SERIES,
        ("start", _TIME),
        ("stop", _TIME),
        ("candles", pa.int64()),
        ("file_bytes", pa.int64()),
        ("sources", pa.string()),
        ("removed_by", pa.string()),
        ("reason", pa.string()),
        ("runs", pa.int64()),
        ("started_at", _TIME),
        ("finished_at", _TIME),
    ]
)


def gaps_table(store: LakeStore, wanted: PartitionFilter = ALL) -> pa.Table:
    """Return the rows of the table `gaps`."""
    return absent_table(absent_candles(store, wanted))


def absent_table(found: Iterable[AbsentCandles]) -> pa.Table:
    """Return runs of absent candles as rows of GAPS_SCHEMA."""
    rows = [
        (
            *each.series, each.start_ms, each.stop_ms, each.candles, each.reason,
            each.detected_ms, each.resolved_ms, each.error,
        )
        for each in found
    ]  # fmt: skip
    return _table(rows, GAPS_SCHEMA)


def coverage_table(store: LakeStore, wanted: PartitionFilter = ALL, until_ms: int | None = None) -> pa.Table:
    """Return the rows of the table `coverage`."""
    return _table([(*day.series, *day[1:6]) for day in coverage(store, wanted, until_ms)], COVERAGE_SCHEMA)


def instruments_table(store: LakeStore) -> pa.Table:
    """Return the rows of the table `instruments`."""
    with current_ledgers(store) as root:
        return _table(read_instruments(root), INSTRUMENTS_SCHEMA)


def subscriptions_table(store: LakeStore) -> pa.Table:
    """Return the rows of the table `subscriptions`."""
    with current_ledgers(store) as root:
        return _table(
            [
                (*each.series, each.start_ms, each.stop_ms, each.seen_ms, each.recorder)
                for each in read_periods(root)
            ],
            SUBSCRIPTIONS_SCHEMA,
        )


def forgotten_table(store: LakeStore) -> pa.Table:
    """Return the rows of the table `forgotten`."""
    with current_ledgers(store) as root:
        lines = read_forgotten(root)
    rows = [
        (
            *line.series, line.ranges[0][0], line.ranges[-1][1], line.candles, line.file_bytes,
            ",".join(line.sources) or None, line.by, line.reason or None, line.runs, line.started_ms,
            line.finished_ms,
        )
        for line in lines
    ]  # fmt: skip
    return _table(rows, FORGOTTEN_SCHEMA)


def _table(rows: Iterable[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
