"""Files of the user as tables of a statement: each format, and each way in which one is unreadable."""

import gzip
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.cli import cli, table_files
from lakewriter.cli.shell.loop import Shell
from lakewriter.cli.table_files import read_table_file, read_table_files
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.query.python.result import Result
from lakewriter.query.session import run
from support.escapes import REFUSED, everything, filled
from support.lakes import make_lake, rest_candle

TIMES = [datetime(2024, 6, 30, 0, 1, 30, tzinfo=UTC), datetime(2024, 6, 30, 0, 5, 0, 500_000, tzinfo=UTC)]
ROWS = pa.table(
    {
        "time": pa.array(TIMES, pa.timestamp("us", tz="UTC")),
        "symbol": ["BTCUSDT", None],
        "price": [101.5, 106.0],
        "n": [1, 2**53 + 1],
    }
)
CSV = """time,symbol,price,n
2024-06-30T00:01:30Z,BTCUSDT,101.5,1
2024-06-30T00:05:00.5Z,,106,9007199254740993
"""
NDJSON = """{"time":"2024-06-30T00:01:30Z","symbol":"BTCUSDT","price":101.5,"n":1}
{"time":"2024-06-30T00:05:00.5Z","symbol":null,"price":106.0,"n":9007199254740993}
"""
ASOF = """
    SELECT t.price, c.close FROM trades t
    ASOF JOIN candles_of('spot', 'BTCUSDT', '1m') c ON c.candle_end_time <= t.time ORDER BY t.time
"""


def _write(path: Path, text: str) -> None:
    path.write_text(text)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.csv": lambda path: path.write_text(CSV),
    "bom.CSV": lambda path: path.write_text("\ufeff" + CSV),
    "windows.csv": lambda path: path.write_bytes(CSV.replace("\n", "\r\n").encode("utf-16")),
    "semicolons.csv": lambda path: path.write_text(CSV.replace(",", ";")),
    "bars.txt": lambda path: path.write_text(CSV.replace(",", "|")),
    "a.tsv": lambda path: path.write_text(CSV.replace(",", "\t")),
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV.encode())),
    "a.tsv.gz": lambda path: path.write_bytes(gzip.compress(CSV.replace(",", "\t").encode())),
    "a.ndjson": lambda path: path.write_text(NDJSON),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(NDJSON.encode())),
    "a.json": lambda path: path.write_text(json.dumps([json.loads(line) for line in NDJSON.splitlines()], indent=2)),
    "a.parquet": lambda path: pq.write_table(ROWS, path),
    "a.feather": lambda path: feather.write_feather(ROWS, path),
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return make_lake(tmp_path_factory.mktemp("files") / "lake", [rest_candle(n) for n in range(10)])


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_has_the_same_rows(tmp_path: Path, store: LakeStore, name: str) -> None:
    """Times are times in UTC, whole numbers keep all digits, and an empty value is NULL."""
    WRITERS[name](tmp_path / name)
    table = read_table_file("trades", str(tmp_path / name))
    mine = Result(
        run(store, "SELECT time::TIMESTAMPTZ AS time, symbol, price, n FROM trades", tables={"trades": table})
    )
    assert mine.rows() == [tuple(row.values()) for row in ROWS.to_pylist()]
    assert Result(run(store, ASOF, tables={"trades": table})).rows() == [(101.5, 101.0), (106.0, 105.0)]


@pytest.mark.parametrize("form", ["csv", "tsv", "ndjson", "json", "parquet", "arrow"])
def test_an_answer_is_a_table_again(tmp_path: Path, store: LakeStore, form: str) -> None:
    """A file that `-o` wrote is read with the values of the answer."""
    sql = "SELECT symbol, candle_begin_time, close, trade_num FROM candles ORDER BY ALL"
    path = str(tmp_path / f"answer.{form}")
    for arguments in (
        [sql, "-o", path],
        ["FROM answer ORDER BY ALL", "--table", f"answer={path}", "--format", "csv"],
    ):
        done = CliRunner().invoke(
            cli, ["query", *arguments, "--lake", str(store.root)], catch_exceptions=False
        )
        assert done.exit_code == 0
    again = Result(run(store, "FROM answer ORDER BY ALL", tables={"answer": read_table_file("answer", path)}))
    assert again.rows() == Result(run(store, sql)).rows()
    assert done.stdout.splitlines()[1] == '"BTCUSDT","2024-06-30T00:00:00Z",101,10'


