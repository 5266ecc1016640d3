"""The lake keeps present and past subscriptions, even if the file is damaged."""

import json
import os
from pathlib import Path

import pytest

from lakewriter.errors import LakeError
from lakewriter.lake.coverage.days import series_coverage
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.subscriptions import (
    FILE_BYTES_MAX,
    PERIODS_FILE,
    end_periods,
    read_periods,
)
from lakewriter.series import Series
from lakewriter.subscribed_period import (
    FOREVER_MS,
    STOP_MARGIN_MS,
    SubscribedPeriod,
)
from support.full_disk import full_disk
from support.living_recorder import CONFIG, confirm_series, kill_recorder, start_recorder

BTC, ETH = Series("spot", "BTCUSDT", "1m"), Series("spot", "ETHUSDT", "1m")


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path), "test")


def test_what_is_confirmed_is_read(store: LakeStore) -> None:
    """All fields are read back, by series; a lake without a file has none."""
    assert read_periods(store.root) == []
    journal = start_recorder(store, ETH, BTC, now_ms=5, name="/etc/币安.toml")
    name = journal.directory.name
    assert read_periods(store.root) == [
        SubscribedPeriod(*BTC, 5, 5, None, "/etc/币安.toml", name),
        SubscribedPeriod(*ETH, 5, 5, None, "/etc/币安.toml", name),
    ]
    journal.close()


def test_a_line_is_simple_json(store: LakeStore) -> None:
    """The file has one JSON object per line; an open period has no stop."""
    journal = start_recorder(store, BTC, ETH, now_ms=5)
    assert confirm_series(store, journal, BTC, now_ms=9) == [ETH]
    assert confirm_series(store, journal, BTC, now_ms=9) == []
    lines = [json.loads(line) for line in (store.root / PERIODS_FILE).read_text().splitlines()]
    common = {"recorder": CONFIG, "journal": journal.directory.name, "start_ms": 5, "seen_ms": 9}
    assert lines == [
        {"market": "spot", "symbol": "BTCUSDT", "interval": "1m", **common},
        {"market": "spot", "symbol": "ETHUSDT", "interval": "1m", **common, "stop_ms": 9},
    ]
    journal.close()


def test_recorders_share_the_file(store: LakeStore) -> None:
    """A confirmation changes no period of another living recorder, even with the same config."""
    first = start_recorder(store, BTC)
    second = start_recorder(store, ETH, now_ms=1)
    assert [(each.series, each.is_open) for each in read_periods(store.root)] == [(BTC, True), (ETH, True)]
    kill_recorder(first)
    third = start_recorder(store, ETH, now_ms=10)
    assert [(each.series, each.is_open) for each in read_periods(store.root)] == [
        (BTC, False), (ETH, True), (ETH, True)
    ]  # fmt: skip
    second.close()
    third.close()


def test_a_full_disk_keeps_the_old_file(store: LakeStore) -> None:
    """On a full disk the old file stays whole, and no other file is left."""
    journal = start_recorder(store, BTC)
    before = read_periods(store.root)
    with full_disk(10), pytest.raises(OSError, match="File too large"):
        confirm_series(store, journal, BTC, ETH, now_ms=5)
    assert read_periods(store.root) == before
    assert [path.name for path in (store.root / PERIODS_FILE).parent.iterdir()] == ["periods.ndjson"]
    journal.close()


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"\xff\xfe",
        b"[" * 5000,
        b"{}",
        *(
            json.dumps(
                {"market": "spot", "symbol": "ETHUSDT", "interval": "1m", "recorder": "r", "journal": "j",
                 "start_ms": 1, "seen_ms": 2} | wrong
            ).encode()
            for wrong in (
                {"start_ms": -1}, {"start_ms": 3}, {"seen_ms": FOREVER_MS}, {"stop_ms": 0}, {"start_ms": 1.5},
                {"stop_ms": FOREVER_MS}, {"owed_ms": -1}, {"owed_ms": FOREVER_MS}, {"start_ms": 10**30}, {"market": "moon"}, {"symbol": "../../x"},
                {"interval": "7m"}, {"start_ms": None},
            )
        ),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_set_aside(
    store: LakeStore, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """An impossible line is skipped, and the next confirmation keeps its file under another name."""
    journal = start_recorder(store, BTC)
    path = store.root / PERIODS_FILE
    damaged = line + b"\n" + path.read_bytes()
    path.write_bytes(damaged)
    assert [each.series for each in read_periods(store.root)] == [BTC]
    assert caplog.messages == [f"subscriptions: {path}: 1 damaged lines are left out"]
    confirm_series(store, journal, BTC, ETH)
    assert [each.series for each in read_periods(store.root)] == [BTC, ETH]
    assert path.with_name("periods.ndjson.bad").read_bytes() == damaged
    journal.close()


def test_a_pipe_is_not_waited_for(store: LakeStore, caplog: pytest.LogCaptureFixture) -> None:
    """Readers leave out a pipe with one warning, and do not change it."""
    journal = start_recorder(store, BTC)
    path = store.root / PERIODS_FILE
    path.unlink()
    os.mkfifo(path)
    assert read_periods(store.root) == []
    assert caplog.messages == [
        f"subscriptions: {path}: a named pipe, not a regular file; its periods are left out"
    ]
    with pytest.raises(LakeError, match=r"^subscriptions: .* a named pipe, not a regular file$"):
        list(series_coverage(store, whole=True))
    with pytest.raises(OSError, match="named pipe"):
        confirm_series(store, journal, BTC)
    path.unlink()
    path.mkdir()
    assert read_periods(store.root) == []
    with pytest.raises(IsADirectoryError):
        confirm_series(store, journal, BTC)
    journal.close()


def test_a_file_is_read_within_bounds(store: LakeStore) -> None:
    """A huge file is not loaded, and the next write replaces it."""
    path = store.root / PERIODS_FILE
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(FILE_BYTES_MAX + 1)
    assert read_periods(store.root) == []
    start_recorder(store, BTC).close()
    assert [each.series for each in read_periods(store.root)] == [BTC]


def test_periods_of_dead_recorders_can_be_ended(store: LakeStore) -> None:
    """Open periods of an ended recorder are closed when it was last seen; a living one refuses this."""
    living_recorders = start_recorder(store, ETH)
    dead = start_recorder(store, BTC, name="/etc/other.toml")
    confirm_series(store, dead, BTC, now_ms=10 * STOP_MARGIN_MS, name="/etc/other.toml")
    kill_recorder(dead)
    with pytest.raises(LakeError, match="spot ETHUSDT 1m is recorded at this moment, by /etc/"):
        end_periods(store, [BTC, ETH])
    assert all(each.is_open for each in read_periods(store.root))
    assert [each.series for each in end_periods(store, [BTC])] == [BTC]
    assert [each.stop_ms for each in read_periods(store.root)] == [9 * STOP_MARGIN_MS, None]
    assert end_periods(store, [BTC]) == []
    living_recorders.close()


def test_thousands_of_series_are_quick(store: LakeStore) -> None:
    """All series of the exchange are read and written in well under a second."""
    journal = create_journal(store.root, "test")
    series = [Series("spot", f"S{number}USDT", "1m") for number in range(3000)]
    confirm_series(store, journal, *series, starting=True)
    confirm_series(store, journal, *series[:1500], now_ms=5)
    assert sum(each.is_open for each in read_periods(store.root)) == 1500
    assert (store.root / PERIODS_FILE).stat().st_size < 3000 * 250
    journal.close()
