"""Two hosts of a lake on an object store know each other's recorders, gaps and subscriptions."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lakewriter.clock import present_ms
from lakewriter.lake.coverage.absences import absent_candles
from lakewriter.lake.coverage.facts import CoverageMoment
from lakewriter.lake.gaps.ledger import Ledger
from lakewriter.lake.gaps.ledgers import open_ledger, read_reported
from lakewriter.lake.host_reports import LIVING_MS, living_anywhere, publish_recorders, read_host_reports
from lakewriter.lake.journal import Journal, create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import open_to_change
from lakewriter.lake.published import current_ledgers, host_name, publish
from lakewriter.lake.recorder_status_file import write_status
from lakewriter.lake.subscriptions import confirm_subscriptions
from lakewriter.recording.healing.startup_survey import _ledgers
from lakewriter.series import Series
from lakewriter.status.lake_status import lake_status
from lakewriter.subscribed_period import Confirmation, RecorderId
from support.lakes import BEGIN_MS, make_lake, rest_candle
from support.object_store import Request, Store
from support.running import run

pytestmark = pytest.mark.slow

BTC = Series("spot", "BTCUSDT", "1m")
MINUTE_MS = 60_000
DURING = (BEGIN_MS + MINUTE_MS, BEGIN_MS + 2 * MINUTE_MS)  # the one candle that the lake lacks


class Host(NamedTuple):
    """A host with a recorder: its view of the lake, its journal, which lives, and its ledger."""

    store: LakeStore
    journal: Journal
    ledger: Ledger

    def confirm(self, now_ms: int, *series: Series) -> None:
        """Confirm subscriptions, and publish."""
        name = RecorderId("/etc/lakewriter.toml", self.journal.directory.name)
        confirm_subscriptions(
            self.store,
            Confirmation(name, series, lambda each: each in series, {"spot": now_ms}, {}, True),
        )
        self.publish()

    def publish(self) -> None:
        self.ledger.write(changes) if (changes := self.ledger.take_changes()) else None
        publish(self.store)
        publish_recorders(self.store)

    def die(self) -> None:
        """Release the lock of the journal, as the end of its process does."""
        self.journal.close()


class Hosts:
    """The lake of some hosts: three minutes, of which the second one is missing."""

    def __init__(self, server: Store, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_lake(place / "lake", [rest_candle(0), rest_candle(2)])
        self.uri = server.upload(place / "lake", "lake")
        self.server = server
        self._place, self._monkeypatch = place, monkeypatch

    def view(self, name: str) -> LakeStore:
        """Open the lake on a host."""
        self._monkeypatch.setenv("LAKEWRITER_STATE_DIR", str(self._place / name))
        return open_to_change(self.uri)

    def recorder(self, name: str) -> Host:
        """Start the journal and the ledger of a recorder on a host."""
        store = self.view(name)
        journal = create_journal(store.state_dir, "db-7")
        return Host(store, journal, open_ledger(store.state_dir, journal.directory.name))

    def run(self, name: str, *arguments: str) -> tuple[int, str]:
        """Run a command on a host; return its exit, and what it printed."""
        done = run(*arguments, "--lake", self.uri, "--state-dir", str(self._place / name))
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    server = Store()
    yield Hosts(server, tmp_path, monkeypatch)
    server.close()


def reasons(store: LakeStore) -> list[tuple[str, bool]]:
    return [(each.reason, each.has_reason) for each in absent_candles(store)]


def test_a_gap_that_another_host_heals_has_a_reason(hosts: Hosts) -> None:
    """A pending gap counts as healed while its recorder lives anywhere, and no longer than that."""
    one = hosts.recorder("one")
    one.ledger.mark(BTC, *DURING, "pending", BEGIN_MS)
    one.publish()
    for name in ("one", "two"):
        assert reasons(hosts.view(name)) == [("pending", True)], name
    status = lake_status(hosts.view("two"), present_ms())
    assert (status.gaps.healing_candles, status.gaps.reasonless_candles) == (1, 0)
    one.die()
    publish_recorders(one.store)
    assert reasons(hosts.view("two")) == [("pending", False)]


def test_the_other_host_needs_no_explanation_of_what_is_there(hosts: Hosts) -> None:
    """Gaps of one host's ledger whose candles the other brought are no gaps, and a final reason counts for both."""
    one, two = hosts.recorder("one"), hosts.recorder("two")
    one.ledger.mark(BTC, BEGIN_MS, BEGIN_MS + 3 * MINUTE_MS, "unhealable", BEGIN_MS, "it was away")
    two.ledger.mark(BTC, *DURING, "exchange_halt", BEGIN_MS)
    one.publish()
    two.publish()
    one.die()
    for name in ("one", "two", "three"):
        assert reasons(hosts.view(name)) == [("exchange_halt", True)], name


