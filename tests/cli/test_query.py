"""`lakewriter query` on a terminal and in a pipe."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import openpyxl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lakewriter.cli import cli
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.query.macros import MACROS
from lakewriter.query.output.formats import FORMATS
from lakewriter.query.scan.held_files import can_hold
from support import terminals, warm_processes
from support.lakes import make_lake, rest_candle
from support.piped import Piped
from support.running import PATIENCE_S

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("cli") / "lake"
    make_lake(root, [rest_candle(n) for n in range(100)], hot=[rest_candle(100)])
    return str(root)


def ask(lake: str, *arguments: str, stdin: str = "") -> str:
    result = CliRunner().invoke(
        cli, ["--lake", lake, "query", *arguments], input=stdin, catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def process(*arguments: str | bytes, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    command = ["query", *arguments]
    return warm_processes.run(command, stdin=stdin, environment=os.environ | more, timeout_s=PATIENCE_S)


def test_table_on_standard_output(lake: str) -> None:
    """A statement prints a table; `--lake` may precede or follow the command."""
    done = process("--lake", lake, "SELECT count(*) AS n FROM candles")
    assert done.stdout.decode() == "  n\n───\n101\n(1 row)\n"
    assert done.stderr == b""
    assert done.returncode == 0


def test_broken_sql_exits_1_in_two_lines(lake: str) -> None:
    """Broken SQL prints one line and the position, without a traceback or output."""
    done = process("--lake", lake, "SELECT nope FROM candles", TZ="Asia/Tokyo")
    assert done.returncode == 1
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0] == 'lakewriter: sql: Referenced column "nope" not found in FROM clause!'
    assert b"Traceback" not in done.stderr
    assert b"leaked" not in done.stderr


def test_an_empty_table_says_why(lake: str) -> None:
    """For a table, the reason is on standard error; for data, nothing is printed."""
    done = process("--lake", lake, "FROM candles WHERE symbol = 'btcusdt'")
    assert done.stdout.endswith(b"\n(0 rows)\n")
    assert done.stderr == b"no candles: spot has no symbol btcusdt; there is BTCUSDT\n"
    assert done.returncode == 0
    done = process("--lake", lake, "FROM candles WHERE symbol = 'btcusdt'", "--format", "csv")
    assert (done.returncode, done.stderr) == (0, b"")


def test_reader_that_goes_away_is_no_error(lake: str) -> None:
    """A reader that leaves, such as `| head`, is no error."""
    command = (
        f"{sys.executable} -m lakewriter query --lake {lake} 'FROM range(3000000)' --format csv | head -n 2"
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.stdout == b"range\n0\n"
    assert done.stderr == b""
    assert done.returncode == 0


def test_ctrl_c_stops_a_long_query(lake: str) -> None:
    """Ctrl-C ends a query of minutes at once, after its first rows, with exit 130."""
    sql = "FROM range(100000000000) WHERE range < 200000 OR range = -1"
    with Piped("query", "--lake", lake, sql, "--format", "csv") as child:
        seen = b""
        while b"\n40000\n" not in seen:
            seen += (part := os.read(child.stdout.fileno(), 65536))
            assert part, "it ended by itself"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(PATIENCE_S)
    assert child.returncode == 130
    assert err.decode().strip() == "stopped"


def test_text_that_is_no_text_is_told(lake: str) -> None:
    """Bytes that are not UTF-8 are a usage error of one line, in each argument."""
    for done in (
        process("--lake", lake, "-", stdin=b"select \xff"),
        process("--lake", lake, b"select '\xff'"),
        process("--lake", lake, "select $x", "-p", b"x=\xff"),
    ):
        assert done.returncode == 2
        assert b"not UTF-8 text" in done.stderr.splitlines()[0]
        assert b"Traceback" not in done.stderr


def test_a_low_limit_of_open_files_is_raised_where_files_are_held(lake: str) -> None:
    """The usual limit of 1,024 is raised only where files are held, and only up to the hard limit."""
    code = f"""
