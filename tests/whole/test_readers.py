"""Plain readers while lakewriter writes: no duplicate and no missing candle."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import to_table
from lakewriter.lake.durable import write_durably
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import encode, encode_next
from lakewriter.partition import partition_of
from lakewriter.sandbox import SandboxOptions, serve
from support.candles import stream_candle
from support.lengths import either
from support.running import child, run, until

pytestmark = pytest.mark.slow

READ_S = either(2, 30)

# After so many replacements pages may begin where they did before.
SHIFTS = 11

# Some tenth of the replacements fall into a read, and any is enough.
REPLACEMENTS = either(60, 500)
TORN_MIN = 1

# Reads the whole lake repeatedly, like a user's script; prints the number of reads.
READER = """
import sys, time, pathlib
engine, lake, until = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
reads = most = again = 0
if engine == "duckdb":
    import duckdb
else:
    import pyarrow.compute as pc, pyarrow.dataset as ds
while reads < 3 or time.monotonic() < until:
    if engine == "duckdb":
        try:
            with duckdb.connect() as connection:
                rows, keys = connection.execute(
                    f"SELECT count(*), count(DISTINCT (market, symbol, interval, candle_begin_time)) "
                    f"FROM read_parquet('{lake}/**/*.parquet', hive_partitioning = true)"
                ).fetchall()[0]
        except duckdb.Error:
            # One was replaced while it was read (docs/explanation/consistency.md, "Two windows"):
            # asked again, it answers; the slower the machine, the later.
            again += 1
            assert again <= 50
            continue
        again = 0
    else:
        table = ds.dataset(lake, format="parquet", partitioning="hive").to_table(
            columns=["market", "symbol", "interval", "candle_begin_time"]
        )
        rows = table.num_rows
        keys = table.group_by(["market", "symbol", "interval", "candle_begin_time"]).aggregate([]).num_rows
    assert rows == keys, f"{rows - keys} duplicates"
    assert rows >= most, f"{most - rows} rows vanished"
    most = rows
    reads += 1
print(reads, most)
"""


def test_readers_see_no_error_and_no_duplicate_while_recording_and_compacting(tmp_path: Path) -> None:
    """Repeated whole-lake globs of DuckDB and pyarrow during flushes and compactions see no duplicate."""
    lake = tmp_path / "lake"
    yesterday = LakeStore.create(str(lake), "test")
    for symbol in ("AAAUSDT", "BBBUSDT", "CCCUSDT"):
        day = [stream_candle(minute, symbol) for minute in range(1440)]
        yesterday.merge(partition_of(day[0]), to_table(day))

    async def main() -> None:
        async with serve(SandboxOptions(speed=60, symbols=30)) as sandbox:
            arguments = [
                "record",
                "--log-candles",
                "spot:*:1m,3m",
                "coin_futures:BTC*:1m",
                "--exchange",
                sandbox.url,
            ]
            with child(
                tmp_path / "log", *arguments, "--lake", str(lake), "--flush-every", "300ms", "-q"
            ) as recorder:
                await until(lambda: len(list(lake.glob("**/*.parquet"))) > 30)
                readers = [
                    subprocess.Popen(
                        [sys.executable, "-c", READER, engine, str(lake), str(READ_S)],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                    )
                    for engine in ("duckdb", "pyarrow")
                ]
                rewritten = 0
                while any(reader.poll() is None for reader in readers):
                    rewritten += await asyncio.to_thread(_age_and_compact, lake)
                assert recorder.process.poll() is None
                assert await asyncio.to_thread(recorder.stop) == 0
                for reader in readers:
                    said = reader.communicate()[0]
                    assert reader.returncode == 0, said
                    reads, rows = map(int, said.split()[-2:])
                    assert reads >= 3
                    assert rows > 100
                assert rewritten > 0

    asyncio.run(main())


def test_a_file_that_is_replaced_while_it_is_read_is_never_read_short(tmp_path: Path) -> None:
    """If a file is replaced between DuckDB's two opens, the read fails rather than lose candles."""
    store = LakeStore.create(str(tmp_path / "lake"), "test")
    rows = [stream_candle(minute) for minute in range(REPLACEMENTS)]
    partition = partition_of(rows[0])
    file = store.root / partition.file
    data = encode(to_table(rows[-1:]), partition)
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    versions = []
    for first in range(len(rows) - 2, -1, -1):  # what comes late begins early
        data = encode_next(to_table(rows[first:]), partition, data)
        versions.append(data)
    context = multiprocessing.get_context("spawn")
    made, allowed = context.Value("q", 0), context.Value("q", 0)
    replacing = context.Process(target=_replace, args=(file, versions, made, allowed))
    replacing.start()
    torn = reads = 0
    while replacing.is_alive():
        # A padding that does not suffice is skipped, so some rounds have fewer versions.
        allowed.value = made.value + SHIFTS // 2
        try:
            found = duckdb.sql(f"SELECT epoch_ms(candle_begin_time) FROM '{file}'").fetchall()
        except duckdb.Error:
            torn += 1
            continue
        reads += 1
        assert found
        assert [begin_ms for (begin_ms,) in found] == [row.begin_ms for row in rows[-len(found) :]]
    assert replacing.exitcode == 0
    assert min(torn, reads) >= TORN_MIN


def _replace(file: Path, versions: list[bytes], made: Any, allowed: Any) -> None:
    for data in versions:
        while made.value >= allowed.value:
            os.sched_yield()
        write_durably(file, data)
        made.value += 1


def _age_and_compact(lake: Path) -> int:
    """Compact files that look as if an older encoding had written them."""
    for name in lake.glob("market=spot/symbol=???USDT/interval=1m/date=2024-06-30/candles.parquet"):
        aged = name.with_name(".candles.parquet.tmp-aged")
        pq.write_table(pq.ParquetFile(name).read().replace_schema_metadata(None), aged)
        aged.rename(name)
    compacted = run("compact", "--lake", str(lake))
    assert compacted.returncode == 0, compacted.stderr
    return int(compacted.stdout.split(": ")[1].split()[0])
