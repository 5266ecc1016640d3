"""Odd entries beside a partition's own file: answers about its candles continue, one line names the entry."""

import contextlib
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakewriter.candle import SCHEMA, to_table
from lakewriter.errors import LakeError, UnreadableError
from lakewriter.interval import DAY_MS
from lakewriter.lake.compact import compact_partitions as compact
from lakewriter.lake.coverage.days import coverage
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import ROWS_MAX, decode, read_begins, read_footer, read_header
from lakewriter.lake.presence import survey
from lakewriter.lake.storage import FILE_BYTES_MAX
from lakewriter.partition import Partition, partition_of
from lakewriter.query.python.reader import Lake
from lakewriter.query.python.result import Result
from lakewriter.query.session import run as ask
from lakewriter.series import Series
from lakewriter.verify.findings import VerifyReport
from lakewriter.verify.run import VerifyOptions, verify
from support.compaction import plan_compaction
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.running import run

BTC = Series("spot", "BTCUSDT", "1m")
PARTITION = partition_of(rest_candle(0))


def varint(number: int) -> bytes:
    """Return an integer in the encoding of Thrift's compact protocol."""
    left = number << 1 if number >= 0 else (-number << 1) - 1
    digits = b""
    while left > 0x7F:
        digits += bytes([left & 0x7F | 0x80])
        left >>= 7
    return digits + bytes([left])


def claiming(rows: int, *, everywhere: bool) -> bytes:
    """Return a Parquet file of 30,001 rows whose footer claims another number of them."""
    sink = io.BytesIO()
    pq.write_table(to_table([rest_candle(0)] * 30_001), sink)
    data = sink.getvalue()
    footer_bytes = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - footer_bytes : -8].replace(varint(30_001), varint(rows), -1 if everywhere else 1)
    return data[: -8 - footer_bytes] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def listening_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


def of_another_century(path: Path) -> None:
    """Return rows of another century, up to which coverage must not count."""
    table = to_table([rest_candle(0)])
    begins = pa.array([2**62], table.schema.field(0).type)
    pq.write_table(table.set_column(0, table.schema.field(0), begins), path)


# Things that are not opened at all, and files that are opened and cannot be understood.
NO_FILES: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "directory": Path.mkdir,
    "socket": listening_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
}
BAD_FILES: dict[str, Callable[[Path], object]] = {
    "ring": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to("gone"),
    "empty": Path.touch,
    "text": lambda path: path.write_text("no candles"),
    "only magic": lambda path: path.write_bytes(b"PAR1PAR1"),
    "cut off": lambda path: path.write_bytes(claiming(30_001, everywhere=True)[:-100]),
    "3 GB": sparse,
    "10^12 rows": lambda path: path.write_bytes(claiming(10**12, everywhere=True)),
    "2^62 rows": lambda path: path.write_bytes(claiming(2**62, everywhere=False)),
    "-5 rows": lambda path: path.write_bytes(claiming(-5, everywhere=True)),
    "other columns": lambda path: pq.write_table(pa.table({"name": ["BTC"]}), path),
    "nested": lambda path: pq.write_table(pa.table({"candle_begin_time": [[1]], "open": [{"a": 1}]}), path),
}
ODDITIES = NO_FILES | BAD_FILES


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return make_lake(tmp_path / "lake", [rest_candle(0), rest_candle(1), rest_candle(3)])


def put(store: LakeStore, name: str) -> Path:
    path = store.root / PARTITION.path / "x.parquet"
    ODDITIES[name](path)
    return path


def named_once(path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if str(path) in line]) == (name != "directory"), lines


