"""Sessions and lists that the real exchange sent, read by the recorder's code."""

import gzip
import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakewriter.binance.instruments import parse_instruments
from lakewriter.binance.wire import OPEN_CANDLE, Other, decode, is_open_candle
from lakewriter.candle import Candle, to_table
from lakewriter.candle_arrays import columns_from_arrays
from lakewriter.candle_checks import violations
from lakewriter.interval import BY_WIRE_NAME
from lakewriter.market import MARKETS, is_symbol, parse_symbol, wire_symbol
from lakewriter.partition import parse_partition, partition_of, partition_on
from support.candles import from_table
from support.plain_wire import decode_plainly

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "captures"
CAPTURES = Path(os.environ.get("LAKEWRITER_CAPTURES", _BESIDE))

pytestmark = [
    pytest.mark.captures,
    pytest.mark.skipif(
        not CAPTURES.is_dir(), reason=f"no captures at {CAPTURES}; LAKEWRITER_CAPTURES may say where they are"
    ),
]

# file, market, frames, kline frames, closed ones: as the captures' README counts them
SESSIONS = [
    ("BINANCE.spot.2021-08-14.ws.log", "spot", 1003, 17, 2),
    ("BINANCE_FUTURES.usdm.2021-07-22.ws.log", "usdt_futures", 1535, 67, 4),
    ("BINANCE_DELIVERY.coinm.2021-07-22.ws.log", "coin_futures", 4371, 33, 0),
    ("BINANCE_TR.2023-04-10.ws.log", "spot", 139, 8, 4),
]

LISTS = [
    ("spot_exchangeInfo_curated_2026-07-03.json", "spot"),
    ("spot_exchangeInfo_symbols_2026-07-18.json", "spot"),
    ("usdm_exchangeInfo_2026-07-04.json.gz", "usdt_futures"),
    ("BINANCE_FUTURES.exchangeInfo.2021-07.log", "usdt_futures"),
    ("BINANCE_DELIVERY.exchangeInfo.2021-07.log", "coin_futures"),
]


def session(name: str) -> list[tuple[int, bytes]]:
    """Return each frame of a session with its receive time in microseconds."""
    lines = (CAPTURES / "ws" / name).read_bytes().split(b"\n")[1:]
    stamped = [line.split(b": ", 1) for line in lines if line]
    return [(int(float(stamp) * 1_000_000), frame) for stamp, frame in stamped]


def payload_of(frame: bytes) -> Any:
    said = json.loads(frame)
    return said.get("data", said) if isinstance(said, dict) else said


def is_kline(frame: bytes) -> bool:
    payload = payload_of(frame)
    return isinstance(payload, dict) and payload.get("e") == "kline"


def answer(name: str) -> bytes:
    """Return a captured exchangeInfo answer, plain or compressed."""
    data = (CAPTURES / "rest" / name).read_bytes()
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if name.endswith(".log"):
        return next(line.split(b": ", 1)[1] for line in data.split(b"\n") if line.startswith(b"https://"))
    return data


@pytest.mark.parametrize(("name", "market", "frames", "klines", "closed"), SESSIONS)
def test_every_frame(name, market, frames, klines, closed):
    """Each frame of a session is parsed, and only closed klines become candles."""
    seen = session(name)
    messages = [decode(frame, market, recv_us) for recv_us, frame in seen]
    assert len(seen) == frames
    assert sum(is_kline(frame) for _, frame in seen) == klines
    assert sum(isinstance(message, Candle) for message in messages) == closed
    assert sum(message == OPEN_CANDLE for message in messages) == klines - closed
    for (_, frame), message in zip(seen, messages, strict=True):
        if not is_kline(frame):
            assert isinstance(message, Other)
            assert message != OPEN_CANDLE


@pytest.mark.parametrize(("name", "market", "frames", "klines", "closed"), SESSIONS)
def test_open_frames_are_passed_over_unread(name, market, frames, klines, closed):
    """The check without parsing finds each open kline of a session, and no other frame."""
    passed_over = [frame for _, frame in session(name) if is_open_candle(frame)]
    assert len(passed_over) == klines - closed
    assert all(is_kline(frame) and payload_of(frame)["k"]["x"] is False for frame in passed_over)