def test_own_ledgers_are_read_as_they_are_now(hosts: Hosts) -> None:
    """A host does not wait for its own publication."""
    one = hosts.recorder("one")
    one.ledger.mark(BTC, *DURING, "unhealable", BEGIN_MS)
    one.publish()
    one.ledger.mark(BTC, *DURING, "exchange_halt", BEGIN_MS)
    one.ledger.write(one.ledger.take_changes())  # type: ignore[arg-type]
    assert reasons(hosts.view("one")) == [("exchange_halt", True)]
    assert reasons(hosts.view("two")) == [("unhealable", False)]


def test_a_ledger_that_is_taken_over_during_a_read_is_read(hosts: Hosts) -> None:
    """A reader that listed a dead recorder's ledger reads its entries where the next recorder put them."""
    one = hosts.recorder("one")
    one.ledger.mark(BTC, *DURING, "exchange_halt", BEGIN_MS)
    one.publish()
    one.die()
    reader = hosts.view("three")
    name = f"{one.journal.directory.name}@{host_name(one.store)}.ndjson"

    def take_over() -> None:
        hosts.recorder("one").publish()

    with hosts.server.before(Request("GET", f"lake/_lakewriter/gaps/{name}"), take_over) as waiting:
        assert reasons(reader) == [("exchange_halt", True)]
    assert waiting == []