@pytest.mark.parametrize("name", ODDITIES)
def test_queries_go_on(store: LakeStore, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """SQL and Python return the other candles each time, and the log names the odd entry once."""
    path = put(store, name)
    for _ in range(2):
        assert Result(ask(store, "SELECT count(*), max(high) FROM candles")).rows() == [(3, 105.0)]
    assert len(Lake(store.root).candles(*BTC)) == 3
    assert Result(ask(store, "SELECT count(*) FROM partitions")).rows() == [(1,)]
    named_once(path, caplog, name)


@pytest.mark.parametrize("name", ODDITIES)
def test_coverage_and_healing_go_on(store: LakeStore, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Coverage and healing know the present and missing candles without the odd entry."""
    path = put(store, name)
    stop_ms = BEGIN_MS + 4 * 60_000
    assert survey(store, BTC, 0, stop_ms).missing == [(BEGIN_MS + 2 * 60_000, BEGIN_MS + 3 * 60_000)]
    assert [(day.expected, day.present) for day in coverage(store, until_ms=stop_ms)] == [(4, 3)]
    named_once(path, caplog, name)


@pytest.mark.parametrize("name", ODDITIES)
def test_merges_compaction_and_verification_go_on(store: LakeStore, name: str) -> None:
    """Merges continue, compaction reports the odd entry as unchanged, and verification finds it."""
    path = put(store, name)
    assert store.merge(PARTITION, to_table([rest_candle(2)])).rows == 4
    store.merge(partition_of(rest_candle(0, symbol="ETHUSDT")), to_table([rest_candle(0, symbol="ETHUSDT")]))
    btc, eth = compact(store, plan_compaction(store).work, 1e10)
    assert (bool(btc.error), eth.error) == (name in BAD_FILES, "")
    assert os.path.lexists(path)
    report = VerifyReport(10)
    assert len(list(verify(store, report, options=VerifyOptions(frozenset(("partition",)))))) == 2
    assert [finding.kind for finding in report.findings] == (["unreadable"] if name in BAD_FILES else [])


def test_rows_of_another_century_are_no_candles_of_the_day(store: LakeStore) -> None:
    """Coverage does not count such rows, and a query refuses them in one line."""
    of_another_century(store.root / PARTITION.path / "x.parquet")
    assert [(day.expected, day.present) for day in coverage(store)] == [(4, 3)]
    assert survey(store, BTC, 0, BEGIN_MS + 60_000).last_ms == BEGIN_MS + 3 * 60_000
    with pytest.raises(LakeError, match="1 of its rows begin on another day"):
        ask(store, "SELECT * FROM candles")


ABSURD_MS = [-(2**63) + 1, -1, 253_402_300_800_000, 2**62, 2**63 - 1]


@pytest.mark.parametrize("begin_ms", ABSURD_MS)
@pytest.mark.parametrize("interval", ["1m", "3d", "1mo"])
def test_a_file_of_others_under_our_name_with_absurd_times(
    store: LakeStore, interval: str, begin_ms: int
) -> None:
    """Coverage, gaps and healing ignore such rows; merges and compaction fail with one line."""
    series = Series("spot", "ETHUSDT", interval)
    partition = Partition(*series, PARTITION.date)
    begins = pa.array([BEGIN_MS, begin_ms], SCHEMA.field(0).type)
    path = store.root / partition.file
    path.parent.mkdir(parents=True)
    pq.write_table(to_table([rest_candle(0), rest_candle(0)]).set_column(0, SCHEMA.field(0), begins), path)
    stop_ms = BEGIN_MS + DAY_MS
    assert survey(store, series, 0, stop_ms).last_ms == BEGIN_MS
    assert len(list(coverage(store, until_ms=stop_ms))) <= 2
    Result(ask(store, "SELECT * FROM gaps")).rows()
    with contextlib.suppress(LakeError):
        store.merge(partition, to_table([msgspec.structs.replace(rest_candle(0), interval=interval)]))
    list(compact(store, plan_compaction(store).work, 1e10))
    list(verify(store, VerifyReport(10)))


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("rows", [ROWS_MAX + 1, 10**12, 2**62, -1, -(2**62)])
def test_a_footer_that_claims_too_many_rows(rows: int, everywhere: bool) -> None:
    """Each reader refuses such a file without allocating memory for the rows."""
    data = claiming(rows, everywhere=everywhere)
    for read in (decode, read_begins, read_header):
        with pytest.raises(UnreadableError, match=r"x: not a readable Parquet file of candles: it claims"):
            read(data, "x")
    assert read_footer(data, "x") is None


def test_our_own_file_is_never_left_out(store: LakeStore) -> None:
    """An unreadable own file is an error with its name, because an answer without it would be wrong."""
    own = store.root / PARTITION.file
    for spoil in (
        lambda: own.write_bytes(b""),
        lambda: os.truncate(own, FILE_BYTES_MAX + 1),
        lambda: (own.unlink(), own.symlink_to("a disk that is away")),
        lambda: (own.unlink(), own.symlink_to(own.name)),
    ):
        spoil()
        with pytest.raises((LakeError, OSError)):
            ask(store, "SELECT count(*) FROM candles")
        with pytest.raises((LakeError, OSError)):
            list(coverage(store))


@pytest.mark.slow
def test_no_command_hangs_or_ends_in_a_traceback(store: LakeStore, tmp_path: Path) -> None:
    """With pipes and a device in the places of all read files, each command ends with an answer or one line."""
    for number, name in enumerate(ODDITIES):
        path = store.root / PARTITION.path / f"{number}" / "x.parquet"
        path.parent.mkdir()
        ODDITIES[name](path)
        if name != "to a pipe":
            path.rename(path.parent.parent / f"{number}.parquet")
    state = store.root / "_lakewriter"
    for name in ("compacted.json", "restraint.json"):
        (state / name).unlink(missing_ok=True)
        os.mkfifo(state / name)
    (state / "gaps").mkdir(exist_ok=True)
    os.mkfifo(state / "gaps/x.ndjson")
    sparse(state / "gaps/y.ndjson")
    (state / "journal/dead").mkdir(parents=True)
    os.mkfifo(state / "journal/dead/00000001.ndjson")
    sparse(state / "journal/dead/00000002.ndjson")
    lake = ("--lake", str(store.root))
    for command, code in (
        (("query", "SELECT count(*) AS n FROM candles", "--format", "csv"), 0),
        (("coverage",), 1),
        (("gaps",), 1),
        (("flush",), 0),
        (("compact",), 1),
        (("verify",), 1),
    ):
        done = run(*command, *lake)
        assert done.returncode == code, (command, done.stderr)
        assert "Traceback" not in done.stderr
        if command[0] == "query":
            assert done.stdout == "n\n3\n"
    for name in ("lake.json",):
        (state / name).unlink()
        os.mkfifo(state / name)
    for command in ("query", "record", "flush"):
        arguments = {"query": ["SELECT 1"], "record": ["spot:BTCUSDT:1m"], "flush": []}[command]
        done = run(command, *arguments, *lake)
        assert done.returncode == 1
        assert done.stderr.startswith(
            f"lakewriter: lake: {state / 'lake.json'}: a named pipe, not a regular file"
        )
