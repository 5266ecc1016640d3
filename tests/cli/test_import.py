"""`lakewriter import`: its options, output and exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lakewriter.cli import cli
from lakewriter.errors import LakeError, LakewriterError, UsageError
from support.import_files import frame, lines, written
from support.running import plain_rows, run


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A directory of the archive's tree: two days of one series and one of another."""
    data = tmp_path / "files/data"
    written(data / "spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-06-30.zip", lines(0, 1439))
    written(data / "spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-07-01.zip", lines(2879))
    written(data / "futures/cm/daily/klines/BTCUSD_PERP/1m/BTCUSD_PERP-1m-2024-06-30.zip", lines(1439))
    return tmp_path / "files"


def imported(lake: Path, *arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["import", "--lake", str(lake), *map(str, arguments)])


def test_json(tmp_path, archive):
    """--json prints one object of counts; a second run adds nothing."""
    for added in (4, 0):
        result = imported(tmp_path / "lake", archive, "--json")
        assert (result.exception, result.exit_code, result.stderr) == (None, 0, "")
        counts = json.loads(result.stdout)
        assert counts.pop("seconds") >= 0
        assert counts == {
            "files": 3,
            "failed": 0,
            "rows": 4,
            "added": added,
            "replaced": 0,
            "corrections": 0,
            "left_out": {
                "files_of_other_series": 0,
                "rows_of_other_series": 0,
                "rows_not_closed": 0,
                "rows_twice": 0,
                "rows_contradicted": 0,
                "rows_disputed": 0,
                "rows_without_values": 0,
                "rows_bad": 0,
            },
            "dry_run": False,
            "at_least": [],
        }
    assert [row[:2] for row in plain_rows(tmp_path / "lake")] == [
        ("coin_futures", "BTCUSD_PERP"),
        *[("spot", "BTCUSDT")] * 3,
    ]


def test_sentence(tmp_path, archive):
    """Without --json it prints one sentence, and nothing on stderr."""
    result = imported(tmp_path / "lake", archive)
    assert result.stderr == ""
    assert re.fullmatch(
        r"3 files, 4 candles: 4 added, 0 replaced, 0 of them corrected in \d+\.\d s\n", result.stdout
    )
    one = imported(tmp_path / "lake", next(archive.rglob("BTCUSD_PERP*")))
    assert one.stdout.startswith("1 file, 1 candles: 0 added, ")


def test_dry_run(tmp_path, archive):
    """--dry-run reads and checks, prints the importable rows, and creates no lake."""
    result = imported(tmp_path / "lake", archive, "--dry-run")
    assert re.fullmatch(r"3 files, 4 candles can be imported, checked in \d+\.\d s\n", result.stdout)
    assert not (tmp_path / "lake").exists()
    assert json.loads(imported(tmp_path / "lake", archive, "--dry-run", "--json").stdout)["dry_run"] is True


def test_options_tell_what_names_do_not(tmp_path):
    """Market, symbol, interval and source come from the options if given."""
    path = written(tmp_path / "candles.csv", lines(0))
    arguments = ("--market", "usdt_futures", "--symbol", "ethusdt", "--interval", "1m", "--source", "stream")
    assert imported(tmp_path / "lake", path, *arguments).exit_code == 0
    rows = plain_rows(tmp_path / "lake", 'market, symbol, "interval", source')
    assert rows == [("usdt_futures", "ETHUSDT", "1m", "stream")]


def test_the_original_recorders_file(tmp_path):
    """A file of the original recorder needs no option."""
    frame(1440).to_parquet(tmp_path / "usdt_futures_BTCUSDT_1m.pqt")
    assert imported(tmp_path / "lake", tmp_path / "usdt_futures_BTCUSDT_1m.pqt").exit_code == 0
    assert len(plain_rows(tmp_path / "lake")) == 1440


def test_failures(tmp_path, archive):
    """A refused file is named on stderr with its row, and the exit code is 1; the others are imported."""
    bad = next(archive.rglob("BTCUSDT-1m-2024-07-01.zip"))
    written(bad, lines(1440) + lines(2879).replace("3.0", "0.1"))
    result = imported(tmp_path / "lake", archive, "--json")
    counts = json.loads(result.stdout)
    assert (counts["files"], counts["failed"], counts["added"]) == (3, 1, 3)
    assert result.stderr == f"lakewriter: {bad}: row 2: open high low close are 2.0 0.1 0.5 2.0\n"
    assert isinstance(result.exception, LakewriterError)
    assert result.exception.what == "import: 1 file was not imported"
    assert len(plain_rows(tmp_path / "lake")) == 3


def test_bad_rows(tmp_path):
    """--skip-bad-rows imports the other rows, names the first bad one on stderr, and counts them."""
    good = lines(0, 1, 2).splitlines()
    path = written(tmp_path / "BTCUSDT_1m.csv", "\n".join([good[0], "\x1b[2J,1", good[1], "x", good[2]]))
    strict = imported(tmp_path / "lake", path, "--market", "spot")
    assert isinstance(strict.exception, LakewriterError)
    assert "row 2" in strict.stderr
    result = imported(tmp_path / "lake", path, "--market", "spot", "--skip-bad-rows", "--json")
    assert (result.exception, result.exit_code) == (None, 0)
    assert (
        result.stderr
        == f"lakewriter: {path}: 2 bad rows left out, the first is row 2: has 2 values, not 12\n"
    )
    counts = json.loads(result.stdout)
    assert (counts["rows"], counts["left_out"]["rows_bad"]) == (3, 2)
    assert len(plain_rows(tmp_path / "lake")) == 3


