"""The health of a recorder, judged by its status. Pure.

A recorder is healthy if candles become durable in time. It is not enough that its
process lives. Before the first candle it is starting: no candle was due yet. A market whose
time stays unknown is a failure, because no candle of it is expected then.

A recorder is stuck if a restart may help: its journal waits for the disk, or most series
of a market bring nothing, neither by stream nor by REST. A single series that the
exchange halted makes no recorder stuck.
"""

from typing import Literal

import msgspec

from lakewriter.recording.series_states import STUCK_AFTER_MS
from lakewriter.recording.status import COMMIT_WAITS_MS, TIME_UNKNOWN_MS, OverdueSeries, RecorderStatus

# A candle that REST lacks too is explained after about five minutes, unless the symbol is
# halted, or left the exchange and its list does not say so yet. The list is read every ten minutes.
ABSENT_MS_MAX = 15 * 60_000

# A recorder is stuck if this share of the series of a market is stuck.
STUCK_SHARE = 0.5


class Health(msgspec.Struct, frozen=True):
    """The health of a recorder.

    Args:
        status: "ok", "starting" or "failing".
        reason: one sentence; "" if the status is "ok".
        is_stuck: whether a restart may help.
        recorded: candles recorded since the start.
        overdue_series: series with a late candle.
        lag_ms: the time from the end of the candle streamed last to its commit; None before it.
    """

    status: Literal["ok", "starting", "failing"]
    reason: str
    is_stuck: bool
    recorded: int
    overdue_series: int
    lag_ms: int | None


def judge(status: RecorderStatus) -> Health:
    """Return the health that a status shows."""
    failure = _failure(status)
    reason = failure or _not_started(status)
    return Health(
        "failing" if failure else "starting" if reason else "ok",
        reason,
        _is_stuck(status),
        status.recorded,
        status.overdue_series,
        status.lag_ms,
    )


def _failure(status: RecorderStatus) -> str:
    if status.commit_waits_ms > COMMIT_WAITS_MS:
        return f"the journal has waited {status.commit_waits_ms // 1000} s for the disk"
    late = [each for each in status.most_overdue if each.overdue_ms > _overdue_ms_max(each)]
    if not late:
        is_long = status.at_ms - status.started_at_ms > TIME_UNKNOWN_MS
        return _time_unknown(status) if is_long else ""
    first = late[0]
    lacks = ", and REST lacks it too" if first.is_absent else ""
    others = status.overdue_series - 1
    more = f"; {others} more series {'is' if others == 1 else 'are'} overdue" if others else ""
    return (
        f"{first.market} {first.symbol} {first.interval}: a candle is overdue by"
        f" {first.overdue_ms // 1000} s{lacks}{more}"
    )


def _overdue_ms_max(overdue: OverdueSeries) -> int:
    return ABSENT_MS_MAX if overdue.is_absent else STUCK_AFTER_MS


def _not_started(status: RecorderStatus) -> str:
    if status.last is None:
        return "no candle is recorded yet"
    return _time_unknown(status)


def _time_unknown(status: RecorderStatus) -> str:
    unknown = [each.market for each in status.markets if each.exchange_ms is None]
    return f"{', '.join(unknown)}: the exchange's time is not known yet" if unknown else ""


def _is_stuck(status: RecorderStatus) -> bool:
    return status.commit_waits_ms > COMMIT_WAITS_MS or any(
        each.stuck_series and each.stuck_series >= STUCK_SHARE * each.series for each in status.markets
    )
