"""What needs a person, by statuses that are passed in."""

import shlex
from typing import Any

import msgspec
import pytest

from lakewriter.cli import COMMANDS
from lakewriter.lake.compaction_record import CompactionRecord
from lakewriter.recording.status import MarketStatus, OverdueSeries, SilentSeries
from lakewriter.status.attention import attention
from lakewriter.status.facts import DiskState, LakeStatus
from lakewriter.status.open_gaps import OpenGaps
from lakewriter.status.recorders import RemoteRecorder
from support.statuses import (
    CONFIG,
    HOUR_MS,
    NOW_MS,
    a_lake_status,
    recorder_facts,
    recorder_status,
)

MINUTE_MS = 60_000
GB = 10**9


def living(**fields: Any) -> LakeStatus:
    """Return the status of a lake with one living recorder, some of whose counts are replaced."""
    return a_lake_status(recorder_facts(status=recorder_status(**fields)))


def overdue(ms: int, count: int = 1) -> dict[str, Any]:
    late = OverdueSeries("spot", "BTCUSDT", "1m", NOW_MS - HOUR_MS, ms)
    return {"overdue_series": count, "most_overdue": (late,)}


def silent(ms: int) -> dict[str, Any]:
    return {
        "silent_series": 1,
        "silent_longest": (SilentSeries("spot", "BTCUSDX", "1m", NOW_MS - HOUR_MS, ms),),
    }


def unrecorded(ms: int, count: int = 1) -> dict[str, Any]:
    return {
        "unrecorded_series": count,
        "unrecorded_example": ("spot", "BTCUSDT", "1m"),
        "unrecorded_ms": ms,
    }


def disk(free: int, growth: int, total: int = 1000 * GB, files: int | None = None) -> DiskState:
    return DiskState(
        free_bytes=free,
        total_bytes=total,
        free_files=files,
        total_files=None if files is None else 1_000_000,
        growth_bytes_a_day=growth,
        growth_is_measured=True,
        days_until_full=free / growth,
    )


COMPACTION = CompactionRecord(NOW_MS, 1.0, 9, 1, 900, 0, 0, 2, 1000, 900, True)

SILENT = RemoteRecorder(
    host="db2-5a0c11f2",
    journal="db2-7-abc",
    state="silent",
    status=None,
    published_at_ms=NOW_MS - 3 * MINUTE_MS,
)

# A name, a status, the sentence's end or middle, and the command's first words.
FINDINGS = [
    ("dead_recorder", a_lake_status(recorder_facts("dead", journal_candles=340)), "340 candles of its journal are not in", f"lakewriter record --config {CONFIG}"),
    ("dead_recorder", a_lake_status(recorder_facts("dead", journal_candles=1, status=None)), "1 candle of its journal is not in", "lakewriter flush"),
    ("dead_recorder", a_lake_status(recorder_facts("dead")), "died; none records now", f"lakewriter record --config {CONFIG}"),
    ("dead_recorder", a_lake_status(recorder_facts(), recorder_facts("dead", journal="db1-1", journal_candles=3)), "3 candles", "lakewriter flush"),
    ("silent_host", a_lake_status(remote_recorders=(SILENT,)), "the recorder db2-7-abc on the host db2-5a0c11f2 reported nothing for 3 min", "lakewriter unsubscribe --host db2-5a0c11f2"),
    ("hanging_recorder", living(at_ms=NOW_MS - 90_000), "reported nothing for 90 s", "ps "),
    ("disk_refuses", living(commit_waits_ms=34_000), "has taken no candle for 34 s", "df -h /srv/candles"),
    ("journal_full", living(journal_bytes=4 * GB, journal_bytes_max=4 * GB, buffered=9_000_000, commit_waits_ms=34_000), "the journal has reached its limit of 4.0 GB, and recording waits: 9,000,000 candles", "lakewriter doctor"),
    ("store_away", living(store_away_ms=61 * MINUTE_MS, journal_bytes=83_000_000, journal_bytes_max=4 * GB, buffered=180_000), "/srv/candles has not answered for 61 min; 180,000 candles are safe in the journal, 83.0 MB of at most 4.0 GB", "lakewriter doctor"),
    ("store_away", a_lake_status(store_away="lake: s3://b/lake: cannot connect to the store"), "s3://b/lake: cannot connect to the store; gaps and size are not known", "lakewriter doctor"),
    ("overdue", living(**overdue(3 * MINUTE_MS)), "spot BTCUSDT 1m is overdue", "lakewriter gaps --until now"),
    ("overdue", living(**overdue(3 * MINUTE_MS, 12)), "spot BTCUSDT 1m and 11 more series are overdue", "lakewriter gaps --until now"),
    ("unrecorded", a_lake_status(recorder_facts(), **unrecorded(7 * MINUTE_MS)), "spot BTCUSDT 1m is subscribed to, and nothing recorded it for 7 min", "lakewriter coverage --until now"),
    ("unrecorded", a_lake_status(recorder_facts(), **unrecorded(7 * MINUTE_MS, 3)), "spot BTCUSDT 1m and 2 more series are subscribed to, and nothing recorded them", "lakewriter coverage --until now"),
    ("time_unknown", living(markets=(MarketStatus("spot", 2, 1, 0, 0, 0),)), "the exchange's time is unknown", "lakewriter doctor"),
    ("brings_nothing", living(**silent(2 * MINUTE_MS)), "spot BTCUSDX 1m is subscribed to, and brought nothing", "lakewriter query "),
    ("unmerged", living(unmerged_partitions=1), "1 partition cannot be merged", "lakewriter verify"),
    ("damaged_journal", a_lake_status(recorder_facts("dead", status=None, damaged=("00000001.ndjson.bad",))), "are kept in 1 file", "ls -l /srv/candles/_lakewriter/journal/db1-812-abc/00000001.ndjson.bad"),
    ("gaps", a_lake_status(gaps=OpenGaps(reasonless_candles=7, reasonless_series=2, example=("spot", "BTCUSDT", "1m"))), "7 candles of spot BTCUSDT 1m and 1 more series are missing", "lakewriter gaps"),
    ("gaps", a_lake_status(gaps=OpenGaps(healing_candles=5, healing_series=1, unchecked_candles=10)), "10 candles could not be healed", "lakewriter coverage"),
    ("disk_full", a_lake_status(disk=disk(12_000_000, 10 * GB)), "the disk is full: 12.0 MB are left", "df -h /srv/candles"),
    ("disk_full", a_lake_status(disk=disk(0, 10 * GB, total=2_000_000)), "the disk is full: 0 bytes are left", "df -h /srv/candles"),
    ("disk_full", a_lake_status(disk=disk(900 * GB, GB, files=3)), "the disk is full: 3 files can still be created", "df -i /srv/candles"),
    ("disk_full_soon", a_lake_status(disk=disk(32 * GB, 10 * GB)), "full in 3.2 days", "lakewriter forget"),
    ("disk_full_soon", a_lake_status(disk=disk(5 * GB, 10 * GB)), "full in 12 h", "lakewriter forget"),
    ("clock_off", a_lake_status(clock_offset_ms=-3_400), "3.4 s behind the exchange", "timedatectl"),
    ("compaction_failed", a_lake_status(last_compaction=COMPACTION), "could not fold the files of 2 partitions", "lakewriter compact"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "status", "sentence", "command"),
    FINDINGS,
    ids=[f"{each[0]}-{number}" for number, each in enumerate(FINDINGS)],
)
def test_each_finding_has_a_sentence_and_a_command(
    kind: str, status: LakeStatus, sentence: str, command: str
) -> None:
    """A finding says what is wrong in one line, and the command to run exists."""
    (found,) = attention(status, None)
    assert found.kind == kind
    assert sentence in found.sentence
    assert "\n" not in found.sentence
    assert found.command.startswith(command)
    words = shlex.split(found.command)
    assert words[0] != "lakewriter" or words[1] in COMMANDS


