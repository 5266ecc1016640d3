"""Each answer of the cookbook runs as it stands, and is right, on a small lake of the sandbox's candles."""

import ast
import importlib.util
import re
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lakewriter.interval import DAY_MS
from lakewriter.sandbox.truth.candles import Truth
from support.cookbook_lake import JULY_MS, SYMBOLS, make_cookbook_lake
from support.running import REPOSITORY, run

pytestmark = pytest.mark.slow

TEXT = (REPOSITORY / "docs" / "how-to" / "cookbook.md").read_text()
INTRODUCTION, *QUESTIONS = re.split(r"^(?=## \d)", TEXT, flags=re.MULTILINE)
COUNT = 20

# These need files of the archive.
NOT_RUN = ("lakewriter verify",)


class Kitchen:
    """A directory with the lake and the trades, and the names that the answers share.

    Args:
        directory: has `data` and `trades.csv`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names: dict[str, Any] = {}
        self.run_block(python_blocks(INTRODUCTION)[0])

    def run_block(self, code: str) -> list[Any]:
        """Run a block of Python; return the values of its expressions."""
        values = []
        for node in ast.parse(code).body:
            if isinstance(node, ast.Expr):
                expression = compile(ast.Expression(node.value), "cookbook", "eval")
                values.append(eval(expression, self.names))
            else:
                exec(compile(ast.Module([node], []), "cookbook", "exec"), self.names)
        return values


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    directory = tmp_path_factory.mktemp("cookbook")
    make_cookbook_lake(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        return Kitchen(directory)


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def missing_package(code: str) -> str:
    """Return the first package that a block imports and that is not installed; "" for none."""
    modules = (name for name in re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE))
    return next((name for name in modules if importlib.util.find_spec(name) is None), "")


def test_all_questions_are_answered() -> None:
    """The questions have their numbers in order, and each has a block of code."""
    assert [int(re.findall(r"\d+", text)[0]) for text in QUESTIONS] == list(range(1, COUNT + 1))
    assert all("```" in text for text in QUESTIONS)


BLOCKS = [
    (number, at, code)
    for number, text in enumerate(QUESTIONS, 1)
    for at, code in enumerate(python_blocks(text))
]


@pytest.mark.parametrize(("number", "at", "code"), BLOCKS, ids=[f"{number}-{at}" for number, at, _ in BLOCKS])
def test_answers_in_python_are_right(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch, number: int, at: int, code: str
) -> None:
    """A block runs without a name of another question, and its values pass the check of its question."""
    if package := missing_package(code):
        pytest.skip(f"needs {package}")
    monkeypatch.chdir(kitchen.directory)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    kitchen.names = {name: kitchen.names[name] for name in ("lakewriter", "np", "pd", "pl", "lake")}
    with warnings.catch_warnings():
        if re.search(r"^ *(from|import) ", code, re.MULTILINE):
            warnings.simplefilter("ignore")  # those of the other package
        values = kitchen.run_block(code)
    check = CHECKS.get((number, at))
    assert check is not None, f"the answer {number}-{at} has no check"
    check(kitchen.names, *values)


COMMANDS = [
    shlex.split(line)
    for text in QUESTIONS
    for line in re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    if not line.startswith(NOT_RUN)
]


def answer_of(kitchen: Kitchen, number: int) -> str:
    [words] = [
        shlex.split(line)
        for line in re.findall(r"^\$ (.*)$", QUESTIONS[number - 1], re.MULTILINE)
        if not line.startswith(NOT_RUN)
    ]
    done = run(*words[1:], cwd=kitchen.directory)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_commands_are_those_below() -> None:
    """A command that is added to the page gets a test."""
    assert len(COMMANDS) == 3


def test_top_movers(kitchen: Kitchen) -> None:
    """Three symbols have minutes; each has its change of a day."""
    assert "(3 rows)" in answer_of(kitchen, 4)


def test_trades_from_a_file(kitchen: Kitchen) -> None:
    """Each trade stands beside the candle before it."""
    lines = answer_of(kitchen, 9)
    assert "(3 rows)" in lines and f"{close_at(554):.2f}"[:5] in lines


def test_one_sorted_file(kitchen: Kitchen) -> None:
    """The file has every hour of three symbols, in order."""
    answer_of(kitchen, 16)
    table = pq.read_table(kitchen.directory / "spot-1h.parquet")
    assert table.num_rows == 3 * 720
    assert table.equals(table.sort_by([("symbol", "ascending"), ("candle_begin_time", "ascending")]))


def close_at(minute: int) -> float:
    """Return the close of BTCUSDT in a minute of 2024-06-30."""
    begin_ms = JULY_MS - DAY_MS + minute * 60_000
    return float(Truth().candle("spot", "BTCUSDT", "1m", begin_ms).close)


def _hours(_: dict[str, Any], answer: Any) -> None:
    frame = answer.df()
    # Three symbols, three days; the gap of BTCUSDT spoils one hour.
    assert len(frame) == 3 * 72 - 1
    row = frame.set_index(["symbol", "candle_begin_time"]).loc[("BTCUSDT", "2024-06-30 09:00:00+00:00")]
    hour = Truth().candle("spot", "BTCUSDT", "1h", JULY_MS - DAY_MS + 9 * 3_600_000)
    assert tuple(row[["open", "high", "low", "close"]]) == hour.numbers()[:4]
    assert row["volume"] == pytest.approx(float(hour.volume))


def _basis(names: dict[str, Any], daily: Any) -> None:
    basis = names["basis"]["BTCUSDT"]
    assert len(basis) == 3 * 1440 and basis.isna().sum() == 30
    assert [str(day)[:10] for day in daily.index] == ["2024-06-28", "2024-06-29", "2024-06-30"]
    assert daily["BTCUSDT"].iloc[0] == pytest.approx(basis[:1440].mean())


def _z_scores(names: dict[str, Any], scores: Any) -> None:
    window = names["close"]["BTCUSDT"].iloc[-1440:]
    assert scores["BTCUSDT"].iloc[-1] == pytest.approx((window.iloc[-1] - window.mean()) / window.std())


def _movers(_: dict[str, Any], answer: Any) -> None:
    [row] = [row for row in answer.df().itertuples() if row.symbol == "BTCUSDT"]
    assert len(answer) == 3 and row.close == close_at(1439)
    assert row.change_percent == pytest.approx(100 * (row.close / row.open - 1))


def _correlation(_: dict[str, Any], matrix: Any) -> None:
    assert list(matrix.columns) == list(matrix.index) == list(SYMBOLS)
    assert np.allclose(np.diag(matrix), 1) and np.allclose(matrix, matrix.T)


def _wide(_: dict[str, Any], in_pandas: Any, in_polars: Any) -> None:
    assert in_pandas.shape == (720, 3) and isinstance(in_polars, pl.DataFrame)
    assert np.array_equal(in_polars.drop("candle_end_time").to_numpy(), in_pandas.to_numpy())


def _missing(_: dict[str, Any], gaps: Any, filled: Any) -> None:
    [gap] = gaps.df().itertuples()
    assert (gap.symbol, gap.candles, gap.reason) == ("BTCUSDT", 30, "unexplained")
    inside = filled["2024-06-28 00:01":]
    assert len(inside) == 3 * 1440 and inside["close"].isna().sum() == 30


def _profile(names: dict[str, Any], profile: Any) -> None:
    frame = profile.df()
    assert (frame["price"] % 100 == 0).all() and frame["price"].is_monotonic_increasing
    total = names["lake"].candles("spot", "BTCUSDT", "1m")["volume"].sum()
    assert frame["volume"].sum() == pytest.approx(total)


def _trades(names: dict[str, Any]) -> None:
    beside = names["beside"]
    assert list(beside["close"].notna()) == [True] * 3
    assert beside["close"].iloc[0] == close_at(554)
    expected = beside["price"].iloc[0] / close_at(554) - 1
    assert beside["slippage"].iloc[0] == pytest.approx(expected)
    assert beside["slippage"].iloc[2] == pytest.approx(1 - beside["price"].iloc[2] / close_at(718))


def _vectorbt(_: dict[str, Any], total_return: Any) -> None:
    assert -1 < total_return < 1 and total_return != 0


def _backtesting(_: dict[str, Any], stats: Any) -> None:
    assert stats["# Trades"] > 0 and str(stats["End"]) == "2024-07-01 00:00:00"


def _three(names: dict[str, Any], ranges: Any, by_hour: Any, drawdowns: Any) -> None:
    bars = names["bars"]
    last = max(bars["high"].iloc[-1], bars["close"].iloc[-2]) - min(
        bars["low"].iloc[-1], bars["close"].iloc[-2]
    )
    assert names["true_range"].iloc[-1] == last and ranges.isna().sum() == 13
    assert by_hour.df()["hour"].tolist() == list(range(24))
    assert list(drawdowns.index) == list(SYMBOLS) and ((drawdowns < 0) & (drawdowns > -1)).all()


def _shanghai(_: dict[str, Any], days: Any) -> None:
    assert len(days) == 182 and str(days.index[-1]) == "2024-06-30 08:00:00+08:00"


def _midnight(names: dict[str, Any], answer: Any) -> None:
    days = answer.df().set_index("candle_begin_time")
    assert str(days.index[0]) == "2024-06-01 16:00:00+00:00" and len(days) == 29
    hours = names["lake"].candles("spot", "BTCUSDT", "1h", tz="Asia/Shanghai", index="candle_begin_time")
    assert days["high"].loc["2024-06-29 16:00:00+00:00"] == hours.loc["2024-06-30", "high"].max()


def _quantiles(_: dict[str, Any], answer: Any) -> None:
    rows = answer.rows()
    assert len(rows) == 7 and all(len(values) == 5 and values == sorted(values) for _, values in rows)


def _dollar_bars(names: dict[str, Any], answer: Any) -> None:
    bars = answer.arrow()
    sums = np.cumsum(bars["quote_volume"].to_numpy())
    assert np.all(np.floor(sums[:-1] / 1e6) > np.floor(np.append(0, sums[:-2]) / 1e6))
    total = pc.sum(names["lake"].candles_arrow("spot", "BTCUSDT", "1m")["quote_volume"]).as_py()
    assert sums[-1] == pytest.approx(total)


def _heat_map(names: dict[str, Any], styled: Any) -> None:
    shares = names["shares"]
    assert shares.shape == (4, 3)
    assert shares.loc[("spot", "BTCUSDT")].tolist() == [1, 1410 / 1440, 1]
    if importlib.util.find_spec("matplotlib"):
        assert styled.to_html().count("97.9%") == 1


def _series(_: dict[str, Any], frame: Any) -> None:
    assert len(frame) == 12 + 2 * 3 + 1 and set(frame["candles"]) == {182, 720, 4290, 4320}


def _thousand(names: dict[str, Any]) -> None:
    assert sorted(names["highs"]) == list(SYMBOLS) and min(names["highs"].values()) > 0


def _chart(names: dict[str, Any], _: Any) -> None:
    assert len(names["week"]) == 7 * 24


def _archive(_: dict[str, Any], answer: Any) -> None:
    assert answer.rows() == [(symbol, "archive", 182) for symbol in SYMBOLS]


CHECKS: dict[tuple[int, int], Callable[..., None]] = {
    (1, 0): _hours,
    (2, 0): _basis,
    (3, 0): _z_scores,
    (4, 0): _movers,
    (5, 0): _correlation,
    (6, 0): _wide,
    (7, 0): _missing,
    (8, 0): _profile,
    (9, 0): _trades,
    (10, 0): _vectorbt,
    (10, 1): _backtesting,
    (11, 0): _three,
    (12, 0): _shanghai,
    (12, 1): _midnight,
    (13, 0): _quantiles,
    (14, 0): _dollar_bars,
    (15, 0): _heat_map,
    (17, 0): _series,
    (18, 0): _thousand,
    (19, 0): _chart,
    (20, 0): _archive,
}
