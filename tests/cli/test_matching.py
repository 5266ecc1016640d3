"""The errors of cron's commands for filters without a match, and for empty lakes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lakewriter.cli import cli
from lakewriter.errors import LakewriterError
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.series import Series
from support.lakes import make_lake, rest_candle
from support.living_recorder import LivingRecorder, mark_gap

COMMANDS = pytest.mark.parametrize("command", ["coverage", "gaps", "verify"])


@pytest.fixture
def store(tmp_path: Path) -> LakeStore:
    """Three minutes of two symbols."""
    return make_lake(
        tmp_path, [rest_candle(n, symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT") for n in range(3)]
    )


def invoke(store: LakeStore, *arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli, [*arguments, "--lake", str(store.root)])


def refusal(store: LakeStore, *arguments: str) -> tuple[int, str, str]:
    """Return a refusal's exit code, line and hint."""
    error = invoke(store, *arguments).exception
    assert isinstance(error, LakewriterError)
    return error.exit_code, error.what, error.hint


@COMMANDS
def test_a_spelling_mistake_is_no_health(store: LakeStore, command: str) -> None:
    """An unknown symbol gives exit 2, and the hint names similar series."""
    mistaken = ("--market", "spot", "--symbol", "BTCUSTD", "--interval", "1m")
    assert refusal(store, command, *mistaken) == (
        2,
        f"{command}: the lake has no series that matches spot:BTCUSTD:1m",
        "it has spot:BTCUSDT:1m",
    )
    assert invoke(store, command, "--symbol", "btcusdt").exit_code == 0


@COMMANDS
def test_each_of_several_names_has_to_match(store: LakeStore, command: str) -> None:
    """One misspelled name is an error, even beside correct names."""
    assert refusal(store, command, "--symbol", "BTCUSDT", "--symbol", "ETHUSTD") == (
        2,
        f"{command}: the lake has no series that matches *:ETHUSTD:*",
        "it has spot:ETHUSDT:1m",
    )
    two = ("--interval", "1m", "--interval", "5m", "--symbol", "ETHUSDT")
    assert refusal(store, command, *two)[1:] == (
        f"{command}: the lake has no series that matches *:ETHUSDT:5m",
        "it has spot:ETHUSDT:1m",
    )


def test_what_is_like_nothing(store: LakeStore) -> None:
    """Without a similar series the hint shows how to list all of them."""
    assert refusal(store, "coverage", "--symbol", "DOGEEUR") == (
        2,
        "coverage: the lake has no series that matches *:DOGEEUR:*",
        "it has 2 others; lakewriter coverage",
    )


def test_a_series_that_only_a_ledger_or_a_journal_knows(store: LakeStore) -> None:
    """Series known only to a ledger or a journal match."""
    recorder = LivingRecorder(store.root)
    mark_gap(recorder, 0, 1, "not_listed", Series("spot", "NEWUSDT", "1m"))
    recorder.journal.commit([rest_candle(0, symbol="HOTUSDT")])
    for symbol in ("NEWUSDT", "HOTUSDT"):
        for command in ("coverage", "gaps", "verify"):
            assert invoke(store, command, "--symbol", symbol).exit_code == 0, (command, symbol)
    recorder.die()


@pytest.mark.parametrize("command", ["coverage", "verify"])
def test_days_with_nothing(store: LakeStore, command: str) -> None:
    """Days without candles exit 2, and the message has the days that exist."""
    assert refusal(store, command, "--since", "2062-06-30") == (
        2,
        f"{command}: the lake has nothing since 2062-06-30",
        "it has days from 2024-06-30 to 2024-06-30",
    )
    ended = ("--symbol", "ETHUSDT", "--since", "2024-01-01", "--until", "2024-01-31")
    assert refusal(store, command, *ended)[1] == (
        f"{command}: *:ETHUSDT:* has nothing since 2024-01-01 until 2024-01-31"
    )


@COMMANDS
def test_days_the_wrong_way_round(store: LakeStore, command: str) -> None:
    """An end before the start is a usage error."""
    assert refusal(store, command, "--since", "2024-07-01", "--until", "2024-06-30")[:2] == (
        2,
        "--until: 2024-06-30 is before --since 2024-07-01",
    )


@pytest.mark.parametrize("command", ["coverage", "verify"])
def test_an_empty_lake(tmp_path: Path, command: str) -> None:
    """An empty lake gives exit 1 without a recorder, because its disk may be unmounted; exit 0 with one."""
    store = make_lake(tmp_path)
    assert refusal(store, command) == (
        1,
        f"{command}: {store.root} has no candles, and no recorder writes to it",
        "lakewriter record spot:BTCUSDT:1m, or name another --lake",
    )
    assert refusal(store, command, "--symbol", "BTCUSDT")[::2] == (2, "it has no series yet")
    assert invoke(store, "gaps").exit_code == 0
    journal = create_journal(store.root, "test")
    done = invoke(store, command)
    assert (done.exit_code, done.stdout) == (
        0,
        "no candles yet\n" if command == "coverage" else "nothing to verify yet\n",
    )
    totals = json.loads(invoke(store, command, "--json").stdout)["totals"]
    assert totals["series" if command == "coverage" else "findings"] == 0
    journal.close()
