"""Answers, errors and progress as a notebook or an interpreter shows them."""

import re
import traceback
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lakewriter import EmptyAnswerWarning, LakewriterError, Result
from lakewriter.errors import LakeError, UsageError
from lakewriter.query.python.notebook_progress import NotebookProgress, notebook_progress, progress_html
from lakewriter.query.python.reader import Lake, open_lake
from lakewriter.query.python.short_traceback import short_traceback
from lakewriter.query.session import run
from support.lakes import make_lake, rest_candle


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A hundred candles."""
    root = tmp_path_factory.mktemp("notebook")
    make_lake(root, [rest_candle(n) for n in range(100)])
    return open_lake(root)


def test_an_answer_is_shown_as_a_table(lake: Lake) -> None:
    """A long answer shows its first and last rows with their numbers, a short one all rows."""
    sql = "SELECT candle_begin_time AS t, close, '<b>' AS html FROM candles ORDER BY t"
    answer = lake.query(sql)
    lines = repr(answer).splitlines()
    assert re.split(r"\s+", lines[5]) == ["4", "2024-06-30", "00:04:00+00:00", "105.0", "<b>"]
    assert lines[6].split() == ["..", "...", "...", "..."]
    assert re.split(r"\s+", lines[7]) == ["95", "2024-06-30", "01:35:00+00:00", "196.0", "<b>"]
    assert lines[-1] == "[100 rows × 3 columns]"
    html = answer._repr_html_()
    assert html.count("<tr") == 12 and "&lt;b&gt;" in html and "<b>" not in html
    assert "<th>95</th>" in html and html.endswith("<p>100 rows × 3 columns</p>")
    short = lake.query(f"{sql} LIMIT 60")
    assert short._repr_html_().count("<tr") == 61
    assert repr(lake.query("SELECT 1 AS one WHERE false")).endswith("[0 rows × 1 columns]")


@pytest.mark.parametrize(("rows", "least"), [(None, 10), (20, None), (8, 40), (60, 9), (100, 10), (99, 90)])
def test_pandas_options_choose_the_rows(lake: Lake, rows: int | None, least: int | None) -> None:
    """pandas' options apply to a shown answer as to a frame."""
    answer = lake.query("SELECT close FROM candles ORDER BY candle_begin_time")
    with pd.option_context(
        "display.max_rows", rows, "display.min_rows", least, "display.show_dimensions", False
    ):
        assert repr(answer) == f"{answer.df()!r}\n[100 rows × 1 columns]"


def test_other_libraries_take_an_answer(lake: Lake) -> None:
    """Polars, pyarrow, pandas and DuckDB read an answer's Arrow stream."""
    answer = lake.query("SELECT symbol, close FROM candles")
    assert pl.DataFrame(answer).equals(answer.pl())
    assert pa.table(answer).equals(answer.arrow())
    if hasattr(pd.DataFrame, "from_arrow"):  # since pandas 3
        assert pd.DataFrame.from_arrow(answer).shape == (100, 2)
    assert duckdb.sql("SELECT count(*) FROM answer").fetchall() == [(100,)]
    assert lake.query("SELECT count(*) FROM mine", tables={"mine": answer}).rows() == [(100,)]


@pytest.mark.parametrize(
    ("ask", "kind", "hint"),
    [
        (lambda lake: lake.query("SELECT price FROM candles"), LakewriterError, "the column is called close here"),
        (lambda lake: lake.candles("spot", "BTCUSD", "1m"), UsageError, "Lake.series() lists the series"),
        (lambda lake: lake.matrix("price", "spot", "*", "1m"), UsageError, "choose from: open"),
        (lambda lake: lake.query(5), UsageError, "FROM candles"),
        (lambda lake: lake.query("SELECT 1", ["BTCUSDT"]), UsageError, "for $symbol"),
        (lambda lake: lake.series("moon"), UsageError, "choose from: spot"),
        (lambda lake: open_lake("/nowhere/at/all"), LakeError, ""),
    ],
)  # fmt: skip
def test_an_error_is_short_and_has_its_hint(
    lake: Lake, ask: Callable[[Lake], object], kind: type, hint: str
) -> None:
    """The traceback has the caller's line and one more frame; the hint follows the message."""
    with pytest.raises(kind) as raised:
        ask(lake)
    frames = traceback.extract_tb(raised.value.__traceback__)
    assert [frame.name for frame in frames[-2:]] == ["<lambda>", "call"]
    text = "".join(traceback.format_exception(raised.value))
    assert text.count("File ") == 3 and "During handling" not in text and hint in text


