"""`lakewriter shell` with a script and on a terminal."""

import os
import pty
import re
import subprocess
import sys
import termios
import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from lakewriter.cli.shell.loop import _COMMANDS, Shell, read_statements
from lakewriter.cli.shell.prompt import _SqlCompleter, history_path, is_complete, toolbar_text
from lakewriter.cli.shell.statements import innermost_call, split_statements
from lakewriter.errors import UsageError
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.running import PATIENCE_S, run, wait_until

PIECES = [
    "SELECT 1",
    ";",
    " ",
    "\n",
    "'a;b'",
    '"c;d"',
    "-- e;f\n",
    "/* g;h */",
    "$$i;j$$",
    "$t$k;$$l$t$",
    "''",
    "AS x",
    "E'\\';'",
    ",",
]


@example(["/* g;h */", "SELECT 1", "/* g;h */"])
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_statements_are_split_where_the_engine_splits_them(pieces: list[str]) -> None:
    """With any quotes and comments, as many statements are found as by DuckDB."""
    text = "".join(pieces)
    with duckdb.connect() as connection:
        try:
            known = [each.query for each in connection.extract_statements(text + "\n;")]
        except duckdb.Error:
            return
    found, rest = split_statements(text + "\n;")
    assert rest == ""
    assert len(found) == len(known)


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_nothing_is_lost_by_splitting(pieces: list[str]) -> None:
    """Text without a final semicolon is returned as the rest."""
    text = "".join(pieces)
    found, rest = split_statements(text)
    assert text.endswith(rest)
    assert all(each in text for each in found)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", True), (" \n", True), ("-- a", True), (".help", True), ("SELECT 1;", True), ("SELECT 1; -- a", True),
        ("SELECT 1", False), ("SELECT ';'", False), ("SELECT ';", False), ("SELECT 1; SELECT 2", False),
        ("exit", True), ("help;", True), ("exit 1", False), ("\\q", True), ("SELECT 1 /* ;", False), ("SELECT $$;", False), ("SELECT 1 -- ;", False),
    ],
)  # fmt: skip
def test_enter_runs_what_is_whole(text: str, whole: bool) -> None:
    """Enter starts a new line until a semicolon ends the statement."""
    assert is_complete(text) is whole


def test_parts_come_with_their_last_line() -> None:
    """A statement is yielded as soon as it is complete, so an open pipe is answered."""
    lines = iter(["SELECT\n", "1; SELECT 2;\n", ".help\n", "SELECT '\n", ".quit\n", "';\n", "SELECT 3"])
    assert [part.strip() for part in read_statements(lines)] == [
        "SELECT\n1", "SELECT 2", ".help", "SELECT '\n.quit\n'", "SELECT 3",
    ]  # fmt: skip


def test_a_mark_ends_a_statement_too() -> None:
    """`\\G` ends a statement outside of quotes and comments, and asks for lines."""
    text = "SELECT 1\\G SELECT '\\G' -- \\G\n; SELECT 2\\G SELECT"
    assert split_statements(text) == (["SELECT 1\\G", "SELECT '\\G' -- \\G", "SELECT 2\\G"], " SELECT")
    assert is_complete("SELECT 1\\G")


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("FROM resample(", "resample"),
        ("FROM Resample ('spot', 'a(b', ", "resample"),
        ("FROM vwap('spot', lower(", "lower"),
        ("FROM vwap('spot', lower('X'), '1", "vwap"),
        ("FROM vwap('spot') AS v, (", ""),
        ("FROM vwap(1); SELECT ", ""),
        ("FROM vwap(1); FROM latest(", "latest"),
        ("SELECT 1)", ""),
        ("SELECT 1 -- vwap(", ""),
    ],
)
def test_a_call_is_known_by_its_open_bracket(before: str, name: str) -> None:
    """The signature shown is that of the function whose arguments are typed."""
    assert innermost_call(before) == name


def test_advice_is_about_what_is_being_typed() -> None:
    """While a function's arguments are typed, the line below the prompt shows its parameters."""
    assert toolbar_text("FROM vwap('spot', ") == (
        "vwap(market, symbol, interval, bucket := '1d', since := …, until := …, zone := 'UTC', shift := '0s')"
    )
    assert "UTC" in toolbar_text("SELECT sum(")


# The table of a user's file.
OWN = pa.table({"price": [1.0]})


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return make_lake(
        tmp_path_factory.mktemp("shell"),
        [rest_candle(n, symbol=symbol) for n in range(60) for symbol in ("BTCUSDT", "币USDT")],
    )


