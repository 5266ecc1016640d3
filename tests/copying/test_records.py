"""The records that `lakewriter copy` brings: gaps, subscriptions, instruments, forgotten ranges."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakewriter.cli import cli
from lakewriter.copying.pair import Pair
from lakewriter.copying.records import RecordCounts
from lakewriter.copying.run import Copy
from lakewriter.gap import Reason
from lakewriter.instrument import Instrument
from lakewriter.lake.forget import Selection, forget_partition, partitions_to_forget, removed_by_series
from lakewriter.lake.forgotten import ForgetPurpose, read_forgotten, record_finish, record_start
from lakewriter.lake.gaps.ledgers import read_gaps
from lakewriter.lake.instruments import read_instruments, record_instruments
from lakewriter.lake.journal_directories import recorder_directories
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.partition_filter import ALL, PartitionFilter
from lakewriter.lake.subscriptions import read_periods
from lakewriter.partition import day_of
from support.candles import BTC, ETH
from support.lakes import BEGIN_MS, files_and_bytes, make_lake, rest_candle
from support.living_recorder import (
    MINUTE_MS,
    LivingRecorder,
    confirm_series,
    kill_recorder,
    mark_gap,
    start_recorder,
)


def at(minute: int) -> int:
    return BEGIN_MS + minute * MINUTE_MS


def copy(source: LakeStore, target: LakeStore, wanted: PartitionFilter = ALL) -> RecordCounts:
    """Copy a lake, and return the numbers of copied records."""
    run = Copy(Pair(source, target), wanted, at(100_000), change=True, trust=True)
    assert not [each.errors for each in run if each.errors]
    return run.records


def answers(store: LakeStore) -> list[str]:
    """Return what the commands say about the completeness of a lake."""
    said = []
    for words in (
        ["coverage", "--json", "--until", "2024-06-30T02:00:00Z"],
        ["gaps", "--json", "--until", "2024-06-30T02:00:00Z"],
        ["query", "FROM subscriptions ORDER BY ALL", "--format", "csv"],
        ["query", "FROM instruments ORDER BY ALL", "--format", "csv"],
        ["query", "FROM forgotten ORDER BY ALL", "--format", "csv"],
    ):
        done = CliRunner().invoke(cli, [*words, "--lake", str(store.root)])
        said.append(f"{done.exit_code if words[0] != 'query' else ''} {done.output}")
    return said


def forget(store: LakeStore, start: int, stop: int) -> None:
    """Remove candles of minutes, and record it."""
    selection = Selection((BTC,), at(start), at(stop))
    purpose = ForgetPurpose("me@host", "wrong", (), at(500))
    items = list(partitions_to_forget(store, selection))
    planned = removed_by_series([forget_partition(store, item, selection, dry_run=True) for item in items])
    command = record_start(store, planned, purpose)
    done = [forget_partition(store, item, selection) for item in items]
    record_finish(store, command, removed_by_series(done), purpose, at(501))


@pytest.fixture
def source(tmp_path: Path) -> LakeStore:
    """A lake of a dead recorder with every kind of record."""
    present = [n for n in range(60) if n not in (5, 6, 20, 21, 22, 40)]
    store = make_lake(tmp_path / "a", [rest_candle(n) for n in present])
    forget(store, 50, 53)
    record_instruments(store, "spot", [Instrument("BTCUSDT", "TRADING"), Instrument("XUSDT", "BREAK")], at(1))
    record_instruments(store, "spot", [Instrument("BTCUSDT", "TRADING")], at(90))
    journal = start_recorder(store, BTC, ETH, now_ms=at(0))
    confirm_series(store, journal, BTC, now_ms=at(70))  # it leaves ETHUSDT
    kill_recorder(journal)
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 5, 7, "exchange_halt")
    mark_gap(recorder, 20, 22, "unhealable")
    mark_gap(recorder, 22, 23, "pending")
    recorder.die()
    return store


def test_the_target_answers_as_the_source(source: LakeStore, tmp_path: Path) -> None:
    """Coverage, gaps and the tables of records are those of the source; a second copy writes nothing."""
    target = make_lake(tmp_path / "b")
    counts = copy(source, target)
    assert (counts.gaps, counts.subscriptions, counts.instruments, counts.forgotten) == (3, 2, 2, 1)
    assert answers(target) == answers(source)
    assert "exchange_halt" in answers(target)[1] and "unexplained" in answers(target)[1]
    before = files_and_bytes(target.root)
    assert copy(source, target) == RecordCounts()
    assert files_and_bytes(target.root) == before


def test_nothing_of_a_recorder_is_copied(source: LakeStore, tmp_path: Path) -> None:
    """Journals, locks, and the caches of a host stay behind."""
    recorder = LivingRecorder(source.root)
    target = make_lake(tmp_path / "b")
    copy(source, target)
    assert recorder_directories(target.root) == []
    names = {Path(name).parts[1] for name in files_and_bytes(target.root) if name.startswith("_lakewriter")}
    assert names == {"lake.json", "gaps", "subscriptions", "instruments", "forgotten", "copied"}
    recorder.die()


def test_the_next_recorder_takes_the_copied_gaps_over(source: LakeStore, tmp_path: Path) -> None:
    """The gaps are in the ledger of the target's own recorder then, and a copy adds none of them again."""
    target = make_lake(tmp_path / "b")
    copy(source, target)
    known = {(gap.start_ms, gap.stop_ms) for gap in read_gaps(target.root) if gap.reason != "pending"}
    recorder = LivingRecorder(target.root)
    [ledger] = (target.root / "_lakewriter/gaps").iterdir()
    assert ledger == recorder.ledger.path
    assert known <= {(gap.start_ms, gap.stop_ms) for gap in read_gaps(target.root)} | {(at(20), at(22))}
    assert copy(source, target).gaps == 0
    recorder.die()