import resource
from lakewriter.cli import cli
resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
cli.main(["query", "SELECT 1", "--lake", {lake!r}, "--format", "csv"], standalone_mode=False)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE_S, check=True)
    assert (int(done.stdout.split()[-1]) > 300) == can_hold()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["SELECT 1"], ["FROM range(3000000)", "--format", "csv"], ["--list"]])
def test_full_disk_is_one_line(lake: str, arguments: list[str]) -> None:
    """A standard output without space is an error of one line, without a traceback."""
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "lakewriter", "query", "--lake", lake, *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    assert done.stderr == b"lakewriter: output: standard output: No space left on device\n"
    assert done.returncode == 1


def test_output_to_a_descriptor(lake: str) -> None:
    """`-o /dev/stdout` writes to standard output."""
    done = process("--lake", lake, "SELECT 1 AS a", "--format", "csv", "-o", "/dev/stdout")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\n1\n", b"")


def test_any_number_of_rows_may_be_asked_for(lake: str) -> None:
    """A huge row limit prints all rows."""
    assert ask(lake, "SELECT open FROM candles", "--max-rows", "9" * 20).endswith("(101 rows)\n")


# A bar, drawn over and wiped.
BAR = re.compile(r"(\r\x1b\[K[^\r\n]*)*\r\x1b\[K")


def on_terminal(
    lake: str,
    sql: str,
    *more: str,
    screen: tuple[int, int] = (24, 80),
    with_bar: bool = False,
    **env: str,
) -> tuple[int, str]:
    """Return the output on a terminal of this size, without the progress bar."""
    code, text = terminals.on_terminal("query", "--lake", lake, sql, *more, screen=screen, **env)
    return code, text if with_bar else BAR.sub("", text)


def test_terminal_shows_forty_rows_and_no_binary(lake: str) -> None:
    """On a terminal a long table omits its middle rows, and Parquet is refused with a hint."""
    code_0, shown = on_terminal(lake, "SELECT open FROM candles", "--no-pager")
    assert code_0 == 0
    assert len(shown.splitlines()) == 2 + 41 + 1
    assert shown.splitlines()[-1] == "(101 rows, 40 shown)"
    code_2, refused = on_terminal(lake, "SELECT open FROM candles", "--format", "parquet")
    assert code_2 == 2, refused
    assert (
        refused
        == "lakewriter: output: parquet cannot be shown on a terminal\n  -o FILE.parquet, or pipe it\n"
    )


def test_pager_gets_what_is_longer_than_the_screen(lake: str, tmp_path: Path) -> None:
    """A table longer than the screen goes to $PAGER in full width; a shorter one does not."""
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho PAGED\ncat\n")
    pager.chmod(0o755)
    code, shown = on_terminal(lake, "FROM candles", PAGER=str(pager))
    assert code == 0
    assert shown.startswith("PAGED\nmarket")
    assert " source\n" in shown
    assert shown.endswith("(101 rows, 40 shown)\n")
    _, shown = on_terminal(lake, "FROM candles", screen=(50, 80), PAGER=str(pager))
    assert "PAGED" not in shown
    assert shown.splitlines()[-1].startswith("(101 rows, 40 shown; 18 columns,")
    assert shown.endswith(" shown; --format line shows all)\n")
    _, shown = on_terminal(lake, "FROM candles", "--no-pager", PAGER=str(pager))
    assert "PAGED" not in shown
    _, shown = on_terminal(lake, "FROM candles", "--format", "csv", PAGER=str(pager))
    assert "PAGED" not in shown
    assert len(shown.splitlines()) == 102