def test_a_ledger_with_a_long_name_is_left_out(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is no file name on a disk is logged, and the other ledgers are read."""
    one = hosts.recorder("one")
    one.ledger.mark(BTC, *DURING, "exchange_halt", BEGIN_MS)
    one.publish()
    hosts.server.put(f"lake/_lakewriter/gaps/{'x' * 300}.ndjson", b"{}")
    assert reasons(hosts.view("two")) == [("exchange_halt", True)]
    assert "x…: left out; its name has more than 255 bytes" in caplog.text


def test_an_old_report_is_of_a_dead_recorder(hosts: Hosts) -> None:
    """A host that reports no more is silent: its recorder counts as dead, and needs a person."""
    one = hosts.recorder("one")
    one.confirm(BEGIN_MS, BTC)
    view = hosts.view("two")
    with current_ledgers(view) as root:
        [report] = read_host_reports(root)
        journal = one.journal.directory.name
        assert (report.journal, journal in living_anywhere(view, root, present_ms())) == (journal, True)
        assert journal not in living_anywhere(view, root, report.published_ms + LIVING_MS)
        assert [each.alive for each in read_reported(root, frozenset())] == []
    status = lake_status(view, present_ms())
    assert [(each.host, each.state) for each in status.remote_recorders] == [(report.host, "busy")]
    assert "silent_host" not in {each.kind for each in status.attention}
    late = lake_status(view, report.published_ms + LIVING_MS)
    [finding] = [each for each in late.attention if each.kind == "silent_host"]
    assert report.host in finding.sentence
    assert finding.command.startswith(f"lakewriter unsubscribe --host {report.host}")
    # On its own host the lock tells.
    assert lake_status(one.store, report.published_ms + LIVING_MS).remote_recorders == ()


def test_candles_in_a_journal_elsewhere_are_not_missing_yet(hosts: Hosts) -> None:
    """A third host expects candles up to the last flush of a living recorder, and all of them after its death."""
    one = hosts.recorder("one")
    one.ledger.mark(BTC, *DURING, "exchange_halt", BEGIN_MS)
    one.confirm(BEGIN_MS, BTC)
    one.journal.commit([rest_candle(3), rest_candle(4)])
    until = CoverageMoment(until_ms=BEGIN_MS + 5 * MINUTE_MS)

    def missing(name: str) -> list[tuple[str, int]]:
        return [(each.reason, each.candles) for each in absent_candles(hosts.view(name), moment=until)]

    publish_recorders(one.store, BEGIN_MS + 5 * MINUTE_MS)
    for name in ("one", "two"):
        assert missing(name) == [("exchange_halt", 1)], name
    one.die()
    publish_recorders(one.store)
    assert missing("two") == [("exchange_halt", 1), ("unexplained", 2)]
    # An empty journal: all is in files, but what may be on its way.
    two = hosts.recorder("two")
    two.confirm(BEGIN_MS, BTC)
    publish_recorders(two.store, BEGIN_MS + 4 * MINUTE_MS)
    assert missing("three") == [("exchange_halt", 1)]
    publish_recorders(two.store, BEGIN_MS + 6 * MINUTE_MS)
    assert missing("three") == [("exchange_halt", 1), ("unexplained", 2)]


def test_a_recorder_that_stops_leaves_the_report(hosts: Hosts) -> None:
    """After a clean stop no host waits for its reports."""
    one = hosts.recorder("one")
    one.publish()
    publish_recorders(one.store, leaving=one.journal.directory.name)
    assert lake_status(hosts.view("two"), present_ms()).remote_recorders == ()


def test_one_host_unsubscribes_while_the_other_goes_on(hosts: Hosts) -> None:
    """A series is expected until the last host has left it."""
    one, two = hosts.recorder("one"), hosts.recorder("two")
    one.confirm(BEGIN_MS, BTC)
    two.confirm(BEGIN_MS, BTC)
    one.confirm(BEGIN_MS + MINUTE_MS)
    assert reasons(hosts.view("three")) == [("unexplained", False)]
    two.confirm(BEGIN_MS + MINUTE_MS)
    assert reasons(hosts.view("three")) == [("left", True)]


def test_a_host_that_is_gone_for_good(hosts: Hosts) -> None:
    """Another host ends the subscriptions of a dead one, and never those of a living one."""
    one, two = hosts.recorder("one"), hosts.recorder("two")
    one.confirm(BEGIN_MS, BTC)
    two.confirm(BEGIN_MS)
    with current_ledgers(one.store) as root:
        gone = next(
            each.host for each in read_host_reports(root) if each.journal == one.journal.directory.name
        )
    code, said = hosts.run("two", "unsubscribe", "spot:BTCUSDT:1m")
    assert (code, "is recorded at this moment" in said, gone in said) == (1, True, True)
    code, said = hosts.run("two", "unsubscribe", "--host", "unknown")
    assert (code, "the lake has no host unknown" in said, gone in said) == (2, True, True)
    one.die()
    publish_recorders(one.store)
    code, said = hosts.run("two", "unsubscribe", "--host", gone)
    assert (code, said.count("spot BTCUSDT 1m is unsubscribed")) == (0, 1)
    assert (
        lake_status(hosts.view("three"), present_ms()).remote_recorders[0].journal
        == two.journal.directory.name
    )
    # It came back: what it confirms since then counts.
    again = hosts.recorder("one")
    again.confirm(BEGIN_MS + 5 * MINUTE_MS, BTC)
    code, said = hosts.run(
        "two", "query", "SELECT count(*) AS n FROM subscriptions WHERE stop IS NULL", "--format", "csv"
    )
    assert (code, said.split()) == (0, ["n", "1"])


def test_what_one_host_forgot_the_other_does_not_heal(hosts: Hosts) -> None:
    """The survey of a recorder knows the ranges that were forgotten on any host."""
    code, said = hosts.run("one", "forget", "spot:BTCUSDT:1m", "--yes", "--reason", "a try")
    assert code == 0, said
    _, forgotten = _ledgers(hosts.view("two"))
    assert forgotten[BTC] == [(begin_ms, begin_ms + MINUTE_MS) for begin_ms in (BEGIN_MS, DURING[1])]


def test_a_recorder_that_never_reached_the_exchange_is_seen_elsewhere(hosts: Hosts) -> None:
    """Without the exchange's time, other hosts expect the same candles as the recorder's own host."""
    one = hosts.recorder("one")
    one.confirm(BEGIN_MS, BTC)
    moment = CoverageMoment(until_ms=BEGIN_MS + 600 * MINUTE_MS)
    publish_recorders(one.store, None)
    own, elsewhere = (
        [(each.reason, each.candles) for each in absent_candles(hosts.view(name), moment=moment)]
        for name in ("one", "two")
    )
    assert own == elsewhere
    assert sum(candles for _, candles in own) == 598


def test_a_recorder_with_thousands_of_subscriptions_lives_elsewhere(hosts: Hosts) -> None:
    """A long status in a report makes no living recorder a dead one."""
    one = hosts.recorder("one")
    one.confirm(BEGIN_MS, BTC)
    subscriptions = [f"spot:SYM{number:04}USDT:1m" for number in range(3700)]
    write_status(one.journal.directory, json.dumps({"subscriptions": subscriptions}).encode())
    publish_recorders(one.store, present_ms())
    with current_ledgers(hosts.view("two")) as root:
        assert len(read_host_reports(root)) == 1
        assert one.journal.directory.name in living_anywhere(hosts.view("two"), root, present_ms())