@pytest.mark.parametrize(
    ("theirs", "ours", "kept"),
    [
        ("exchange_halt", "unhealable", "exchange_halt"),
        ("unhealable", "exchange_halt", "exchange_halt"),
        ("unhealable", "pending", "unhealable"),
        ("pending", "unhealable", "unhealable"),
    ],
)
def test_the_more_final_reason_of_two_lakes_counts(
    tmp_path: Path, theirs: Reason, ours: Reason, kept: Reason
) -> None:
    """A candle that both lakes lack has one reason, and a second copy adds nothing."""
    source, target = (make_lake(tmp_path / name, [rest_candle(0), rest_candle(9)]) for name in ("a", "b"))
    for store, reason in ((source, theirs), (target, ours)):
        recorder = LivingRecorder(store.root)
        mark_gap(recorder, 3, 5, reason)
        recorder.die()
    copy(source, target)
    assert [(gap.start_ms, gap.stop_ms, gap.reason) for gap in read_gaps(target.root)] == [
        (at(3), at(5), kept)
    ]
    assert copy(source, target) == RecordCounts()


def test_a_candle_that_is_there_needs_no_reason(tmp_path: Path) -> None:
    """Each lake has what the other lacks: the union has no gap left."""
    source = make_lake(tmp_path / "a", [rest_candle(n) for n in (0, 1, 4)])
    target = make_lake(tmp_path / "b", [rest_candle(n) for n in (0, 2, 3, 4)])
    for store, gap in ((source, (2, 4)), (target, (1, 2))):
        recorder = LivingRecorder(store.root)
        mark_gap(recorder, *gap, "unhealable")
        recorder.die()
    copy(source, target)
    done = CliRunner().invoke(cli, ["gaps", "--json", "--lake", str(target.root)])
    assert (done.exit_code, done.stdout) == (0, "")