UNREADABLE: list[tuple[str, bytes, str]] = [
    ("a.xyz", b"a\n1\n", "its suffix is not known"),
    ("a", b"a\n1\n", "its suffix is not known"),
    ("a.parquet.gz", b"x", "its suffix is not known"),
    ("a.csv", b"", "is empty"),
    ("a.csv", b" \n\n", "is empty"),
    (
        "a.csv",
        b"1719705600000,1.5,true\n1719705600001,2,false\n",
        "has no names of columns in its first line",
    ),
    ("a.csv", b"a,b\n1\n", "not a table: CSV parse error: Expected 2 columns, got 1"),
    ("a.csv", b'a,b\n1,"open\n' + b"1,2\n" * 1_000_000, "a row has more than a megabyte; is a quote open?"),
    ("a.ndjson", b'{"a": "' + b"x" * 4_000_000 + b'"}\n', "a row has more than a megabyte"),
    ("a.csv", b"a,a\n1,2\n", "column a is there twice"),
    ("a.csv", b"a,b\n\xff,1\n", "is not valid UTF-8"),
    ("a.csv", b"\x1f\x8b\x08\x00", "is not a text file but a gzip file"),
    ("a.csv", b"PAR1", "is not a text file but a Parquet file"),
    ("a.csv", ",".join(map(str, "x" * 1_500)).encode() + b"\n", "has 1500 columns, more than 1000"),
    ("a.csv.gz", b"a,b\n1,2\n", "not a whole gzip file"),
    ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 100, mtime=0)[:-9], "not a whole gzip file"),
    ("a.ndjson", b'{"a": 1}\n{"a": \n', "not one object on each line"),
    ("a.ndjson", b"1\n2\n", "not one object on each line"),
    ("a.json", b"[1, 2]", "not a list of objects"),
    ("a.json", b'[{"a": 1}, {"a": "x"}]', "not a list of objects"),
    ("a.json", b"[" * 100_000, "not a list of objects"),
    ("a.json", b"[]", "has no columns"),
    ("a.parquet", b"PAR1 nothing", "not a readable Parquet file"),
    ("a.feather", b"ARROW1\0\0", "not a readable Feather file"),
]


