"""`lakewriter chart` and the heat map of `coverage`: their places, options and errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lakewriter.cli import cli
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.pictures.canvas import cell_width
from support.escapes import everything
from support.lakes import make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap
from support.running import PATIENCE_S, run
from support.terminals import on_terminal


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    """Two hours of BTCUSDT; ten minutes are absent, all with a reason."""
    root = tmp_path_factory.mktemp("chart") / "lake"
    store = make_lake(root, [rest_candle(n) for n in (*range(60), *range(70, 120))])
    recorder = LivingRecorder(root)
    mark_gap(recorder, 60, 70, "exchange_halt")
    recorder.die()
    return store


def invoke(store: LakeStore, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments, "--lake", str(store.root)])


def chart(store: LakeStore, *arguments: str) -> Result:
    return invoke(store, "chart", "spot:BTCUSDT:1m", *arguments)


def test_a_pipe_gets_text_without_escapes(store: LakeStore) -> None:
    """In a pipe the chart is plain text of 80 columns, with the candles, the gap and its reason."""
    done = run("chart", "spot:BTCUSDT:1m", "--last", "2h", "--lake", str(store.root))
    assert done.returncode == 0 and done.stderr == ""
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "spot BTCUSDT 1m  220  ▲ +120.00 %"
    assert lines[1] == "2024-06-30 00:00 – 2024-06-30 02:00 UTC · in bars of 2m · 110 candles"
    assert lines[-1] == "┃ up  █ down  ░ 10 missing: exchange_halt"
    assert max(map(cell_width, lines)) <= 80 and len(lines) <= 24
    assert all("░" * 5 in line for line in lines[2:16])


@pytest.mark.slow
def test_a_terminal_gets_its_size_and_colours(store: LakeStore) -> None:
    """On a terminal the chart fits lines and columns, in colours unless NO_COLOR or TERM=dumb forbid it."""
    command = ("chart", "spot:BTCUSDT:1m", "--lake", str(store.root))
    for screen in ((16, 60), (40, 132)):
        code, shown = on_terminal(*command, screen=screen, TERM="xterm-256color")
        assert code == 0
        assert "\x1b[38;5;32m" in shown
        _, plain = on_terminal(*command, screen=screen, TERM="xterm-256color", NO_COLOR="1")
        assert "\x1b[38" not in plain and "┃ up" in plain
        assert len(plain.splitlines()) <= screen[0] - 2
        _, dumb = on_terminal(*command, screen=screen, TERM="dumb")
        assert "\x1b" not in dumb
        assert max(map(cell_width, dumb.splitlines())) <= screen[1]


def test_other_encodings_get_ascii(store: LakeStore) -> None:
    """A terminal that is not UTF-8 gets ASCII, and so does --ascii."""
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "lakewriter", "chart", "spot:BTCUSDT:1m", "--lake", str(store.root)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=PATIENCE_S, check=True)
    assert done.stdout.isascii()
    assert b"O up  # down" in done.stdout
    assert done.stdout.decode() == chart(store, "--ascii").stdout


def test_pictures_are_written(store: LakeStore, tmp_path: Path) -> None:
    """-o writes a PNG or SVG by the suffix, overwrites only with --force, and prints nothing."""
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    png, svg = tmp_path / "chart.png", tmp_path / "CHART.SVG"
    done = chart(store, "-o", str(png), "--size", "400x300")
    assert (done.exit_code, done.output) == (0, "")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert chart(store, "-o", str(svg), "--dark").exit_code == 0
    assert b'id="gap-exchange_halt-prices-0"' in svg.read_bytes()
    refused = chart(store, "-o", str(png))
    assert isinstance(refused.exception, UsageError)
    assert refused.exception.what == f"output: {png} exists"
    assert chart(store, "-o", str(png), "--force").exit_code == 0
    inside = chart(store, "-o", str(store.root / "x.png"))
    assert isinstance(inside.exception, UsageError) and "is inside the lake" in inside.exception.what
    heat = tmp_path / "coverage.png"
    assert invoke(store, "coverage", "-o", str(heat)).exit_code == 0
    assert heat.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CHART.SVG", "chart.png", "coverage.png"]


def test_matplotlib_is_optional(store: LakeStore, tmp_path: Path) -> None:
    """Without matplotlib a picture is an error with the command that installs it; the terminal needs none."""
    code = "import sys; sys.modules['matplotlib'] = None; from lakewriter.cli import main; main()"

    def without(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, *arguments, "--lake", str(store.root)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE_S, check=False
        )

    for command in (("chart", "spot:BTCUSDT:1m"), ("coverage",)):
        done = without(*command, "-o", "x.png")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "lakewriter: output: matplotlib is not installed\n"
            "  pip install 'lakewriter[charts]', or leave out -o\n"
        )
    assert not list(tmp_path.iterdir())
    assert without("chart", "spot:BTCUSDT:1m").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (("spot:BTCUSD:1m",), "chart: the lake has no series that matches spot:BTCUSD:1m", "it has spot:BTCUSDT:1m"),
        (("spot:BTCUSDT:1s",), "chart: the lake has no series that matches spot:BTCUSDT:1s", "it has spot:BTCUSDT:1m"),
        (("spot:*USDT:1m",), "chart: spot:*USDT:1m names several series", ""),
        (("spot:BTCUSDT:1m,5m",), "chart: spot:BTCUSDT:1m,5m names several series", ""),
        (("BTCUSDT",), "chart: 'BTCUSDT' is not MARKET:SYMBOL:INTERVAL", "lakewriter chart "),
        (("spot:BTCUSDT:7m",), "interval: '7m' is unknown", ""),
        (("spot:BTCUSDT:1m", "--last", "june"), "--last: 'june' is not a duration of s, m, h, d or w", "--last 7d"),
        (("spot:BTCUSDT:1m", "--last", "1h", "--since", "1d"), "chart: --last and --since are both the start", ""),
        (("spot:BTCUSDT:1m", "--since", "2024-07-02", "--until", "2024-07-01"), "chart: --since is not before --until", ""),
        (
            ("spot:BTCUSDT:1m", "--since", "2024-07-01", "--until", "2024-07-01"),
            "chart: spot:BTCUSDT:1m has no candles from 2024-07-01 00:00 to 2024-07-02 00:00",
            "it has candles from 2024-06-30 00:00 to 2024-06-30 02:00",
        ),
        (
            ("spot:BTCUSDT:1m", "--since", "2024-07-01"),
            "chart: spot:BTCUSDT:1m has no candles since 2024-07-01 00:00",
            "it has candles from 2024-06-30 00:00 to 2024-06-30 02:00",
        ),
        (("spot:BTCUSDT:1m", "-o", "x.jpg"), "output: x.jpg: .jpg is not a known format", "-o x.png or -o x.svg"),
        (("spot:BTCUSDT:1m", "-o", "x"), "output: x: no suffix is not a known format", "-o x.png or -o x.svg"),
        (("spot:BTCUSDT:1m", "-o", ""), "output: -o '' names no file", "-o FILE.png"),
        (("spot:BTCUSDT:1m", "--dark"), "--dark: only a picture in a file has it", "-o FILE.png"),
        (("spot:BTCUSDT:1m", "-o", "x.png", "--size", "big"), "--size: 'big' is not WIDTHxHEIGHT in pixels", ""),
        (("spot:BTCUSDT:1m", "-o", "x.png", "--size", "9x9"), "--size: 9x9 is not from 200x200 to 8000x8000", ""),
    ],
)  # fmt: skip
def test_mistakes(store: LakeStore, arguments: tuple[str, ...], what: str, hint: str) -> None:
    """Each mistake is one line with a hint, and nothing is written."""
    before = everything(store.root)
    done = invoke(store, "chart", *arguments)
    assert isinstance(done.exception, UsageError), done.output
    assert done.exception.what == what
    assert done.exception.hint.startswith(hint) and done.exception.hint
    assert everything(store.root) == before


def test_a_lake_without_the_series_yet(tmp_path: Path) -> None:
    """An empty lake has no series to draw."""
    done = CliRunner().invoke(cli, ["chart", "spot:BTCUSDT:1m", "--lake", str(make_lake(tmp_path).root)])
    assert isinstance(done.exception, LakewriterError)
    assert done.exception.hint == "it has no series yet"


def test_the_heat_map_is_a_check_as_well(store: LakeStore, tmp_path: Path) -> None:
    """The heat map keeps the exit codes of `coverage`, and its error with the next command."""
    done = invoke(store, "coverage", "--heatmap")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "coverage" and "\x1b" not in done.stdout
    assert lines[3:5] == ["spot", " BTCUSDT 1m  " + "██" * 12 + "××" * 2 + "██" * 10 + "    91.66"]
    bad = make_lake(tmp_path, [rest_candle(n) for n in (0, 1, 4)])
    done = invoke(bad, "coverage", "--heatmap")
    assert isinstance(done.exception, LakewriterError)
    assert done.exception.what == "coverage: 2 candles of 1 series are missing without a reason"
    assert "! missing without a reason" in done.stdout
    empty = invoke(make_lake(tmp_path / "empty"), "coverage", "--heatmap")
    assert isinstance(empty.exception, LakewriterError)


@pytest.mark.slow
def test_a_terminal_gets_the_worst_series(tmp_path: Path) -> None:
    """A terminal shows the 40 series that miss most, a pipe and --all show every series."""
    store = make_lake(
        tmp_path, [rest_candle(n, symbol=f"A{number}USDT") for number in range(45) for n in (0, number + 1)]
    )
    command = ("coverage", "--heatmap", "--lake", str(store.root))
    _, shown = on_terminal(*command, screen=(60, 80))
    assert "the 40 of 45 series that miss most" in shown
    assert "lakewriter: 5 better series are not shown; --all" in shown
    assert "A0USDT" not in shown and "A44USDT" in shown
    assert "A0USDT" in on_terminal(*command, "--all", screen=(60, 80))[1]
    assert "A0USDT" in run(*command).stdout


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--heatmap", "--json"), "--json: a heat map is no table"),
        (("-o", "x.png", "--by-day"), "--by-day: a heat map is no table"),
        (("--all",), "--all: only a heat map leaves out series"),
        (("--size", "300x300"), "--size: only a picture in a file has it"),
        (("-o", "x.csv"), "output: x.csv: .csv is not a known format"),
    ],
)
def test_mistakes_of_the_heat_map(store: LakeStore, arguments: tuple[str, ...], what: str) -> None:
    """Options that do not belong together are refused with a hint."""
    done = invoke(store, "coverage", *arguments)
    assert isinstance(done.exception, UsageError)
    assert done.exception.what == what and done.exception.hint
