"""The reads of the page: windows of candles, coverage and gaps, each within its limit."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lakewriter.candle import Candle
from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.journal import create_journal
from lakewriter.lake.open import open_to_read
from lakewriter.series import Series
from lakewriter.web.page.lake_reads import (
    GAP_FILES_MAX,
    MISSING_PLACES_MAX,
    read_candles,
    read_coverage,
    read_gaps,
    read_series,
    read_status,
)
from lakewriter.web.page.questions import CANDLES_MAX, GAP_DAYS_MAX, CandleWindow, parse_series
from support.lakes import make_lake, rest_candle
from support.living_recorder import kill_recorder
from support.object_store import Store
from support.truth_lakes import BTC, MONDAY_MS, truth_lake

Row = list[float]


def window(root: Path, series: Series = BTC, **fields: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(read_candles(str(root), series, CandleWindow(**fields)))
    return answer


def begins(rows: Sequence[Row]) -> list[float]:
    return [row[0] for row in rows]


def minutes(*numbers: int) -> list[Candle]:
    """Return candles of some minutes of a day."""
    return [rest_candle(number) for number in numbers]


def series_of(candle: Candle) -> Series:
    return Series(candle.market, candle.symbol, candle.interval)


def test_newest_candles_come_first_and_older_ones_on_request(tmp_path: Path) -> None:
    """Windows that follow each other backwards have every candle once, to the first one."""
    truth_lake(tmp_path, [(BTC, 2)])
    newest = window(tmp_path, places=1000)
    assert len(newest["candles"]) == 1000 and newest["more"]
    assert newest["candles"][-1][0] == MONDAY_MS + 2 * DAY_MS - MINUTE_MS
    found: list[float] = begins(newest["candles"])
    more = True
    while more:
        older = window(tmp_path, places=1000, before_ms=int(found[0]))
        found = begins(older["candles"]) + found
        more = older["more"]
    assert found == list(range(MONDAY_MS, MONDAY_MS + 2 * DAY_MS, MINUTE_MS))


def test_values_are_those_of_the_lake(tmp_path: Path) -> None:
    """A row has the begin time, the prices and the volume."""
    candle = rest_candle(0)
    make_lake(tmp_path, [candle])
    expected = [candle.begin_ms, candle.open, candle.high, candle.low, candle.close, candle.volume]
    assert window(tmp_path, series_of(candle))["candles"] == [expected]


def test_missing_candles_have_a_time_only(tmp_path: Path) -> None:
    """A missing candle between others has its place, and so has one before the next window."""
    candles = minutes(0, 1, 4, 5)
    make_lake(tmp_path, candles)
    series, first = series_of(candles[0]), candles[0].begin_ms
    rows = window(tmp_path, series)["candles"]
    assert begins(rows) == [first + number * MINUTE_MS for number in range(6)]
    assert [len(row) for row in rows] == [6, 6, 1, 1, 6, 6]
    older = window(tmp_path, series, before_ms=candles[2].begin_ms)["candles"]
    assert [len(row) for row in older] == [6, 6, 1, 1]


def test_a_long_gap_has_a_limited_width(tmp_path: Path) -> None:
    """A gap of many candles takes no more places than the limit."""
    candles = minutes(0, MISSING_PLACES_MAX + 200)
    make_lake(tmp_path, candles)
    rows = window(tmp_path, series_of(candles[0]), places=CANDLES_MAX)["candles"]
    assert len(rows) == 2 + MISSING_PLACES_MAX


def test_candles_of_the_journal_are_there(tmp_path: Path) -> None:
    """A candle that is not flushed yet is the newest one, also for a page that asks what is new."""
    flushed, hot = minutes(0, 1), minutes(2, 3)
    make_lake(tmp_path, flushed, hot)
    series = series_of(flushed[0])
    assert len(window(tmp_path, series)["candles"]) == 4
    after = window(tmp_path, series, after_ms=flushed[1].begin_ms)
    assert begins(after["candles"]) == [flushed[1].begin_ms, *(candle.begin_ms for candle in hot)]


def test_a_series_in_the_journal_alone(tmp_path: Path) -> None:
    """A series without any file has its candles."""
    hot = minutes(0, 1)
    make_lake(tmp_path, [], hot)
    assert len(window(tmp_path, series_of(hot[0]))["candles"]) == 2


def test_a_page_that_was_away_gets_the_newest_candles(tmp_path: Path) -> None:
    """If more candles are new than fit, the answer begins later than what was asked for."""
    truth_lake(tmp_path, [(BTC, 3)])
    answer = window(tmp_path, places=100, after_ms=MONDAY_MS)
    assert answer["start_ms"] > MONDAY_MS and len(answer["candles"]) == 100


def test_answers_are_limited(tmp_path: Path) -> None:
    """No request gets more than the limit, however many it asks for."""
    truth_lake(tmp_path, [(BTC, 3)])
    assert len(window(tmp_path, places=10**9)["candles"]) == CANDLES_MAX


def test_months_have_their_own_lengths(tmp_path: Path) -> None:
    """Monthly candles begin on the first days of months."""
    series = Series("spot", "BTCUSDT", "1mo")
    jan, apr = 1_704_067_200_000, 1_711_929_600_000
    make_lake(
        tmp_path,
        [
            replace(rest_candle(), interval="1mo", begin_ms=at, end_ms=series.grid.end(at))
            for at in (jan, apr)
        ],
    )
    rows = window(tmp_path, series)["candles"]
    assert [len(row) for row in rows] == [6, 1, 1, 6]
    assert begins(rows)[1:3] == [1_706_745_600_000, 1_709_251_200_000]


def test_unknown_series_have_no_candles(tmp_path: Path) -> None:
    """A series that the lake lacks has no candles, and is no error."""
    make_lake(tmp_path, minutes(0))
    assert window(tmp_path, Series("spot", "NOPE", "1m"))["candles"] == []


@pytest.mark.parametrize(
    "names",
    [("spot", "BTC*", "1m"), ("moon", "BTCUSDT", "1m"), ("spot", "BTCUSDT", "7m"), ("spot", "../x", "1m")],
)
def test_wrong_names_are_refused(names: tuple[str, str, str]) -> None:
    """A name that comes from a browser cannot be a glob or a path."""
    with pytest.raises(UsageError):
        parse_series(*names)


def test_coverage_and_gaps_of_chosen_series(tmp_path: Path) -> None:
    """A day with a missing candle says how many, and the gap is listed; other days are null."""
    candles = minutes(0, 1, 4, 5)
    make_lake(tmp_path, candles)
    series = series_of(candles[0])
    now_ms = candles[-1].end_ms + MINUTE_MS
    answer = json.loads(read_coverage(str(tmp_path), [series, Series("spot", "NOPE", "1m")], 3, now_ms))
    assert len(answer["days"]) == 3 and [row["series"] for row in answer["rows"]] == [
        list(series),
        ["spot", "NOPE", "1m"],
    ]
    assert answer["rows"][0]["cells"] == [None, None, [6, 4, 2, 2]]
    assert answer["rows"][1]["cells"] == [None] * 3
    gaps = json.loads(read_gaps(str(tmp_path), 3, now_ms))
    assert gaps["candles"] == gaps["without_reason"] == 2 and gaps["left_out"] == 0
    (gap,) = gaps["gaps"]
    assert (gap["start_ms"], gap["candles"], gap["reason"]) == (candles[1].end_ms, 2, "unexplained")


def test_gaps_are_limited(tmp_path: Path) -> None:
    """Of many gaps the newest are listed, and the others are counted."""
    candles = minutes(0, 2, 4, 6)
    make_lake(tmp_path, candles)
    gaps = json.loads(read_gaps(str(tmp_path), 3, candles[-1].end_ms, gaps_max=2))
    assert [gap["start_ms"] for gap in gaps["gaps"]] == [candles[2].end_ms, candles[1].end_ms]
    assert gaps["left_out"] == 1 and gaps["candles"] == 3


def test_series_are_sorted_by_length(tmp_path: Path) -> None:
    """The intervals of a symbol are in the order of their lengths."""
    grids = ("1d", "5m", "1h")
    make_lake(tmp_path, [rest_candle(interval=interval) for interval in grids])
    found = json.loads(read_series(str(tmp_path)))
    assert [series[2] for series in found["series"]] == ["5m", "1h", "1d"] and found["left_out"] == 0


def test_the_first_read_is_not_slowed_by_pandas(tmp_path: Path) -> None:
    """A reader never imports pandas, which takes longer than everything else together."""
    candles = minutes(0, 1)
    make_lake(tmp_path, candles[:1], candles[1:])
    code = (
        "import sys; from lakewriter.web.page.readers import _answer; from lakewriter.web.page.questions import *;"
        "answer = _answer('read_candles', sys.argv[1], (parse_series(*sys.argv[2:5]), CandleWindow()));"
        "assert answer.answer.status == 200, answer; print('pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *series_of(candles[0])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_the_status_is_that_of_the_lake(tmp_path: Path) -> None:
    """The status has the lake's size, and says that a recorder died with candles in its journal."""
    make_lake(tmp_path, minutes(0), minutes(1, 2))
    now_ms = rest_candle(3).end_ms
    status = json.loads(read_status(str(tmp_path), now_ms))
    assert status["size"]["rows"] == 1 and status["buffered"] == 2
    (finding,) = status["attention"]
    assert finding["kind"] == "dead_recorder" and finding["command"].startswith("lakewriter flush --lake ")