@pytest.mark.parametrize("suffix", ["csv", "parquet", "ndjson", "json", "arrow"])
def test_an_export_of_the_lake_comes_back(tmp_path, suffix):
    """An import of `query -o` with several series restores the same lake, including candles without trades."""
    written(tmp_path / "in/usdt_futures_ETHUSDT_1m.csv", lines(0, 1))
    written(
        tmp_path / "in/spot_BTCUSDT_1m.csv",
        "timestamp,open,high,low,close,volume\n1719705600000,100,102,98,101,5\n",
    )
    assert imported(tmp_path / "lake", tmp_path / "in").exit_code == 0
    export = tmp_path / f"export.{suffix}"
    query = ["query", "--lake", str(tmp_path / "lake"), "FROM candles", "-o", str(export)]
    assert CliRunner().invoke(cli, query).exit_code == 0
    assert imported(tmp_path / "back", export).exit_code == 0
    assert plain_rows(tmp_path / "back", "*") == plain_rows(tmp_path / "lake", "*")


def test_many_failures(tmp_path):
    """Of many failures the first twenty are shown, the rest counted."""
    for number in range(25):
        written(tmp_path / f"files/S{number:02d}USDT-1m-2024-06-30.zip", lines(0))
    result = imported(tmp_path / "lake", tmp_path / "files")
    assert len(result.stderr.splitlines()) == 21
    assert result.stderr.splitlines()[-1] == "lakewriter: … and 5 more"
    assert isinstance(result.exception, LakewriterError)
    assert result.exception.what == "import: 25 files were not imported"
    assert result.exception.hint == "--market usdt_futures"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--market", "forex"], "market: 'forex' is unknown"),
        (["--symbol", "../x"], "symbol: '../x' cannot be a symbol"),
        (["--interval", "7m"], "interval: '7m' is unknown"),
        (["/absent.zip"], "/absent.zip: does not exist"),
    ],
)
def test_bad_arguments(tmp_path, archive, arguments, what):
    """An invalid argument is a usage error in one line, and creates nothing."""
    error = imported(tmp_path / "lake", archive, *arguments).exception
    assert isinstance(error, UsageError)
    assert error.what == what
    assert not (tmp_path / "lake").exists()


def test_nothing_to_import(tmp_path):
    """A directory without candle files is a usage error."""
    error = imported(tmp_path / "lake", tmp_path).exception
    assert isinstance(error, UsageError)
    assert error.what == f"import: no file of candles in {tmp_path}"


def test_a_lake_that_cannot_be(tmp_path, archive):
    """A file in the lake's place is an error of one line."""
    (tmp_path / "lake").write_text("")
    error = imported(tmp_path / "lake", archive).exception
    assert isinstance(error, LakeError)
    assert "is a file, not a directory" in error.what


def test_help():
    """The help has examples and each option, and importing the command line imports no command."""
    text = CliRunner().invoke(cli, ["import", "--help"]).stdout
    assert "lakewriter import usdt_futures_BTCUSDT_1m.pqt" in text
    for option in ("--market", "--symbol", "--interval", "--source", "--dry-run", "--json", "--lake"):
        assert option in text
    code = "import sys, lakewriter.cli as c; c.cli.main(['--help'], standalone_mode=False); print(sys.modules.keys())"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Import files of candles into the lake." in listed
    assert "pyarrow" not in listed


@pytest.mark.slow
def test_as_a_user(tmp_path, archive):
    """Data goes to stdout, one error line and its hint to stderr; the exit code is 0, 1 or 2 by the cause."""
    lake = str(tmp_path / "lake")
    done = run("import", str(archive), "--lake", lake, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["added"] == 4
    path = written(tmp_path / "BTCUSDT-1m-2024-06-30.zip", lines(0))
    failed = run("import", str(path), "--lake", lake)
    assert failed.returncode == 1
    assert failed.stderr == (
        f"lakewriter: {path}: its market is unknown\n"
        "lakewriter: import: 1 file was not imported\n  --market usdt_futures\n"
    )
    wrong = run("import", str(path), "--lake", lake, "--interval", "x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert run("import").returncode == 2


def test_quote_volume_of_no_price_is_taken_and_named(tmp_path: Path) -> None:
    """A quote volume in an unknown unit is imported with a note; verify uses the same word."""
    rows = "1704067200000,100,102,98,101,5,900000\n1704067260000,100,102,98,101,5,500\n"
    file = tmp_path / "BTCUSDT_1m.csv"
    file.write_text("open_time,open,high,low,close,volume,quote_volume\n" + rows)
    lake = str(tmp_path / "lake")
    done = CliRunner().invoke(cli, ["import", "--lake", lake, "--market", "spot", str(file)])
    assert done.exit_code == 0
    assert "1 of 2 candles: quote: no price from low to high makes it: quote_volume 900000.0" in done.stderr
    found = CliRunner().invoke(cli, ["verify", "--lake", lake, "--check", "candle", "--json"])
    assert found.exit_code == 1
    assert "quote" in found.stdout
