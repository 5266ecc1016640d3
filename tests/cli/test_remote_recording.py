"""Recording, backfills and removals on an object store, with the journal in a local state directory."""

import asyncio
import json
import random
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lakewriter.interval import HOUR_MS
from lakewriter.lake.open import create_lake, open_to_read
from lakewriter.query.session import run as query
from lakewriter.sandbox import SandboxOptions, TruthCandle, serve
from support.lakes import make_lake, rest_candle
from support.lengths import either
from support.running import KEY_AND_VALUES, child, plain_rows, run, until
from support.seaweed import Bucket, Seaweed

pytestmark = pytest.mark.slow

KILLS = either(3, 20)

# Simulated seconds per real second. An hour takes six seconds.
SPEED = 600
RECORDED = re.compile(r"^recorded (\S+) (\S+) (\S+) (\d{4}-\d\d-\d\d \d\d:\d\d)", re.MULTILINE)


def check_recorded(bucket: Bucket, directory: Path, log: str, truth: Callable[..., TruthCandle]) -> None:
    """Check that each candle that was logged as recorded is in the lake once, with the truth's values."""
    logged = {found.groups() for found in RECORDED.finditer(log)}
    bucket.download("lake", directory / "copy")
    rows = plain_rows(directory / "copy", KEY_AND_VALUES + ", strftime(candle_begin_time, '%Y-%m-%d %H:%M')")
    keys = [(row[0], row[1], row[2], row[-1]) for row in rows]
    assert len(set(keys)) == len(keys), "a candle is there twice"
    assert len(logged) >= KILLS
    assert logged <= set(keys), f"lost: {sorted(logged - set(keys))[:5]}"
    for market, symbol, interval, begin_ms, end_ms, *values, _ in rows:
        candle = truth(market, symbol, interval, begin_ms)
        assert (end_ms, *values) == (candle.end_ms, *candle.numbers())


def test_kills_lose_nothing_and_repeat_nothing(bucket: Bucket, tmp_path: Path) -> None:
    """Killed again and again, a recorder's every logged candle is in the store exactly once."""
    log, state = tmp_path / "log", tmp_path / "state"
    chance = random.Random(3)

    async def main() -> None:
        async with serve(SandboxOptions(speed=120, symbols=6)) as sandbox:
            arguments = [
                "record", "--log-candles", "spot:*:1m,3m", "usdt_futures:*:1m", "--exchange", sandbox.url,
                "--lake", bucket.uri("lake"), "--state-dir", str(state), "--flush-every", "200ms",
            ]  # fmt: skip
            for kill in range(KILLS + 1):
                begun = len(log.read_bytes()) if log.exists() else 0
                with child(log, *arguments) as recorder:
                    await until(lambda begun=begun: b"\nrecorded " in log.read_bytes()[begun:])
                    if kill < KILLS:
                        await asyncio.sleep(
                            chance.uniform(0, 0.8)
                        )  # the moment of the kill is the test's input
                        recorder.kill()
                    else:
                        assert await asyncio.to_thread(recorder.stop) == 0
            check_recorded(bucket, tmp_path, recorder.logged(), sandbox.truth.candle)

    asyncio.run(main())
    assert not list(state.glob("_lakewriter/journal/*/*.ndjson")), "a segment was left behind"
    # Another host reads the subscriptions and gaps in the store.
    lake = open_to_read(bucket.uri("lake"))
    assert query(lake, "FROM subscriptions").num_rows == 12 + 6
    assert {path.parent.name for path in (tmp_path / "copy/_lakewriter").rglob("*.ndjson")} >= {
        "instruments",
        "subscriptions",
    }