@pytest.mark.parametrize("pager", ["", "/nowhere/pager -x", "'"])
def test_pager_that_is_none_is_done_without(lake: str, pager: str) -> None:
    """With an empty, absent or misspelled PAGER the table goes to the terminal."""
    code, shown = on_terminal(lake, "SELECT open FROM candles", PAGER=pager)
    assert code == 0
    assert shown.endswith("(101 rows, 40 shown)\n")


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["csv", "ndjson"])
def test_no_control_character_of_a_value_reaches_a_terminal(lake: str, format_name: str) -> None:
    """In any format a terminal gets escaped text; a file and a pipe get the value unchanged."""
    sql = "SELECT 'a' || chr(27) || ']0;x' || chr(7) || chr(155) || '31m' || chr(8238) || 'é' AS x"
    code, shown = on_terminal(lake, sql, "--format", format_name)
    assert code == 0
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert "é" in shown
    assert (
        process("--lake", lake, sql, "--format", "csv").stdout
        == 'x\n"a\x1b]0;x\x07\x9b31m\u202eé"\n'.encode()
    )


def test_pager_that_is_left_early_is_no_error(lake: str) -> None:
    """Leaving the pager early prints no error."""
    assert on_terminal(lake, "SELECT repeat('x', 5000) AS x FROM candles", PAGER="true") == (0, "")


def test_progress_is_shown_after_a_second_and_wiped(lake: str) -> None:
    """A long statement shows a progress bar, which is removed before the answer."""
    sql = "SELECT count(*) AS n FROM range(200000) a, range(100000) b WHERE hash(a.range + b.range) = 1"
    code, shown = on_terminal(lake, sql, "--timeout", "3s", with_bar=True)
    assert code == 1
    bar, told = shown.rsplit("\r\x1b[K", 1)
    assert re.search(r"\r\x1b\[K[━╺─]{30} +\d+% \d+ s|running \d+ s", bar)
    assert told.splitlines()[0] == "lakewriter: sql: not done after 3 s"
    assert on_terminal(lake, "SELECT 1 AS a") == (0, "a\n─\n1\n(1 row)\n")


def test_binary_goes_through_a_pipe(lake: str, tmp_path: Path) -> None:
    """A pipe gets a whole Parquet file."""
    done = process("--lake", lake, "FROM candles", "--format", "parquet")
    (tmp_path / "x.parquet").write_bytes(done.stdout)
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 101


def test_pipes_get_every_row(lake: str) -> None:
    """A pipe gets all rows unless --max-rows is given."""
    assert len(ask(lake, "SELECT open FROM candles").splitlines()) == 2 + 101 + 1
    assert ask(lake, "SELECT open FROM candles", "--max-rows", "4").splitlines()[-1] == "(101 rows, 4 shown)"


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_written(lake: str, tmp_path: Path, name: str) -> None:
    """Each format can be written to a file, without output on standard output."""
    path = tmp_path / "answer"
    assert ask(lake, "FROM candles", "--format", name, "-o", str(path)) == ""
    assert path.stat().st_size > 1000
    assert [left.name for left in tmp_path.iterdir()] == ["answer"]


# An entry of the table, and a writer.
NEW_FORMAT = """
import sys
from lakewriter.query.output.formats import FORMATS, Format
FORMATS["psv"] = Format((".psv",), note="with bars")
from lakewriter.query.output.writers import writes

@writes("psv")
def write_psv(answer, out, limits):
    out.write("\\t".join(answer.schema.names).encode() + b"\\n")

from lakewriter.cli import main
sys.argv = ["lakewriter", *sys.argv[1:]]
main()
"""


def with_new_format(lake: str, *arguments: str, stdin: str = "") -> str:
    command = [sys.executable, "-c", NEW_FORMAT, *arguments]
    if arguments[-1] != "--help":
        command += ["--lake", lake]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_new_format_is_an_entry_and_a_writer(lake: str, tmp_path: Path) -> None:
    """`--format`, `-o`, `--help`, `.mode` and `.help` follow the table of formats."""
    sql, header = "SELECT 1 AS a, 2 AS b", "a\tb\n"
    assert with_new_format(lake, "query", sql, "--format", "psv") == header
    assert with_new_format(lake, "query", sql, "-o", str(tmp_path / "x.psv")) == ""
    assert (tmp_path / "x.psv").read_text() == header
    assert "|psv]" in with_new_format(lake, "query", "--help")
    shown = with_new_format(lake, "shell", stdin=f".mode psv\n{sql};\n.help\n")
    assert shown.startswith(header)
    assert "markdown or psv (with bars)\n" in shown