def test_fewer_days_are_searched_in_a_lake_of_many_series(tmp_path: Path) -> None:
    """The number of files that are read for the gaps has a limit, and the answer says which days it has."""
    days = 10 * GAP_FILES_MAX
    make_lake(tmp_path, [rest_candle(symbol="BTCUSDT")])
    now_ms = rest_candle(1).end_ms
    assert json.loads(read_gaps(str(tmp_path), days, now_ms))["days"] == GAP_DAYS_MAX
    others = GAP_FILES_MAX // 100
    make_lake(tmp_path / "many", [], [rest_candle(symbol=f"S{number}USDT") for number in range(others)])
    assert json.loads(read_gaps(str(tmp_path / "many"), days, now_ms))["days"] == GAP_FILES_MAX // others


@pytest.mark.slow
def test_a_lake_on_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All reads have the answers of the same lake on a disk, except the state that belongs to a host."""
    candles = minutes(0, 1, 4, 5)
    make_lake(tmp_path / "lake", candles)
    store = Store()
    try:
        here, there = str(tmp_path / "lake"), store.upload(tmp_path / "lake", "lake")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        now_ms = candles[-1].end_ms + MINUTE_MS
        assert read_series(here) == read_series(there)
        assert read_candles(here, BTC, CandleWindow()) == read_candles(there, BTC, CandleWindow())
        before = CandleWindow(before_ms=candles[2].begin_ms)
        assert read_candles(here, BTC, before) == read_candles(there, BTC, before)
        assert read_coverage(here, [BTC], 3, now_ms) == read_coverage(there, [BTC], 3, now_ms)
        assert read_gaps(here, 3, now_ms) == read_gaps(there, 3, now_ms)
        status = json.loads(read_status(there, now_ms))
        assert status["size"]["rows"] == 4 and status["disk"] is None
        state_dir = open_to_read(there).state_dir
        state_dir.mkdir(parents=True)
        journal = create_journal(state_dir, "test")
        journal.commit(minutes(6))
        kill_recorder(journal)
        (finding,) = json.loads(read_status(there, now_ms + 1))["attention"]
        assert finding["kind"] == "dead_recorder" and "test:test" not in finding["command"]
    finally:
        store.close()