@pytest.mark.parametrize(("name", "data", "message"), UNREADABLE)
def test_an_unreadable_file_is_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    """The line names the table, the file and the reason; no traceback, exit 2."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UsageError) as raised:
        read_table_file("trades", str(path))
    assert raised.value.what.startswith("table trades: ")
    assert message in raised.value.what
    assert "\n" not in raised.value.what
    assert raised.value.what.count(str(path)) <= 1


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe, a device, a directory and an absent file are one line, and nothing waits for them."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "null.csv").symlink_to("/dev/null")
    for name, reason in (
        ("pipe.csv", "a named pipe, not a regular file"),
        ("folder.csv", "Is a directory"),
        ("null.csv", "a device, not a regular file"),
        ("absent.csv", "No such file or directory"),
        ("a\0.csv", "null byte"),
    ):
        with pytest.raises(UsageError, match=reason):
            read_table_file("trades", str(tmp_path / name))
    with pytest.raises(UsageError, match="table trades: ~nobody-here"):
        read_table_file("trades", "~nobody-here/a.csv")


def test_a_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger file is not read, and the content of a compressed one is not inflated further."""
    monkeypatch.setattr(table_files, "FILE_BYTES_MAX", 1_000)
    large = tmp_path / "large.csv"
    large.write_text("a\n" + "1\n" * 1_000)
    with pytest.raises(UsageError, match="larger than 1,000 bytes") as raised:
        read_table_file("trades", str(large))
    assert raised.value.hint == "write it as Parquet, or in parts"
    zipped = tmp_path / "large.csv.gz"
    zipped.write_bytes(gzip.compress(large.read_bytes()))
    with pytest.raises(UsageError, match="more than 1,000 bytes in it"):
        read_table_file("trades", str(zipped))


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\0\ufeff"), min_size=1),
        min_size=1,
        max_size=5,
    )
)
def test_quoted_values_are_kept(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    """A value in quotes may hold separators, quotes and line breaks."""
    path = tmp_path_factory.mktemp("quoted") / "a.csv"
    lines = ["first,second"] + ['"x,;\t{}",y'.format(value.replace('"', '""')) for value in values]
    path.write_bytes("\n".join(lines).encode())
    assert read_table_file("t", str(path))["first"].to_pylist() == [f"x,;\t{value}" for value in values]


@pytest.mark.parametrize("written", ["trades", "=a.csv", "trades=", ""])
def test_an_option_is_a_name_and_a_file(written: str) -> None:
    """Any option but NAME=FILE is an error with an example."""
    with pytest.raises(UsageError, match="is not NAME=FILE") as raised:
        read_table_files([written])
    assert raised.value.hint == "--table trades=trades.csv"


def test_a_taken_name_is_told_before_the_file_is_read(tmp_path: Path) -> None:
    """A table of the lake, a reserved word, or a name given twice is one line."""
    for name in ("candles", "vwap", "select", "lake_held"):
        with pytest.raises(UsageError, match=f"table {name}: "):
            read_table_file(name, str(tmp_path / "absent.csv"))
    (tmp_path / "a.csv").write_text("a\n1\n")
    with pytest.raises(UsageError, match="table T: given twice"):
        read_table_files([f"t={tmp_path}/a.csv", f"T={tmp_path}/a.csv"])


def test_query_takes_several_tables(tmp_path: Path, store: LakeStore) -> None:
    """`--table` is repeatable, works with saved queries and parameters, and its errors exit 2."""
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    (tmp_path / "b=c.csv").write_text("n\n2\n3\n")
    tables = ["--table", f"a={tmp_path}/a.csv", "--table", f"b={tmp_path}/b=c.csv"]
    done = CliRunner().invoke(
        cli,
        [
            "--lake",
            str(store.root),
            "query",
            "SELECT n FROM a JOIN b USING (n) WHERE n < $m",
            "-p",
            "m=9",
            *tables,
        ],
        catch_exceptions=False,
    )
    assert done.stdout == "n\n─\n2\n(1 row)\n"
    with pytest.raises(UsageError, match="No such file"):
        CliRunner().invoke(
            cli,
            ["query", "SELECT 1", "--lake", str(store.root), "--table", "a=absent.csv"],
            catch_exceptions=False,
        )


def test_the_shell_reads_files_as_tables(
    tmp_path: Path, store: LakeStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """`.table` reads a file now; its rows stay until it reads the file again."""
    path = tmp_path / "my trades.csv"
    path.write_text("symbol,price\nBTCUSDT,1\n")
    shell = Shell(str(store.root), paged=False)
    shell.run(f".table Trades {path}")
    shell.run(".tables")
    shell.run(".schema trades")
    path.write_text("symbol,price\nBTCUSDT,2\n")
    shell.run("SELECT price, count(*) FROM trades JOIN candles USING (symbol) GROUP BY ALL;")
    shell.run(f".table trades {path}")
    shell.run("SELECT price FROM trades;")
    printed = capsys.readouterr().out
    assert "trades: 1 rows: symbol, price\n" in printed
    assert "\ntrades\n" in printed
    assert "price        BIGINT" in printed
    assert "    1            10\n" in printed
    assert printed.endswith("price\n─────\n    2\n(1 row)\n")
    for line, error in (
        (".table trades", "needs a name and a file"),
        (".table gaps a.csv", "the lake has one"),
    ):
        with pytest.raises(UsageError, match=error):
            shell.run(line)


@pytest.mark.parametrize("sql", REFUSED[::7])
def test_escapes_are_refused_with_files_as_tables(tmp_path: Path, store: LakeStore, sql: str) -> None:
    """A file that we opened opens no way to another one."""
    (tmp_path / "secret.csv").write_text("a,b\nhidden,1\n")
    tables = {"secret": read_table_file("secret", str(tmp_path / "secret.csv"))}
    (tmp_path / "lake").symlink_to(store.root)
    before = everything(tmp_path)
    with pytest.raises(LakewriterError):
        run(store, filled(tmp_path, sql), tables=tables)
    assert everything(tmp_path) == before