def test_suffix_chooses_the_format(lake: str, tmp_path: Path) -> None:
    """`-o x.ndjson` needs no `--format`."""
    ask(lake, "FROM candles", "-o", str(tmp_path / "x.ndjson"))
    rows = [json.loads(line) for line in (tmp_path / "x.ndjson").read_text().splitlines()]
    assert len(rows) == 101
    assert {row["candle_begin_time"][-1] for row in rows} == {"Z"}


def test_an_existing_file_stays(lake: str, tmp_path: Path) -> None:
    """`-o` refuses an existing file before the statement runs, unless `--force` is set."""
    path = tmp_path / "x.csv"
    path.write_text("mine")
    done = process("--lake", lake, "SELECT nothing FROM candles", "-o", str(path))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"lakewriter: output: {path} exists\n  --force overwrites it\n"
    assert path.read_text() == "mine"
    ask(lake, "SELECT 1 AS a", "-o", str(path), "--force")
    assert path.read_text() == "a\n1\n"
    assert [left.name for left in tmp_path.iterdir()] == ["x.csv"]


def test_own_queries_are_found(lake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--queries`, the environment or lakewriter.toml names the directory of a user's own queries."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.sql").write_text("-- Mine.\n-- :x = 1   a number\nSELECT $x::INT AS x")
    path = str(tmp_path / "mine")
    assert ask(lake, "mine", "--queries", path, "-p", "x=7", "--format", "csv") == "x\n7\n"
    assert "mine  Mine.\n    x=1  a number\n" in ask(lake, "--list", "--queries", path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="mine is neither SQL nor a saved query"):
        ask(lake, "mine")
    (tmp_path / "lakewriter.toml").write_text('queries = "mine"\n')
    assert ask(lake, "mine", "--format", "csv") == "x\n1\n"
    monkeypatch.setenv("LAKEWRITER_QUERIES", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"queries: .*none: No such file or directory"):
        ask(lake, "mine")
    assert ask(lake, "SELECT 2 AS x", "--format", "csv") == "x\n2\n"


def test_a_workbook_goes_into_a_pipe(lake: str) -> None:
    """A pipe, which has no position, gets a whole workbook."""
    done = process("--lake", lake, "SELECT open FROM candles", "--format", "xlsx")
    sheet = openpyxl.load_workbook(io.BytesIO(done.stdout)).active
    assert sheet is not None
    assert sheet.max_row == 102


def test_sql_from_standard_input_and_file(lake: str, tmp_path: Path) -> None:
    """`-` reads standard input, and `-f` a file with defaults for parameters."""
    assert ask(lake, "-", "--format", "csv", stdin="SELECT count(*) AS n\nFROM candles;\n") == "n\n101\n"
    file = tmp_path / "mine.sql"
    file.write_text(
        "-- Mine.\n-- :least = 150  the lowest open\nSELECT count(*) AS n FROM candles WHERE open >= $least\n"
    )
    assert ask(lake, "-f", str(file), "--format", "csv") == "n\n51\n"
    assert ask(lake, "-f", str(file), "-p", "least=200", "--format", "csv") == "n\n1\n"


def test_saved_query_by_name(lake: str) -> None:
    """A bare name runs the saved query, with given parameters."""
    answer = list(csv.reader(ask(lake, "daily_ohlcv", "--format", "csv").splitlines()))
    assert answer[1][:3] == ["BTCUSDT", "2024-06-30", "100"]
    assert ask(lake, "daily_ohlcv", "-p", "symbol=ETHUSDT").endswith("(0 rows)\n")


def test_list_needs_no_lake(tmp_path: Path) -> None:
    """`--list` prints each saved query with its parameters, and each macro with its meaning."""
    shown = ask(str(tmp_path / "nowhere"), "--list")
    assert "vwap  The volume-weighted" in shown
    assert "    symbol=BTCUSDT" in shown
    assert "resample(market, symbol, interval, bucket, since :=" in shown
    assert all(f"\n{macro.signature}\n    {macro.what}\n" in shown for macro in MACROS.values())


def test_errors_are_no_data() -> None:
    """With standard error closed, errors are dropped instead of printed on standard output."""
    command = f"{sys.executable} -m lakewriter query --lake /nowhere 'SELECT 1' 2>&-"
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("stderr", ["2>&1", "2>&-", "2>/dev/full"])
def test_the_deaf_are_ended(stderr: str) -> None:
    """The process of a statement that ignores its timeout is killed."""
    script = (
        "import time; from lakewriter.cli.answer import kill_after\nwith kill_after(-2.9): time.sleep(50)"
    )
    command = f"{sys.executable} -c '{script}' {stderr}"
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, timeout=PATIENCE_S, check=False)
    said = b"lakewriter: sql: not done after -2.9 s, and the engine ignores interrupts\n"
    assert (done.returncode, done.stdout) == (1, said if stderr == "2>&1" else b"")


def test_help_has_examples() -> None:
    """Help has examples, and starts without the engine."""
    script = (
        "import sys; from lakewriter.cli import cli\n"
        "cli.main(['query', '--help'], standalone_mode=False)\n"
        "sys.exit(any(name in sys.modules for name in ('duckdb', 'pyarrow', 'pandas')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0
    assert b'lakewriter query "SELECT symbol, max(high) FROM candles' in done.stdout
    assert b"FROM candles WHERE symbol = \\$s" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "query: no SQL given"),
        (["SELECT 1", "-f", "x.sql"], "query: SQL is given twice"),
        (["-f", "nowhere.sql"], "query: nowhere.sql: No such file or directory"),
        (["vwpa"], "query: vwpa is neither SQL nor a saved query"),
        (["vwap", "-p", "nope=1"], "query vwap: there is no parameter nope"),
        (["SELECT 1", "-p", "nope=1"], "query: there is no parameter nope"),
        (["SELECT $x"], "query: $x has no value"),
        (["SELECT 1", "-p", "nope"], "query: -p 'nope' is not NAME=VALUE"),
        (["SELECT 1", "-o", ""], "query: -o '' names no file"),
        (["SELECT 1", "-o", "x.csv.gz"], "output: x.csv.gz: .gz is not a known format"),
        (["SELECT 1", "-o", "/nowhere/x.csv"], "output: /nowhere/x.csv: No such file or directory"),
    ],
)
def test_wrong_arguments_exit_2(lake: str, arguments: list[str], message: str) -> None:
    """Each wrong argument is named, with a correct example."""
    with pytest.raises(UsageError) as raised:
        ask(lake, *arguments)
    assert raised.value.what.startswith(message)
    assert raised.value.exit_code == 2


def test_output_never_goes_into_the_lake(lake: str) -> None:
    """An output file inside the lake is refused."""
    with pytest.raises(UsageError, match="inside the lake"):
        ask(lake, "FROM candles", "-o", f"{lake}/market=spot/x.parquet")
    assert not list(Path(lake).rglob("x.parquet"))


def test_failed_query_writes_no_file(lake: str, tmp_path: Path) -> None:
    """A failed statement leaves no file."""
    with pytest.raises(LakewriterError):
        ask(lake, "SELECT nope", "-o", str(tmp_path / "x.csv"))
    assert not list(tmp_path.iterdir())


def test_absent_lake_is_told(tmp_path: Path) -> None:
    """A query of an absent lake is an error with its name."""
    with pytest.raises(LakewriterError, match="does not exist"):
        ask(str(tmp_path / "nowhere"), "SELECT 1")
