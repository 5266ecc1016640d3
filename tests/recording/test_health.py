"""The health of a recorder: what its status means for a probe and for a watchdog."""

from pathlib import Path

import msgspec
import pytest

from lakewriter.recording.health import ABSENT_MS_MAX, Health, judge
from lakewriter.recording.series_states import STUCK_AFTER_MS
from lakewriter.recording.status import COMMIT_WAITS_MS, MarketStatus, OverdueSeries, RecorderStatus
from lakewriter.sandbox.faults.table import Fault
from lakewriter.sandbox.server import SandboxOptions, serve
from support.candles import stream_candle
from support.recording import recording
from support.running import until
from support.side_by_side import side_by_side
from support.statuses import NOW_MS, recorder_status

CANDLE = stream_candle(0)
SPOT = MarketStatus("spot", 4, 1, 0, 0, 0, exchange_ms=1)


def status(**changes: object) -> RecorderStatus:
    """Return the status of a healthy recorder, with some changes."""
    return recorder_status(**{"markets": (SPOT,), "last": CANDLE, **changes})


def overdue(ms: int, *, is_absent: bool = False) -> dict[str, object]:
    late = OverdueSeries("spot", "BTCUSDT", "1m", 0, ms, is_absent)
    return {"overdue_series": 1, "most_overdue": (late,)}


def test_candles_in_time_are_health() -> None:
    """A candle that is a little late is requested from REST, and no failure yet."""
    assert (judge(status()).status, judge(status()).reason) == ("ok", "")
    assert judge(status(**overdue(STUCK_AFTER_MS))).status == "ok"


def test_before_the_first_candle_it_is_starting() -> None:
    """A living process is not enough, and each market's time must be known."""
    health = judge(status(last=None))
    assert (health.status, health.reason) == ("starting", "no candle is recorded yet")
    unknown = msgspec.structs.replace(SPOT, exchange_ms=None)
    young = {"markets": (unknown,), "started_at_ms": NOW_MS - 30_000}
    health = judge(status(**young))
    assert (health.status, health.reason) == ("starting", "spot: the exchange's time is not known yet")
    # No candle is expected without the time, so nothing would ever be overdue.
    health = judge(status(last=None, markets=(unknown,)))
    assert (health.status, health.reason) == ("failing", "spot: the exchange's time is not known yet")


def test_overdue_candles_are_a_failure() -> None:
    """The reason names the series that is overdue for longest, and counts the others."""
    health = judge(status(**overdue(STUCK_AFTER_MS + 1)))
    assert (health.status, health.reason) == ("failing", "spot BTCUSDT 1m: a candle is overdue by 60 s")
    health = judge(status(**{**overdue(90_000), "overdue_series": 3}))
    assert health.reason == "spot BTCUSDT 1m: a candle is overdue by 90 s; 2 more series are overdue"
    health = judge(status(**{**overdue(90_000), "overdue_series": 2}))
    assert health.reason.endswith("; 1 more series is overdue")
    # Also before the first candle, so that the reason is not hidden.
    assert judge(status(last=None, **overdue(90_000))).status == "failing"


def test_candles_that_the_exchange_lacks_have_more_time() -> None:
    """A halted symbol fails the probe only after its reason should be known."""
    assert judge(status(**overdue(ABSENT_MS_MAX, is_absent=True))).status == "ok"
    health = judge(status(**overdue(ABSENT_MS_MAX + 1, is_absent=True)))
    assert health.reason == "spot BTCUSDT 1m: a candle is overdue by 900 s, and REST lacks it too"


def test_a_journal_that_waits_is_a_failure_and_stuck() -> None:
    """While the disk does not answer, nothing is durable, whatever arrives."""
    health = judge(status(commit_waits_ms=COMMIT_WAITS_MS + 1))
    assert (health.status, health.is_stuck) == ("failing", True)
    assert health.reason == "the journal has waited 10 s for the disk"
    assert judge(status(commit_waits_ms=COMMIT_WAITS_MS)).status == "ok"


@pytest.mark.parametrize(("stuck_series", "is_stuck"), [(0, False), (1, False), (2, True), (4, True)])
def test_half_of_a_market_makes_it_stuck(stuck_series: int, is_stuck: bool) -> None:
    """A single series restarts no recorder; most of a market does, whatever the other markets do."""
    futures = MarketStatus("usdt_futures", 500, 3, 0, 0, 0, exchange_ms=1)
    spot = msgspec.structs.replace(SPOT, stuck_series=stuck_series)
    assert judge(status(markets=(futures, spot))).is_stuck is is_stuck


@pytest.mark.slow
@side_by_side
async def test_a_series_whose_stream_is_back_is_not_stuck(tmp_path: Path) -> None:
    """A candle that REST still owes is overdue; but new candles come, so no restart is needed."""
    async with (
        serve(SandboxOptions(speed=300.0, push_every_ms=200, symbols=4)) as sandbox,
        recording(sandbox, tmp_path / "lake", "spot:BTCUSDT:1m") as running,
    ):

        def now() -> Health:
            return judge(running.recorder.status())

        await until(lambda: now().status == "ok")
        sandbox.add_fault(Fault("rest_status", value=503))
        sandbox.mute("spot", "BTCUSDT")
        await until(lambda: now().is_stuck)
        sandbox.unmute("spot", "BTCUSDT")
        await until(lambda: not now().is_stuck)
        assert now().status == "failing"
        # The same again: the candle that is still missing hides nothing.
        sandbox.mute("spot", "BTCUSDT")
        await until(lambda: now().is_stuck)
        sandbox.clear_faults()
        await until(lambda: now().status == "ok")