QUIET = [
    a_lake_status(),
    a_lake_status(remote_recorders=(msgspec.structs.replace(SILENT, state="recording"),)),
    living(),
    living(**overdue(30_000)),
    living(**silent(30_000)),
    living(at_ms=NOW_MS - 5_000),
    living(commit_waits_ms=900),
    living(store_away_ms=30_000, buffered=90, journal_bytes=9_000, journal_bytes_max=4 * GB),
    living(markets=(MarketStatus("spot", 2, 1, 0, 0, 0),), started_at_ms=NOW_MS - 20_000),
    living(healing_candles=500, healing_series=2, polled_series=1, reconnects=3),
    a_lake_status(recorder_facts("busy", status=None)),
    a_lake_status(recorder_facts(), recorder_facts("dead", journal="db1-1")),
    a_lake_status(clock_offset_ms=1_900),
    a_lake_status(disk=disk(100 * GB, 10 * GB)),
    a_lake_status(disk=disk(50_000_000, 1_000, total=64_000_000, files=500_000)),
    a_lake_status(gaps=OpenGaps(healing_candles=5, healing_series=1)),
    a_lake_status(**unrecorded(HOUR_MS)),
    a_lake_status(recorder_facts(), **unrecorded(5 * MINUTE_MS)),
    a_lake_status(
        recorder_facts(status=recorder_status(started_at_ms=NOW_MS - 30_000)), **unrecorded(HOUR_MS)
    ),
]


@pytest.mark.parametrize("status", QUIET, ids=range(len(QUIET)))
def test_what_mends_itself_is_no_finding(status: LakeStatus) -> None:
    """A lake without a recorder, a late candle of seconds and a heal in progress are no findings."""
    assert attention(status, None) == ()


def test_a_sandbox_is_late_in_real_time() -> None:
    """A candle that is two minutes late at 60 times speed is late for two seconds."""
    fast = (MarketStatus("spot", 2, 1, 0, 0, 0, NOW_MS, 60.0),)
    assert not attention(living(markets=fast, **overdue(2 * MINUTE_MS)), None)
    (found,) = attention(living(markets=fast, **overdue(70 * MINUTE_MS)), None)
    assert "70 s ago" in found.sentence


def test_commands_name_the_lake_as_the_user_did() -> None:
    """With `--lake`, each lakewriter command has it, quoted for a shell."""
    for _, status, _, command in FINDINGS:
        if command.startswith("lakewriter"):
            (found,) = attention(status, "/mnt/my lake")
            assert shlex.split(found.command)[-2:] == ["--lake", "/mnt/my lake"]


def test_findings_are_sorted_by_urgency() -> None:
    """Lost candles come before a full disk, and both before a clock that is off."""
    status = a_lake_status(
        recorder_facts(status=recorder_status(commit_waits_ms=20_000)),
        clock_offset_ms=9_000,
        disk=disk(GB, 2 * GB),
    )
    assert [each.kind for each in attention(status, None)] == ["disk_refuses", "disk_full_soon", "clock_off"]