@pytest.mark.parametrize(
    ("before", "first"),
    [
        ("FROM can", ["candles", "candle_begin_time"]),
        ("SELECT vol", ["volume"]),
        ("sel", ["SELECT"]),
        ("FROM resample('sp", ["spot"]),
        ("SELECT 1 WHERE symbol = 'btc", ["BTCUSDT"]),
        ("SELECT 1 WHERE symbol = '币", ["币USDT"]),
        ("SELECT 'a'; FROM gap", ["gaps"]),
        ("SELECT 'a;b", []),
        ("SELECT ", []),
        (".ti", [".timer"]),
        (".timer o", []),
        ("SELECT 1 FROM ", ["candles"]),
        ("SELECT 1 FROM candles JOIN\n", ["candles"]),
        ("SELECT 1 FROM candles ", []),
        (".help v", ["vwap"]),
        (".schema g", ["gaps"]),
        (".schema tr", ["trades"]),
        (".run m", ["mine"]),
        ("FROM trad", ["trade_num", "trades"]),
        ("SELECT pri", ["price"]),
    ],
)
def test_completion(lake: LakeStore, before: str, first: list[str]) -> None:
    """Completion offers tables, columns, functions and keywords; in quotes symbols, markets and intervals."""
    found = _SqlCompleter(lake, _COMMANDS, {"trades": OWN}, lambda: ["vwap", "mine"]).get_completions(
        Document(before), CompleteEvent()
    )
    texts = [each.text for each in found]
    assert texts[: len(first)] == first
    assert bool(texts) == bool(first)


def test_completion_offers_symbols_alone(tmp_path: Path) -> None:
    """Only valid symbols are offered, also from percent-encoded directories."""
    lake = make_lake(tmp_path, [rest_candle(0)])
    (tmp_path / "market=spot" / "notes").mkdir()
    (tmp_path / "market=spot" / "symbol=%E5%B8%81USDT").mkdir()
    names = _SqlCompleter(lake, _COMMANDS, {"trades": OWN}, lambda: ["vwap", "mine"])

    def offered(before: str) -> list[str]:
        return [each.text for each in names.get_completions(Document(before), CompleteEvent())]

    assert offered("SELECT 'no") == []
    assert offered("SELECT '币") == ["币USDT"]


def test_completion_does_without_what_cannot_be_looked_into(tmp_path: Path) -> None:
    """An unreadable directory or a cycle of links does not disturb completion."""
    lake = make_lake(tmp_path, [rest_candle(0)])
    (tmp_path / "market=spot" / "symbol=RING").symlink_to("symbol=RING")
    found = _SqlCompleter(lake, _COMMANDS, {"trades": OWN}, lambda: ["vwap", "mine"]).get_completions(
        Document("SELECT 'sp"), CompleteEvent()
    )
    assert [each.text for each in found] == ["spot"]


def test_history_is_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The history is stored in XDG's state directory, or at its default."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "lakewriter" / "history"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert history_path() == Path.home() / ".local" / "state" / "lakewriter" / "history"