def test_a_bug_keeps_its_frames() -> None:
    """Only expected errors are shortened."""

    def broken() -> float:
        return 1 / 0

    with pytest.raises(ZeroDivisionError) as raised:
        short_traceback(broken)()
    assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "broken"


def test_an_answer_without_candles_is_a_warning(lake: Lake) -> None:
    """The warning has the command line's reason, at the caller's line, also for a count of 0."""
    for sql in (
        "FROM candles WHERE symbol = 'BTCUSD'",
        "SELECT count(*) FROM candles WHERE symbol = 'BTCUSD'",
    ):
        with pytest.warns(EmptyAnswerWarning, match="spot has no symbol BTCUSD; there is BTCUSDT") as caught:
            lake.query(sql)
        assert caught[0].filename == __file__
    assert len(lake.query("FROM candles WHERE close < 0")) == 0


def test_progress_is_shown_and_removed(tmp_path: Path) -> None:
    """A slow statement shows a bar with the seconds, which is removed at the end."""
    store = make_lake(tmp_path, [rest_candle(0)])
    shown: list[str] = []
    progress = NotebookProgress(shown.append, delay_s=0)
    rows = Result(run(store, "SELECT sum(hash(range)) > 0 FROM range(20_000_000)", limits=progress)).rows()
    progress.hide()
    assert rows == [(True,)] and shown[-1] == ""
    assert len(shown) > 1 and all(
        re.fullmatch(r"<progress.*</progress>.* \d+ s", html) for html in shown[:-1]
    )


def test_a_fast_statement_shows_nothing(lake: Lake) -> None:
    """There is no bar in the first second, and none outside of a notebook."""
    shown: list[str] = []
    progress = NotebookProgress(shown.append)
    run(lake._store, "SELECT 1", limits=progress)
    progress.hide()
    assert shown == []
    with notebook_progress() as outside:
        assert outside is None


def test_the_bar_says_what_is_known() -> None:
    """Without an estimate the bar has no value."""
    assert progress_html(0.254, 3.4) == '<progress value="0.254"></progress> 25%, 3 s'
    assert progress_html(None, 3.4) == "<progress></progress> 3 s"


@pytest.mark.slow
def test_a_kernel_shows_tables_errors_and_progress(tmp_path: Path) -> None:
    """A real notebook shows a table, a short error, a bar that is removed, and completes names."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    make_lake(tmp_path, [rest_candle(n) for n in range(100)])
    cells = [
        f"import lakewriter; lake = lakewriter.open_lake({str(tmp_path)!r}); lake.query('FROM candles')",
        "lake.query('SELECT nope FROM candles')",
        "import lakewriter.query.python.notebook_progress as p; p.DELAY_S = 0.0",
        "lake.query('SELECT sum(hash(range)) > 0 FROM range(200_000_000)').rows()",
        "from IPython.core.completer import provisionalcompleter; completer = get_ipython().Completer",
        "with provisionalcompleter(): found = [c.text for c in completer.completions('lake.ma', 7)]",
        "found",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, allow_errors=True, timeout=120).execute()
    table, error, _, slow, *_, names = (cell.outputs for cell in book.cells)
    assert "<table" in table[-1]["data"]["text/html"]
    lines = "\n".join(error[0]["traceback"]).splitlines()
    assert len(lines) < 15 and "nope" in lines[-2] + lines[-1]
    assert [output["output_type"] for output in slow] == ["display_data", "execute_result"]
    assert slow[0]["data"]["text/html"] == ""
    assert names[0]["data"]["text/plain"] == "['matrix', 'matrix_arrow']"