def test_a_gap_that_is_healed_later_is_none_after_the_next_copy(tmp_path: Path) -> None:
    """The recorder of the source heals a gap between two copies."""
    source, target = make_lake(tmp_path / "a", [rest_candle(n) for n in (0, 2)]), make_lake(tmp_path / "b")
    recorder = LivingRecorder(source.root)
    mark_gap(recorder, 1, 2, "pending")
    copy(source, target)
    done = CliRunner().invoke(cli, ["gaps", "--json", "--lake", str(target.root)])
    assert (done.exit_code, json.loads(done.stdout)["reason"]) == (1, "pending")
    make_lake(tmp_path / "a", [rest_candle(1)])
    recorder.ledger.clear(BTC, at(1), at(2))
    recorder.write()
    copy(source, target)
    assert CliRunner().invoke(cli, ["gaps", "--lake", str(target.root)]).exit_code == 0
    recorder.die()


def test_a_subscription_grows_with_its_source_until_the_target_goes_on(tmp_path: Path) -> None:
    """Later copies bring later confirmations and the end; a recorder of the target that goes on is kept."""
    source, target = make_lake(tmp_path / "a"), make_lake(tmp_path / "b")
    journal = start_recorder(source, BTC, ETH, now_ms=at(0))
    copy(source, target)
    confirm_series(source, journal, BTC, now_ms=at(10))
    copy(source, target)
    periods = read_periods(target.root)
    assert [(each.series, each.seen_ms, each.is_open) for each in periods] == [
        (BTC, at(10), True),
        (ETH, at(10), False),
    ]
    own = start_recorder(target, BTC, now_ms=at(20))
    confirm_series(source, journal, BTC, now_ms=at(30))  # it goes on at the old place, too
    assert copy(source, target).subscriptions == 0
    [btc] = [each for each in read_periods(target.root) if each.series == BTC]
    assert (btc.journal, btc.seen_ms) == (own.directory.name, at(20))
    kill_recorder(own)
    kill_recorder(journal)


def test_lists_of_two_lakes_are_joined(tmp_path: Path) -> None:
    """Overlapping periods of one status become one; the last answer of both is the last one."""
    source, target = make_lake(tmp_path / "a"), make_lake(tmp_path / "b")
    for store, minutes, names in (
        (source, (1, 5), "AUSDT BUSDT"),
        (target, (3, 9), "BUSDT CUSDT"),
    ):
        for minute in minutes:
            listed = [Instrument(name, "TRADING") for name in names.split()]
            record_instruments(store, "spot", listed, at(minute))
    assert copy(source, target).instruments == 2
    found = [(each.symbol, each.first_seen_ms, each.last_seen_ms) for each in read_instruments(target.root)]
    assert found == [("AUSDT", at(1), at(5)), ("BUSDT", at(1), at(9)), ("CUSDT", at(3), at(9))]
    assert copy(source, target).instruments == 0


def test_forgotten_candles_explain_what_both_lakes_lack(tmp_path: Path) -> None:
    """The source has forgotten its beginning; the target has a part of it, and lacks the rest for that reason."""
    source = make_lake(tmp_path / "a", [rest_candle(n) for n in range(20)])
    forget(source, 0, 10)
    target = make_lake(tmp_path / "b", [rest_candle(n) for n in range(4, 8)])
    copy(source, target)
    done = CliRunner().invoke(cli, ["gaps", "--json", "--lake", str(target.root)])
    [gap] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (gap["reason"], gap["candles"], done.exit_code) == ("forgotten", 2, 0)


def test_filters_select_records(source: LakeStore, tmp_path: Path) -> None:
    """Records of other series are left out, and ranges are cut to the wanted days."""
    target = make_lake(tmp_path / "b")
    assert copy(source, target, PartitionFilter(symbols=("ETHUSDT",))) == RecordCounts(0, 1, 2, 0)
    assert {period.series for period in read_periods(target.root)} == {ETH}
    recorder = LivingRecorder(source.root, "late")
    mark_gap(recorder, 1430, 1450, "unhealable")
    recorder.die()
    day = day_of(at(1440))
    assert copy(source, target, PartitionFilter(since=day, until=day)).gaps == 1
    assert [(gap.start_ms, gap.stop_ms) for gap in read_gaps(target.root)] == [(at(1440), at(1450))]
    assert {period.series for period in read_periods(target.root)} == {BTC, ETH}  # whole, whatever the days
    assert read_forgotten(target.root) == []