def shell(lake: LakeStore, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The environment of these tests may make Python's output unbuffered.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return run("shell", "--lake", str(lake.root), *arguments, stdin=text, environment=environment)


@pytest.mark.slow
def test_script_on_standard_input(lake: LakeStore, tmp_path: Path) -> None:
    """Statements and commands run in order, and each answer follows its statement."""
    file = tmp_path / "more.sql"
    file.write_text("SELECT 3 AS c;\n.mode csv\nSELECT 4 AS d")
    done = shell(
        lake,
        f"SELECT 1 AS a;\n.mode ndjson\nSELECT count(*)\nAS n FROM candles; SELECT 2 AS b;\n.read {file}\n",
    )
    assert done.stderr == ""
    assert done.stdout == 'a\n─\n1\n(1 row)\n{"n":120}\n{"b":2}\n{"c":3}\nd\n4\n'
    assert done.returncode == 0


@pytest.mark.slow
def test_lines_for_one_answer_or_for_all(lake: LakeStore) -> None:
    r"""`\G` shows one answer with a line per value; `.mode line` shows all answers so."""
    done = shell(lake, "SELECT 1 AS a, 2 AS b\\G\nSELECT 3 AS c;\n.mode line\nSELECT 4 AS d;\n\\G\n")
    assert done.stdout == "── row 1 ──\na  1\nb  2\n(1 row)\nc\n─\n3\n(1 row)\n── row 1 ──\nd  4\n(1 row)\n"
    assert done.stderr == ""


@pytest.mark.slow
def test_one_answer_goes_into_a_file(lake: LakeStore, tmp_path: Path) -> None:
    """`.once` writes the next answer in the format of the file's suffix; the one after is shown."""
    file = tmp_path / "a b.csv"
    done = shell(lake, f".once {file}\nSELECT 1 AS a;\nSELECT 2 AS b;\n")
    assert (done.stdout, done.stderr) == ("b\n─\n2\n(1 row)\n", "")
    assert file.read_text() == "a\n1\n"


def test_saved_queries_run(lake: LakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`.run` takes a name and values, and `.queries` lists the names."""
    (tmp_path / "mine.sql").write_text("-- Mine.\n-- :x = 1\nSELECT $x AS x")
    shell = Shell(str(lake.root), paged=False, queries=str(tmp_path))
    shell.run(".run mine 'x=a b'")
    shell.run(".run daily_ohlcv symbol=币USDT since=2024-06-30;")
    shell.run(".queries")
    printed = capsys.readouterr().out
    assert printed.startswith("x\n───\na b\n(1 row)\n")
    assert "币USDT" in printed
    assert "\nmine  Mine.\n" in printed
    for line, error in (
        (".run", "needs the name of a saved query"),
        (".run 'mine", "needs the name of a saved query"),
        (".run mine y=1", "query mine: there is no parameter y"),
        (".run mine 7", "'7' is not NAME=VALUE"),
        (".run nothing", "nothing is neither SQL nor a saved query"),
    ):
        with pytest.raises(UsageError, match=error):
            shell.run(line)


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_path_may_have_quotes(
    lake: LakeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], quote: str
) -> None:
    """A path with spaces is the same with and without quotes around it."""
    shell = Shell(str(lake.root), paged=False)
    shell.run(f".once {quote}{tmp_path}/my trades.csv{quote}")
    shell.run("SELECT 7 AS price;")
    shell.run(f".table trades {quote}{tmp_path}/my trades.csv{quote}")
    (tmp_path / "my query.sql").write_text("FROM trades;")
    shell.run(f".read {quote}{tmp_path}/my query.sql{quote}")
    assert capsys.readouterr().out == "trades: 1 rows: price\nprice\n─────\n7\n(1 row)\n".replace(
        "\n7", "\n    7"
    )


@pytest.mark.slow
def test_commands(lake: LakeStore) -> None:
    """Each command does what .help describes."""
    done = shell(lake, "help\n.help vwap\n.tables\n.schema gaps\n.timer on\nSELECT 1;\n.quit\nSELECT nope;\n")
    assert done.returncode == 0
    assert all(name in done.stdout for name in _COMMANDS)
    assert "\nresample(market, symbol, interval, bucket)\n    Symbols in" in done.stdout
    assert "\nvwap(market, symbol, interval, bucket := '1d', since := " in done.stdout
    assert "detected_at  TIMESTAMP WITH TIME ZONE" in done.stdout
    assert done.stderr.endswith(" s\n")


@pytest.mark.slow
def test_a_command_may_end_as_sql_does(lake: LakeStore) -> None:
    """A semicolon after a command is ignored."""
    done = shell(lake, ".mode csv ;\n.help latest;\nSELECT 1 AS a;\n.quit;\nSELECT nope;\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("those of candles\na\n1\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT nope FROM candles;", "sql: Referenced column \"nope\" not found in FROM clause!"),
        ("DROP TABLE candles;", "sql: DROP is not allowed"),
        (".nope", ".nope: unknown command"),
        (".help nope", ".help: nope is not one of candles_of, filled, latest"),
        (".mode parquet", ".mode: parquet is not one of table, line, csv, tsv, json, ndjson, markdown"),
        (".schema trades", ".schema: trades is not one of candles"),
        (".read", ".read: needs a file"),
        (".once", ".once: needs a file"),
        (".once --force", ".once: needs a file"),
        (".once x.xls\nSELECT 1;", "output: x.xls: .xls is not a known format"),
        (".read /nowhere.sql", ".read: /nowhere.sql: No such file or directory"),
        (".read ~nosuchuser/x.sql", ".read: ~nosuchuser/x.sql: Could not determine home directory"),
        (".read a\0b", ".read: a\\u0000b: embedded null byte"),
        (".once ~nosuchuser/x.csv\nSELECT 1;", "output: ~nosuchuser/x.csv: Could not determine home directory"),
        ("SELECT $x;", "query: $x has no value"),
    ],
)  # fmt: skip
def test_first_error_ends_a_script(lake: LakeStore, text: str, message: str) -> None:
    """The first error is one line, and ends the script."""
    done = shell(lake, f"{text}\nSELECT 7 AS later;\n")
    assert done.returncode in (1, 2)
    assert done.stderr.splitlines()[0].startswith(f"lakewriter: {message}")
    assert "later" not in done.stdout


@pytest.mark.slow
def test_answers_come_in_the_order_of_what_was_asked(lake: LakeStore) -> None:
    """In a pipe, the output of commands and statements keeps its order."""
    said = shell(lake, ".help latest\nSELECT 7 AS a;\n.schema gaps\n").stdout
    places = [said.index(text) for text in ("latest(since", "a\n─\n7\n", "gaps:\n", "detected_at")]
    assert places == sorted(places)


@pytest.mark.slow
def test_what_nobody_reads_is_no_error(lake: LakeStore) -> None:
    """A reader that leaves, such as `| head`, is no error for a command's output."""
    command = f"{sys.executable} -m lakewriter shell --lake {lake.root} <<< .tables | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_script_that_is_no_text_is_told(lake: LakeStore) -> None:
    """Statements before the first invalid byte are answered; the rest is one error line."""
    command = [sys.executable, "-m", "lakewriter", "shell", "--lake", str(lake.root)]
    text = b".mode csv\nSELECT 1 AS a;\nSELECT '\xff';\n"
    done = subprocess.run(command, input=text, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (2, b"a\n1\n")
    assert done.stderr == b"lakewriter: shell: standard input is not UTF-8 text\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["shell", "query -"])
def test_closed_standard_input_is_told(lake: LakeStore, command: str) -> None:
    """A closed standard input is an error with a hint."""
    line = f"{sys.executable} -m lakewriter --lake {lake.root} {command} <&-"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    said = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert said[0] == f"lakewriter: {command.split()[0]}: standard input is closed"
    assert said[1].startswith("  lakewriter ")


@pytest.mark.slow
def test_file_that_reads_itself_has_an_end(lake: LakeStore, tmp_path: Path) -> None:
    """A file that reads itself stops at the maximum depth."""
    file = tmp_path / "self.sql"
    file.write_text(f".read {file}\n")
    assert "files are nested more than 8 deep" in shell(lake, f".read {file}\n").stderr


class Terminal:
    """A shell on a terminal of 30 lines and 100 columns."""

    def __init__(self, lake: LakeStore, state: Path) -> None:
        self._parent, child = pty.openpty()
        termios.tcsetwinsize(child, (30, 100))
        env = os.environ | {"XDG_STATE_HOME": str(state), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        command = [sys.executable, "-m", "lakewriter", "shell", "--lake", str(lake.root), "--no-pager"]
        self.process = subprocess.Popen(
            command, stdin=child, stdout=child, stderr=child, env=env, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(child)
        self._seen, self._reading = "", threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while part := os.read(self._parent, 65536):
                text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", part.decode(errors="replace"))
                with self._reading:
                    self._seen += text
        except OSError:
            return

    def type(self, text: str) -> None:
        os.write(self._parent, text.encode())

    def until(self, text: str) -> None:
        """Wait for a text after the previous one."""
        self.until_like(re.escape(text))

    def until_like(self, pattern: str) -> None:
        """Wait for a text that matches, after the previous one."""
        wait_until(lambda: re.search(pattern, self._seen) is not None)
        with self._reading:
            found = re.search(pattern, self._seen)
            assert found is not None
            self._seen = self._seen[found.end() :]


@pytest.mark.slow
def test_conversation(lake: LakeStore, tmp_path: Path) -> None:
    """One session: several lines, fresh candles, Ctrl-C in a query and a line, an error, Ctrl-D, the history."""
    terminal = Terminal(lake, tmp_path)
    terminal.until("lake>")
    terminal.type("SELECT count(*) AS n\r")
    terminal.until("..")
    terminal.type("FROM candles WHERE symbol = 'ETHUSDT';\r")
    terminal.until("(1 row)")
    journal = create_journal(lake.root, "test")
    journal.commit([rest_candle(n, symbol="ETHUSDT", begin_ms=BEGIN_MS + n * 60_000) for n in range(77)])
    terminal.until("lake>")
    terminal.type("SELECT count(*) + 1000 AS m FROM candles WHERE symbol = 'ETHUSDT';\r")
    terminal.until("1077")
    journal.close()
    terminal.until("lake>")
    terminal.type("SELECT count(*) FROM range(1000000000000) WHERE hash(range) = 1;\r")
    terminal.until_like(r" \d+ s")
    terminal.type("\x03")
    terminal.until("stopped")
    terminal.until("lake>")
    terminal.type("SELECT half")
    terminal.until("half")
    terminal.type("\x03")
    terminal.until("lake>")
    terminal.type("SELECT nope FROM candles;\r")
    terminal.until('sql: Referenced column "nope" not found')
    terminal.until("Candidate bindings")
    terminal.until("lake>")
    terminal.type("SELECT ETHUSDT FROM candles;\r")
    terminal.until("put text in single quotes: 'ETHUSDT'")
    terminal.until("lake>")
    terminal.type("\x04")
    assert terminal.process.wait(PATIENCE_S) == 0
    assert "SELECT nope FROM candles;" in (tmp_path / "lakewriter" / "history").read_text()
