"""`keep` of the config: a recorder forgets old candles, and coverage, verify and healing agree with it."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from lakewriter.config import Config, parse_keep
from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS, MINUTE_MS
from lakewriter.lake.forgotten import read_forgotten
from lakewriter.lake.lake import LakeStore
from lakewriter.sandbox import SandboxOptions, serve
from lakewriter.series import Series
from support.living_recorder import LivingRecorder, confirm_series, kill_recorder, start_recorder
from support.running import child, plain_rows, run, run_here
from support.truth_lakes import merge_truth

BTC = Series("spot", "BTCUSDT", "1m")
ETH = Series("spot", "ETHUSDT", "1m")
HOURS = Series("spot", "BTCUSDT", "1h")


@pytest.mark.parametrize(
    ("keep", "since", "line"),
    [
        ("400", None, "keep: '400' is not a number of days or weeks"),
        ("36h", None, "keep: '36h' is not a number of days or weeks"),
        ("7d", None, "keep: 7d is not a day longer than heal_limit, 7d: healing would fetch the forgotten candles again"),
        ("400d", "500d", "since: 500d is not shorter than keep, 400d: what it fetches would be forgotten"),
        ("400d", "400d", "since: 400d is not shorter than keep, 400d: what it fetches would be forgotten"),
        ("400d", "2024-01-01", "since: 2024-01-01 is a day, which will be older than keep, 400d, some time"),
    ],
)  # fmt: skip
def test_a_conflict_is_refused_at_the_start(keep: str, since: str | None, line: str, tmp_path: Path) -> None:
    """What would be fetched and forgotten in turns is refused in one line, and no lake is made."""
    (tmp_path / "lakewriter.toml").write_text(f'subscriptions = ["spot:BTCUSDT:1m"]\nkeep = "{keep}"')
    refused = run_here("record", *(("--since", since) if since else ()), cwd=tmp_path)
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, f"lakewriter: {line}")
    assert [path.name for path in tmp_path.iterdir()] == ["lakewriter.toml"]


def test_what_fits_is_accepted() -> None:
    """A longer keep, with a younger age as since, is accepted; the shortest one is a day above the limit."""
    assert parse_keep(Config(keep="400d"), heal_limit="7d", since="399d") == 400 * DAY_MS
    assert parse_keep(Config(keep="8d"), heal_limit="7d", since=None) == 8 * DAY_MS
    assert parse_keep(Config(keep="4w"), heal_limit="7d", since=None) == 28 * DAY_MS
    assert parse_keep(Config(), heal_limit="7d", since="2017-08-17") is None
    with pytest.raises(UsageError) as refused:
        parse_keep(Config(keep="5d"), heal_limit="7d", since=None)
    assert refused.value.hint == 'keep = "9d", or a shorter heal_limit'


@pytest.mark.slow
def test_a_recorder_keeps_what_it_shall(tmp_path: Path) -> None:
    """Old days of its own series go, others stay; coverage and verify find nothing, and a restart fetches none again."""
    config, lake = tmp_path / "lakewriter.toml", tmp_path / "lake"

    async def main() -> None:
        async with serve(SandboxOptions(speed=60)) as sandbox:
            today_ms = min(sandbox.now_ms(), int(time.time() * 1000)) // DAY_MS * DAY_MS
            began_ms = today_ms - 12 * DAY_MS
            store = LakeStore.create(str(lake), "test")
            for series in (BTC, ETH, HOURS):
                merge_truth(store, series, 12, began_ms, sandbox.truth)
            # It was subscribed all the time, and had a gap on the first day.
            journal = start_recorder(store, BTC, HOURS, now_ms=began_ms, name=str(config))
            owed = {BTC: began_ms, HOURS: began_ms}
            confirm_series(store, journal, BTC, HOURS, now_ms=began_ms, name=str(config), owed=owed)
            kill_recorder(journal)
            gaps = LivingRecorder(store.root, "old")
            gaps.ledger.mark(BTC, began_ms - 60 * MINUTE_MS, began_ms, "unhealable", began_ms, "refused")
            gaps.write()
            gaps.die()
            config.write_text(
                f'lake = "lake"\nkeep = "9d"\nexchange = "{sandbox.url}"\n'
                'subscriptions = ["spot:BTCUSDT:1m,1h"]\nflush_every = "1s"\n'
            )
            kept_ms = today_ms - 9 * DAY_MS
            for start in range(2):
                flags = ("--config", str(config), "--grace", "3m", "--log-candles")
                with child(tmp_path / f"log{start}", "record", *flags) as recorder:
                    await asyncio.to_thread(
                        recorder.wait_for, "retention: spot: forgot" if not start else "flushed"
                    )
                    await asyncio.to_thread(recorder.wait_for, "(?s)(recorded spot BTCUSDT 1m.*){5}")
                    assert await asyncio.to_thread(recorder.stop) == 0, recorder.logged()
                await asyncio.to_thread(check, lake, today_ms, kept_ms, began_ms)
            # The second start forgets nothing, and asks for nothing that was forgotten.
            assert "retention" not in recorder.logged()
            assert "cannot be healed" not in recorder.logged() or ", 0 cannot be healed" in recorder.logged()

    asyncio.run(main())
    told = re.search(r"forgot (\d+) candles in (\d+) partitions of 1 series", (tmp_path / "log0").read_text())
    assert told and (int(told[1]), int(told[2])) == (3 * 1440, 3)


def check(lake: Path, today_ms: int, kept_ms: int, began_ms: int) -> None:
    """Check which candles are there, and that all checks of the lake pass."""
    rows = [(Series(*row[:3]), int(str(row[3]))) for row in plain_rows(lake)]  # type: ignore[arg-type]
    begins = {series: [at for each, at in rows if each == series] for series in (BTC, ETH, HOURS)}
    assert begins[BTC][0] == kept_ms and begins[ETH] == list(range(began_ms, today_ms, MINUTE_MS))
    assert begins[BTC] == list(range(kept_ms, begins[BTC][-1] + 1, MINUTE_MS))
    month_ms = begins[HOURS][0]
    assert month_ms == began_ms or (month_ms > began_ms and time.gmtime(month_ms / 1000).tm_mday == 1)
    for command in (("coverage", "--until", "now", "--market", "spot", "--symbol", "BTCUSDT"), ("verify",)):
        done = run(*command, "--lake", str(lake))
        assert done.returncode == 0, done.stdout + done.stderr
    shown = run("gaps", "--lake", str(lake), "--symbol", "BTCUSDT").stdout
    assert "unhealable" not in shown and "unexplained" not in shown, shown
    assert {line.by for line in read_forgotten(lake)} == {"recorder"}
