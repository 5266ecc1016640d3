"""Answers of exchangeInfo are stored with the times at which they held."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lakewriter.instrument import Instrument
from lakewriter.lake.instruments import (
    INSTRUMENTS_DIRECTORY,
    InstrumentPeriod,
    merged_periods,
    read_instruments,
    record_instruments,
)
from lakewriter.lake.lake import LakeStore
from support.full_disk import full_disk

BTC = Instrument("BTCUSDT", "TRADING", "PERPETUAL", 10, 4_133_404_800_000)
ETH = Instrument("ETHUSDT", "TRADING")


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    return LakeStore.create(str(tmp_path), "test")


def periods(store: LakeStore) -> list[tuple[str, str, int, int]]:
    return [
        (seen.symbol, seen.status, seen.first_seen_ms, seen.last_seen_ms)
        for seen in read_instruments(store.root)
    ]


def test_what_was_said_is_read(store: LakeStore) -> None:
    """All fields are read back, by market and symbol; a lake without a file has none."""
    assert read_instruments(store.root) == []
    record_instruments(store, "usdt_futures", [BTC], 1)
    record_instruments(store, "spot", [ETH, Instrument("币安人生USDT", "BREAK")], 2)
    assert read_instruments(store.root) == [
        InstrumentPeriod("spot", "ETHUSDT", "TRADING", "", None, None, 2, 2),
        InstrumentPeriod("spot", "币安人生USDT", "BREAK", "", None, None, 2, 2),
        InstrumentPeriod("usdt_futures", "BTCUSDT", "TRADING", "PERPETUAL", 10, 4_133_404_800_000, 1, 1),
    ]


def test_the_same_answer_moves_last_seen(store: LakeStore) -> None:
    """A repeated answer adds no row, and updates `last_seen` and the dates."""
    record_instruments(store, "spot", [BTC, ETH], 1)
    record_instruments(store, "spot", [BTC._replace(delivery_ms=99), ETH], 5)
    assert periods(store) == [("BTCUSDT", "TRADING", 1, 5), ("ETHUSDT", "TRADING", 1, 5)]
    assert read_instruments(store.root)[0].delivery_ms == 99


def test_another_status_begins_a_period(store: LakeStore) -> None:
    """Each period of equal status and contract type has one row."""
    record_instruments(store, "spot", [BTC], 1)
    record_instruments(store, "spot", [BTC._replace(status="SETTLING")], 2)
    record_instruments(store, "spot", [BTC._replace(status="SETTLING")], 3)
    record_instruments(store, "spot", [BTC], 4)
    record_instruments(store, "spot", [BTC._replace(contract_type="CURRENT_QUARTER")], 5)
    assert periods(store) == [
        ("BTCUSDT", "TRADING", 1, 1),
        ("BTCUSDT", "SETTLING", 2, 3),
        ("BTCUSDT", "TRADING", 4, 4),
        ("BTCUSDT", "TRADING", 5, 5),
    ]


def test_a_symbol_that_vanished_keeps_its_last_seen(store: LakeStore) -> None:
    """A delisted symbol keeps its last time; listed again, it begins a new period."""
    record_instruments(store, "spot", [BTC, ETH], 1)
    record_instruments(store, "spot", [ETH], 2)
    record_instruments(store, "spot", [ETH, BTC], 3)
    assert periods(store) == [
        ("BTCUSDT", "TRADING", 1, 1),
        ("BTCUSDT", "TRADING", 3, 3),
        ("ETHUSDT", "TRADING", 1, 3),
    ]


def test_an_older_answer_turns_no_clock_back(store: LakeStore) -> None:
    """An answer with an earlier time is stored with the last answer's time."""
    record_instruments(store, "spot", [BTC], 10)
    record_instruments(store, "spot", [BTC._replace(status="BREAK")], 5)
    assert periods(store) == [("BTCUSDT", "TRADING", 10, 10), ("BTCUSDT", "BREAK", 10, 10)]
    record_instruments(store, "spot", [BTC._replace(status="BREAK")], 12)
    assert periods(store)[1:] == [("BTCUSDT", "BREAK", 10, 12)]


