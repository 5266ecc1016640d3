"""The status of a lake, collected from its files.

Cost with 10,000 partitions on a local disk: see `size` for the size, and some 20 ms for
all else. `lake_status` measures the size unless the caller passes one. So a page that is
asked each second measures the size once a minute, and passes it in between.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lakewriter.disk_forecast import days_until_full
from lakewriter.interval import DAY_MS
from lakewriter.lake.compaction_record import read_compaction_record
from lakewriter.lake.host_reports import living_anywhere
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.published import current_ledgers
from lakewriter.lake.storage import StoreAwayError
from lakewriter.lake.subscriptions import read_periods
from lakewriter.recording.status import RecorderStatus
from lakewriter.series import Series
from lakewriter.status.attention import attention
from lakewriter.status.facts import DiskState, LakeStatus
from lakewriter.status.open_gaps import OpenGaps, read_open_gaps
from lakewriter.status.recorders import RemoteRecorder, read_recorders, read_remote_recorders
from lakewriter.status.size import UNKNOWN_SIZE, LakeSize, measure_size


def lake_status(
    store: LakeStore, now_ms: int, *, lake: str | None = None, size: LakeSize | None = None
) -> LakeStatus:
    """Return the status of a lake at this moment. The call blocks.

    Args:
        store: the lake, opened to read.
        now_ms: the host's time.
        lake: the lake as the user named it, for the commands in `attention`; None for the default.
        size: a recent size of the lake; None measures it.

    Raises:
        LakeError: if a ledger or a directory cannot be read.
    """
    recorders = read_recorders(store.state_dir)
    living = [fact.status for fact in recorders if fact.status is not None and fact.state == "recording"]
    gaps, away = OpenGaps(), ""
    remote: list[RemoteRecorder] = []
    unrecorded: dict[Series, int] = {}
    try:
        with current_ledgers(store) as root:
            remote = read_remote_recorders(store, root, now_ms) if store.is_remote else []
            unrecorded = _unrecorded(store, root, now_ms)
        gaps = read_open_gaps(store)
    except StoreAwayError as error:
        away, size = error.reason, UNKNOWN_SIZE
    if size is None:
        size = measure_size(store, now_ms, _exchange_ms(living, now_ms), _recording_since_ms(living, now_ms))
    today = [
        fact.status for fact in recorders if fact.status and fact.status.at_ms // DAY_MS == now_ms // DAY_MS
    ]
    started_ms = min((own.started_at_ms for own in today), default=None)
    offsets_ms = [own.clock_offset_ms for own in living if own.clock_offset_ms is not None]
    example = min(unrecorded, key=lambda series: (unrecorded[series], series), default=None)
    status = LakeStatus(
        lake=store.name,
        at_ms=now_ms,
        recorders=tuple(recorders),
        remote_recorders=tuple(remote),
        series=sum(own.series for own in living),
        live_series=sum(own.live_series for own in living),
        polled_series=sum(own.polled_series for own in living),
        silent_series=sum(own.silent_series for own in living),
        overdue_series=sum(own.overdue_series for own in living),
        most_overdue=max(
            (own.most_overdue[0] for own in living if own.most_overdue),
            key=lambda each: each.overdue_ms,
            default=None,
        ),
        lag_ms=max((own.lag_ms for own in living if own.lag_ms is not None), default=None),
        candles_today=sum(own.candles_today for own in today),
        today_since_ms=started_ms if started_ms and started_ms // DAY_MS == now_ms // DAY_MS else None,
        queued=sum(own.queued for own in living),
        buffered=sum(own.buffered for own in living) + sum(fact.journal_candles or 0 for fact in recorders),
        journal_bytes=sum(fact.journal_bytes for fact in recorders),
        healing_series=sum(own.healing_series for own in living),
        healing_candles=sum(own.healing_candles for own in living),
        last_flush=max(
            (own.last_flush for own in living if own.last_flush),
            key=lambda flush: flush.ended_at_ms,
            default=None,
        ),
        clock_offset_ms=max(offsets_ms, key=abs, default=None),
        gaps=gaps,
        last_compaction=read_compaction_record(store),
        size=size,
        disk=_disk(store, living, size),
        store_away=away,
        unrecorded_series=len(unrecorded),
        unrecorded_example=example,
        unrecorded_ms=max(0, _exchange_ms(living, now_ms) - unrecorded[example]) if example else 0,
    )
    return msgspec.structs.replace(status, attention=attention(status, lake))


def _unrecorded(store: LakeStore, root: Path, now_ms: int) -> dict[Series, int]:
    """Return the series that are subscribed to and that no living process records.

    Returns:
        for each series, the exchange's time at which a recorder last confirmed it.
    """
    # The periods are read first: a recorder locks its journal before it writes a period.
    still = [period for period in read_periods(root) if period.is_open]
    alive = living_anywhere(store, root, now_ms) if still else frozenset()
    recorded = {period.series for period in still if period.journal in alive}
    confirmed: dict[Series, int] = {}
    for period in still:
        if period.owed_ms is not None and period.series not in recorded:
            confirmed[period.series] = max(period.seen_ms, confirmed.get(period.series, 0))
    return confirmed


def _exchange_ms(living: Sequence[RecorderStatus], now_ms: int) -> int:
    """Return the latest exchange's time that a recorder knows, or the host's time."""
    return max(
        (each.exchange_ms for own in living for each in own.markets if each.exchange_ms is not None),
        default=now_ms,
    )


def _recording_since_ms(living: Sequence[RecorderStatus], now_ms: int) -> int | None:
    """Return the exchange's time at which the oldest living recorder started; None without a recorder."""
    if not living:
        return None
    oldest = min(living, key=lambda own: own.started_at_ms)
    rate = max((each.clock_rate for each in oldest.markets), default=1.0)
    return _exchange_ms(living, now_ms) - round((now_ms - oldest.started_at_ms) * rate)


def _disk(store: LakeStore, living: Sequence[RecorderStatus], size: LakeSize) -> DiskState | None:
    if store.is_remote:
        return None
    usage = os.statvfs(store.root)
    free_bytes, has_files = usage.f_bavail * usage.f_frsize, usage.f_files > 0
    measured = max(
        (own.disk.growth_bytes_a_day for own in living if own.disk and own.disk.growth_bytes_a_day),
        default=None,
    )
    # A day of a sandbox's clock is shorter.
    rate = max((each.clock_rate for own in living for each in own.markets), default=1.0)
    growth = measured if measured is not None else round(size.growth_bytes_a_day * rate)
    return DiskState(
        free_bytes=free_bytes,
        total_bytes=usage.f_blocks * usage.f_frsize,
        free_files=usage.f_favail if has_files else None,
        total_files=usage.f_files if has_files else None,
        growth_bytes_a_day=growth or None,
        growth_is_measured=measured is not None,
        days_until_full=days_until_full(free_bytes, growth),
    )
