"""Statuses of recorders and lakes for tests, with numbers that the test chooses."""

from typing import Any

import msgspec

from lakewriter.recording.histogram import Distribution
from lakewriter.recording.status import MarketStatus, RecorderStatus
from lakewriter.status.facts import LakeStatus
from lakewriter.status.open_gaps import OpenGaps
from lakewriter.status.recorders import RecorderFacts
from lakewriter.status.size import LakeSize

NOW_MS = 1_796_040_000_000  # 2026-11-30 12:00
HOUR_MS = 3_600_000
CONFIG = "/etc/lakewriter.toml"

_NONE = Distribution(0, 0, 0, 0)


def recorder_status(**fields: Any) -> RecorderStatus:
    """Return the status of a healthy recorder that started an hour ago, with some fields replaced."""
    values: dict[str, Any] = {
        "recorder": CONFIG,
        "version": "0.1.0",
        "host": "db1",
        "pid": 812,
        "started_at_ms": NOW_MS - HOUR_MS,
        "at_ms": NOW_MS - 1_000,
        "series": 2,
        "live_series": 2,
        "markets": (MarketStatus("spot", 2, 1, 0, 0, 0, NOW_MS, 1.0, 12),),
        "connections": 1,
        "clock_offset_ms": 12,
        "lag_ms": 400,
        "streamed_ms": _NONE,
        "rest_ms": _NONE,
        "commit_candles": _NONE,
        "commit_ms": _NONE,
        "queue_max": 10_000,
        "last": None,
        "last_flush": None,
        "disk": None,
        "journal_bytes_max": None,
        "store_away_ms": None,
    }
    for field in msgspec.structs.fields(RecorderStatus):
        values.setdefault(field.name, () if "tuple" in str(field.type) else 0)
    return RecorderStatus(**(values | fields))


def recorder_facts(state: str = "recording", **fields: Any) -> RecorderFacts:
    """Return the facts of a recorder with a healthy status, with some fields replaced."""
    values: dict[str, Any] = {
        "journal": "db1-812-abc",
        "state": state,
        "status": recorder_status(),
        "journal_bytes": 0,
        "journal_candles": 0 if state == "dead" else None,
        "seen_at_ms": NOW_MS,
    }
    return RecorderFacts(**(values | fields))


def lake_size(**fields: Any) -> LakeSize:
    """Return a small size, with some fields replaced."""
    values: dict[str, Any] = {
        "series": 2,
        "partitions": 2,
        "files": 2,
        "file_bytes": 200_000,
        "is_estimated": False,
        "rows": 2_880,
        "rows_are_estimated": False,
        "growth_bytes_a_day": 200_000,
        "measured_at_ms": NOW_MS,
    }
    return LakeSize(**(values | fields))


def a_lake_status(*recorders: RecorderFacts, **fields: Any) -> LakeStatus:
    """Return the status of a healthy lake with these recorders, with some fields replaced."""
    values: dict[str, Any] = {
        "lake": "/srv/candles",
        "at_ms": NOW_MS,
        "recorders": recorders,
        "most_overdue": None,
        "lag_ms": None,
        "today_since_ms": None,
        "last_flush": None,
        "clock_offset_ms": None,
        "gaps": OpenGaps(),
        "last_compaction": None,
        "size": lake_size(),
        "disk": None,
    }
    for field in msgspec.structs.fields(LakeStatus):
        if field.required:
            values.setdefault(field.name, 0)
    return LakeStatus(**(values | fields))
