"""Recorded sessions of the exchange, through the sandbox, a recorder and SQL."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lakewriter.interval import BY_WIRE_NAME
from lakewriter.sandbox import SandboxOptions, serve
from support.running import CAPTURES, KEY_AND_VALUES, child, plain_rows, run, until

SESSIONS = {
    "spot": "BINANCE.spot.2021-08-14.ws.log",
    "usdt_futures": "BINANCE_FUTURES.usdm.2021-07-22.ws.log",
    "coin_futures": "BINANCE_DELIVERY.coinm.2021-07-22.ws.log",
    "spot (TR)": "BINANCE_TR.2023-04-10.ws.log",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.captures,
    pytest.mark.skipif(not CAPTURES.is_dir(), reason="no recorded exchange sessions here"),
]


def klines(session: Path) -> list[dict[str, Any]]:
    """Return the kline events of a session."""
    lines = session.read_text().splitlines()[1:]
    frames = (json.loads(line.partition(": ")[2]) for line in lines if line.strip())
    events = (frame.get("data", frame) for frame in frames)
    return [event for event in events if isinstance(event, dict) and event.get("e") == "kline"]


def row_of(market: str, event: dict[str, Any]) -> tuple[object, ...]:
    kline = event["k"]
    interval = BY_WIRE_NAME[kline["i"]]
    return (
        market, kline["s"], interval.name, kline["t"], interval.end(kline["t"]),
        float(kline["o"]), float(kline["h"]), float(kline["l"]), float(kline["c"]),
        float(kline["v"]), float(kline["q"]), kline["n"], float(kline["V"]), float(kline["Q"]),
        event["E"], "stream",
    )  # fmt: skip


@pytest.mark.parametrize("name", SESSIONS)
def test_a_replayed_session_is_recorded_field_by_field(name: str, tmp_path: Path) -> None:
    """The lake has exactly the session's closed candles, by `query` and by a plain glob."""
    market, session = name.split()[0], CAPTURES / "ws" / SESSIONS[name]
    lake = tmp_path / "lake"
    events = klines(session)
    symbols = ",".join(sorted({event["s"] for event in events}))
    truth = sorted(row_of(market, event) for event in events if event["k"]["x"])
    frames = len([line for line in session.read_text().splitlines()[1:] if line.strip()])

    async def main() -> None:
        async with serve(SandboxOptions(speed=20, replay=(f"{market}={session}",))) as sandbox:
            arguments = [
                "record",
                "--log-candles",
                f"{market}:{symbols}:1m",
                "--exchange",
                sandbox.url,
                "--lake",
                str(lake),
            ]
            # A session is of the past; what the present owes meanwhile must not be fetched.
            patient = ("--flush-every", "1h", "--grace", "30d", "--heal-limit", "1ms")
            with child(tmp_path / "log", *arguments, *patient) as recorder:
                await until(lambda: recorder.logged().count("\nrecorded ") == len(truth))
                await until(lambda: sandbox.replayed >= frames)
                assert await asyncio.to_thread(recorder.stop) == 0

    asyncio.run(main())
    columns = KEY_AND_VALUES + ", epoch_ms(event_time), source"
    asked = run(
        "query", f"SELECT {columns} FROM candles ORDER BY 1, 2, 3, 4", "--format", "json", "--lake", str(lake)
    )
    assert asked.returncode == 0, asked.stderr
    assert [tuple(row.values()) for row in json.loads(asked.stdout)] == truth
    if truth:
        assert plain_rows(lake, columns) == truth
    else:
        assert not list(lake.glob("**/*.parquet"))