@pytest.mark.parametrize(("name", "market", "frames", "klines", "closed"), SESSIONS)
def test_the_plain_decoder_agrees(name, market, frames, klines, closed):
    """The slow and plain decoder gives the same messages, also for klines that are closed instead of open."""
    for recv_us, frame in session(name):
        assert decode(frame, market, recv_us) == decode_plainly(frame, market, recv_us)
        if not is_kline(frame):
            continue
        kline = payload_of(frame)["k"]
        ended = frame.replace(b'"x":false', b'"x":true').replace(
            b'"E":%d' % payload_of(frame)["E"], b'"E":%d' % (kline["T"] + 5)
        )
        candle = decode(ended, market, recv_us)
        assert isinstance(candle, Candle)
        assert candle == decode_plainly(ended, market, recv_us)


@pytest.mark.parametrize(("name", "market", "frames", "klines", "closed"), SESSIONS)
def test_closed_candles_as_sent(name, market, frames, klines, closed):
    """A closed candle keeps all of its values, also in a table."""
    for recv_us, frame in session(name):
        if not is_kline(frame) or not payload_of(frame)["k"]["x"]:
            continue
        payload = payload_of(frame)
        kline = payload["k"]
        candle = decode(frame, market, recv_us)
        assert candle == Candle(
            market=market,
            symbol=kline["s"],
            interval=BY_WIRE_NAME[kline["i"]].name,
            begin_ms=kline["t"],
            end_ms=kline["T"] + 1,
            open=float(kline["o"]),
            high=float(kline["h"]),
            low=float(kline["l"]),
            close=float(kline["c"]),
            volume=float(kline["v"]),
            quote_volume=float(kline["q"]),
            trade_num=kline["n"],
            taker_buy_base_asset_volume=float(kline["V"]),
            taker_buy_quote_asset_volume=float(kline["Q"]),
            event_ms=payload["E"],
            recv_us=recv_us,
            source="stream",
        )
        assert from_table(to_table([candle]), market, candle.symbol) == [candle]
        assert parse_partition(partition_of(candle).path) == partition_of(candle)


def can_be(market: str, row: list[Any]) -> bool:
    """Return whether the values of a kline row pass the checks of candles."""
    numbers = [float(value) for value in (*row[1:6], row[7], row[8], row[9], row[10])]
    values = [pa.array([number]) for number in numbers]
    values[6] = pa.array([int(row[8])])
    return violations(columns_from_arrays(np.array([int(row[0])]), values), market) == []


@pytest.mark.parametrize(("name", "market", "frames", "klines", "closed"), SESSIONS)
def test_the_streams_candles_can_be(name, market, frames, klines, closed):
    """No streamed candle, closed or open, has a violation."""
    for _, frame in session(name):
        if is_kline(frame):
            kline = payload_of(frame)["k"]
            assert can_be(market, [kline[key] for key in "tohlcvTqnVQ"]), kline


@pytest.mark.parametrize(
    ("name", "market"),
    [
        ("spot_klines_1m_2021-10-22.nautilus.json", "spot"),
        ("usdm_klines_limit2_2026-10-07.polyoxide.json", "usdt_futures"),
        ("usdm_testnet_klines_limit2_2026-09-11.json", "usdt_futures"),
    ],
)
def test_the_candles_of_rest_can_be(name, market):
    """No candle of REST has a violation."""
    rows = json.loads((CAPTURES / "rest" / name).read_bytes())
    assert rows
    for row in rows:
        assert can_be(market, row), row


@pytest.mark.parametrize(("name", "market"), LISTS)
def test_listed_symbols(name, market):
    """Each symbol that was ever listed is valid, and is read back from its path."""
    listed = json.loads(answer(name))["symbols"]
    assert listed
    for entry in listed:
        symbol = entry["symbol"]
        assert is_symbol(symbol)
        assert parse_symbol(wire_symbol(symbol)) == symbol
        for interval in MARKETS[market].intervals:
            partition = partition_on((market, symbol, interval), date(2026, 7, 4))
            assert parse_partition(partition.path) == partition


@pytest.mark.parametrize(("name", "market"), LISTS)
def test_instruments(name, market):
    """All instruments of an answer are read in its order, with the statuses of their market."""
    said = json.loads(answer(name))["symbols"]
    field = "contractStatus" if market == "coin_futures" else "status"
    found = parse_instruments(answer(name), MARKETS[market])
    assert [(entry.symbol, entry.status) for entry in found] == [
        (entry["symbol"], entry[field]) for entry in said
    ]


def test_usdm_list_in_full():
    """The USDⓈ-M list of 2026-07 has 820 symbols, three with Chinese names."""
    found = parse_instruments(answer("usdm_exchangeInfo_2026-07-04.json.gz"), MARKETS["usdt_futures"])
    assert len(found) == 820
    assert sum(not entry.symbol.isascii() for entry in found) == 3
    assert sum(entry.trades for entry in found) == 695