def test_full_disk_keeps_the_old_file(store: LakeStore) -> None:
    """On a full disk the old file stays whole."""
    record_instruments(store, "spot", [BTC], 1)
    with full_disk(10), pytest.raises(OSError, match="File too large"):
        record_instruments(store, "spot", [BTC, ETH], 2)
    assert periods(store) == [("BTCUSDT", "TRADING", 1, 1)]
    assert len(list((store.root / INSTRUMENTS_DIRECTORY).iterdir())) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b'{"symbol":"../X","status":"TRADING","first_seen_ms":1,"last_seen_ms":1}\n',
        b'{"symbol":"XUSDT","status":"TRADING","first_seen_ms":1,"last_seen_ms":1e30}\n',
        b'{"symbol":"XUSDT","status":"TRADING","first_seen_ms":-1,"last_seen_ms":1}\n',
        b'{"symbol":"XUSDT","status":"T","first_seen_ms":1,"last_seen_ms":1,"delivery_ms":999999999999999}\n',
        b"x" * 100_000 + b"\n",
        b'{"symbol":"XUSDT","status":"T"',
    ],
)
def test_lines_that_we_did_not_write_are_set_aside(
    store: LakeStore, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Unreadable lines are logged and skipped; the next write keeps the old file beside the new one."""
    record_instruments(store, "spot", [BTC], 1)
    path = store.root / INSTRUMENTS_DIRECTORY / "spot.ndjson"
    written = path.read_bytes() + line
    path.write_bytes(written)
    assert periods(store) == [("BTCUSDT", "TRADING", 1, 1)]
    assert "spot.ndjson: 1 damaged lines are left out" in caplog.text
    record_instruments(store, "spot", [BTC], 2)
    assert periods(store) == [("BTCUSDT", "TRADING", 1, 2)]
    assert path.with_name("spot.ndjson.bad").read_bytes() == written


@pytest.mark.parametrize("spoil", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_no_file_in_its_place(store: LakeStore, spoil: Callable[[Path], None]) -> None:
    """Other markets are read; an unwritable file is an OSError at once."""
    record_instruments(store, "usdt_futures", [BTC], 1)
    spoil(store.root / INSTRUMENTS_DIRECTORY / "spot.ndjson")
    assert len(read_instruments(store.root)) == 1
    with pytest.raises(OSError):
        record_instruments(store, "spot", [BTC], 1)


def test_times_of_no_calendar_are_unknown(store: LakeStore) -> None:
    """A time outside the calendar becomes None."""
    record_instruments(store, "spot", [Instrument("BTCUSDT", "TRADING", "", 10**17, -5)], 1)
    (seen,) = read_instruments(store.root)
    assert (seen.onboard_ms, seen.delivery_ms) == (None, None)


def test_a_whole_market_is_quick(store: LakeStore) -> None:
    """3,700 symbols take well under a second, even if half of them change."""
    listed = [Instrument(f"S{number}USDT", "TRADING") for number in range(3700)]
    started_s = time.thread_time()
    record_instruments(store, "spot", listed, 1)
    record_instruments(
        store, "spot", [each._replace(status="BREAK") for each in listed[:1850]] + listed[1850:], 2
    )
    record_instruments(store, "spot", listed, 3)
    assert (time.thread_time() - started_s) / 3 < 1
    assert len(read_instruments(store.root)) == 3700 + 1850 * 2


def seen(symbol: str, status: str, first_ms: int, last_ms: int) -> InstrumentPeriod:
    return InstrumentPeriod("spot", symbol, status, "", None, None, first_ms, last_ms)


def test_the_answers_of_two_hosts_are_those_of_one(store: LakeStore) -> None:
    """Two hosts' files of one market give each period once, with its first and its last time."""
    directory = store.root / INSTRUMENTS_DIRECTORY
    record_instruments(store, "spot", [ETH], 10)
    record_instruments(store, "spot", [ETH], 40)
    (directory / "spot.ndjson").rename(directory / "spot@one.ndjson")
    record_instruments(store, "spot", [ETH], 20)
    record_instruments(store, "spot", [Instrument("ETHUSDT", "BREAK")], 50)
    (directory / "spot.ndjson").rename(directory / "spot@two.ndjson")
    record_instruments(store, "spot", [Instrument("ETHUSDT", "BREAK")], 60)
    (directory / "spot.ndjson").rename(directory / "spot@three.ndjson")
    assert periods(store) == [("ETHUSDT", "TRADING", 10, 40), ("ETHUSDT", "BREAK", 50, 60)]


def test_a_host_that_takes_over_continues_the_periods() -> None:
    """After a pause without any host, the same status is the same period."""
    one, two = seen("ETHUSDT", "TRADING", 10, 40), seen("ETHUSDT", "TRADING", 70, 90)
    assert merged_periods([two, one]) == [seen("ETHUSDT", "TRADING", 10, 90)]


def test_a_symbol_that_was_away_keeps_two_periods() -> None:
    """A host that was there in between did not see the symbol: it was not listed."""
    one, two = seen("ETHUSDT", "TRADING", 10, 40), seen("ETHUSDT", "TRADING", 70, 90)
    assert merged_periods([one, two, seen("BTCUSDT", "TRADING", 10, 90)])[1:] == [one, two]
    assert merged_periods([one, two, seen("BTCUSDT", "TRADING", 10, 50)])[1:] == [one, two]
