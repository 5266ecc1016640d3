"""Shared code of the crash tests: candles to write, the recovery at a start, and reads of the rest."""

import asyncio
import os
import re
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lakewriter.candle import Candle, Source
from lakewriter.lake import compact
from lakewriter.lake.durable import is_temporary
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.storage import TEMPORARY_AGE_S
from support.compaction import plan_compaction
from support.recording import OfflineRecorder
from support.running import plain_rows

BEGIN_MS = 1_719_705_600_000  # 2024-06-30 00:00 UTC
DAY_MINUTES = 1440

# Long after every test: whatever is temporary by then is stale.
LATER_S = 4e9

# Below the lake's root nothing else may be, partitions' own files and temporary ones aside.
_KNOWN = re.compile(
    r"_lakewriter/(lake\.json|compacted\.json|last_compaction\.json|restraint\.json|locks/[0-9a-f]{2}|journal/lock"
    r"|gaps/[^/]+|instruments/[^/]+|subscriptions/[^/]+|forgotten/[^/]+|weight/[^/]+\.json"
    r"|journal/[^/]+/(lock|status\.json|\d{8}\.ndjson(\.bad)?))"
)
_OWN = re.compile(r"market=[^/]+/symbol=[^/]+/interval=[^/]+/date=[^/]+/candles\.parquet")


class Key(NamedTuple):
    """The key of a candle, as in a log line."""

    symbol: str
    minute: int


def make_candle(
    symbol: str, minute: int, trade_num: int = 10, recv_us: int = 1, source: Source = "stream"
) -> Candle:
    """Return a spot 1m candle whose prices follow from the values that decide its precedence."""
    begin_ms = BEGIN_MS + minute * 60_000
    price = trade_num * 100.0 + recv_us + 0.5 * (source == "archive")
    return Candle(
        "spot", symbol, "1m", begin_ms, begin_ms + 60_000, price, price + 2, price - 1, price, 3.0,
        3.0 * price, trade_num, 1.0, price, begin_ms + 60_004, recv_us, source,
    )  # fmt: skip


def key_of(candle: Candle) -> Key:
    """Return the candle's key as in a log line."""
    return Key(candle.symbol, (candle.begin_ms - BEGIN_MS) // 60_000)


def recover(root: Path) -> None:
    """Recover a dead recorder's state as the next `lakewriter record` does, and stop."""

    async def main() -> None:
        store = LakeStore.create(str(root), "test")
        stop = asyncio.Event()
        stop.set()
        await OfflineRecorder(store).run(stop)

    asyncio.run(main())


def compact_all(root: Path, now_s: float = LATER_S) -> None:
    """Fold all foreign files, and remove all temporary files."""
    store = LakeStore.local(root)
    outcomes = list(compact.compact_partitions(store, plan_compaction(store).work, now_s))
    assert not [outcome.error for outcome in outcomes if outcome.error]


def journal_directories(root: Path) -> list[Path]:
    """Return the directories of all recorders, living and dead."""
    return [path for path in (root / "_lakewriter/journal").glob("*") if path.is_dir()]


def files_below(root: Path) -> list[str]:
    """Return every file's name below the root."""
    return sorted(
        str((Path(directory) / file).relative_to(root))
        for directory, _, files in os.walk(root)
        for file in files
    )


def strays(root: Path) -> list[str]:
    """Return the files that belong to no part of the lake, without temporary files."""
    return [
        name
        for name in files_below(root)
        if not (_KNOWN.fullmatch(name) or _OWN.fullmatch(name) or is_temporary(name.rpartition("/")[2]))
    ]


def temporaries(root: Path) -> list[str]:
    """Return the names of temporary files in partitions."""
    return [name for name in files_below(root) if is_temporary(name.rpartition("/")[2])]


def tables(root: Path) -> dict[str, pa.Table]:
    """Read each `*.parquet` with a plain reader; fail if one is not whole."""
    return {
        name: pq.ParquetFile(root / name).read(use_threads=False)
        for name in files_below(root)
        if _is_data(name)
    }


def _is_data(name: str) -> bool:
    return name.endswith(".parquet")


def plain_keys(root: Path) -> list[Key]:
    """Return the key of each row of a plain glob, in order."""
    if not any(map(_is_data, files_below(root))):
        return []
    rows = plain_rows(root, "symbol, epoch_ms(candle_begin_time)")
    return [Key(str(symbol), (int(str(begin_ms)) - BEGIN_MS) // 60_000) for symbol, begin_ms in rows]


assert TEMPORARY_AGE_S < LATER_S