def test_an_hour_without_the_store(seaweed: Seaweed, bucket: Bucket, tmp_path: Path) -> None:
    """The store is killed for an hour of the exchange: candles wait in the journal, and the log says so once."""
    log, state = tmp_path / "log", tmp_path / "state"

    async def main() -> None:
        async with serve(SandboxOptions(speed=SPEED, symbols=4)) as sandbox:
            arguments = [
                "record", "--log-candles", "spot:*:1m", "usdt_futures:*:1m", "--exchange", sandbox.url,
                "--lake", bucket.uri("lake"), "--state-dir", str(state), "--flush-every", "300ms",
                "--grace", f"{5 * SPEED}s",
            ]  # fmt: skip
            with child(log, *arguments) as recorder:
                await asyncio.to_thread(recorder.wait_for, "flushed")
                away_ms = sandbox.now_ms()
                seaweed.stop(signal.SIGKILL)
                await asyncio.to_thread(recorder.wait_for, "candles wait in the journal")
                await until(lambda: sandbox.now_ms() > away_ms + either(1, 24) * HOUR_MS)
                assert list(state.glob("_lakewriter/journal/*/*.ndjson"))
                recorded = len(RECORDED.findall(recorder.logged()))
                shown = await asyncio.to_thread(
                    run, "status", "--lake", bucket.uri("lake"), "--state-dir", str(state)
                )
                assert shown.returncode == 1
                assert re.search(
                    r"has not answered for [\d.]+ (s|min); [\d,]+ candles are safe in the journal",
                    shown.stderr,
                )
                assert re.search(r"^ *size +not known$", shown.stdout, re.MULTILINE)
                await asyncio.to_thread(seaweed.start)
                await asyncio.to_thread(recorder.wait_for, "the store is back")
                assert await asyncio.to_thread(recorder.stop) == 0
            assert recorded > either(1, 24) * 60 * 8
            check_recorded(bucket, tmp_path, recorder.logged(), sandbox.truth.candle)

    asyncio.run(main())
    said = [line for line in log.read_text().splitlines() if re.search(r" (WARNING|ERROR) ", line)]
    outage = [line for line in said if "the store" in line]
    assert len(outage) == 2 and "s3://" in outage[0] and "is back" in outage[1], outage


def test_backfill(bucket: Bucket, tmp_path: Path) -> None:
    """A backfill fills a lake in a store, and `coverage` on another host finds nothing missing."""

    async def main() -> None:
        async with serve(SandboxOptions(speed=1, symbols=4)) as sandbox:
            lake = ("--lake", bucket.uri("lake"))
            arguments = ("backfill", "spot:BTCUSDT:1h", "--since", "10d", "--exchange", sandbox.url, *lake)
            planned = await asyncio.to_thread(
                run, *arguments, "--dry-run", "--state-dir", str(tmp_path / "one")
            )
            assert planned.returncode == 0, planned.stderr
            assert bucket.keys("lake") == []
            done = await asyncio.to_thread(run, *arguments, "--state-dir", str(tmp_path / "one"))
            assert done.returncode == 0, done.stderr
            found = await asyncio.to_thread(
                run, "coverage", "--json", *lake, "--state-dir", str(tmp_path / "two")
            )
            assert found.returncode == 0, found.stderr
            totals = json.loads(found.stdout.splitlines()[-1])["totals"]
            assert totals["expected"] >= 9 * 24 and totals["missing"] == 0

    asyncio.run(main())


def test_forget_is_known_elsewhere(bucket: Bucket, tmp_path: Path) -> None:
    """Removed candles are gone from the store, and every host reads who removed them."""
    make_lake(tmp_path / "lake", [rest_candle(n, symbol=symbol) for n in range(5) for symbol in ("A", "B")])
    uri = bucket.upload(tmp_path / "lake", "lake")
    done = run(
        "forget",
        "spot:A:1m",
        "--yes",
        "--reason",
        "a try",
        "--lake",
        uri,
        "--state-dir",
        str(tmp_path / "one"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    lake = open_to_read(uri)
    assert [found.partition.symbol for found in lake.files()] == ["B"]
    assert query(lake, "SELECT symbol, candles, reason FROM forgotten").to_pylist() == [
        {"symbol": "A", "candles": 5, "reason": "a try"}
    ]


def test_state_directory_of_another_lake(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state directory belongs to one lake: journals of two lakes would be mixed."""
    monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(tmp_path / "state"))
    create_lake(bucket.uri("one"), "test")
    done = run("flush", "--lake", bucket.uri("one"), "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 0
    done = run("import", __file__, "--lake", bucket.uri("two"), "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 1
    assert f"belongs to the lake s3://{bucket.name}/one" in done.stderr
