"""Findings: what is not as it must be, whose, and from when. Pure.

A check looks at many candles at once and returns flaws: which candles, and how
to say what is wrong with one of them. A report counts all of them and puts only
as many into words as somebody will read, so that a year of wrong candles costs
no more than one.
"""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, get_args

import msgspec
import numpy as np

from lakewriter.candle import IntArray
from lakewriter.candle_arrays import Columns
from lakewriter.candle_checks import unknown_columns
from lakewriter.series import Series

Check = Literal["partition", "candle", "intervals", "jumps", "against"]

CHECKS: tuple[Check, ...] = get_args(Check)

# What a lake can be asked without anybody else's word.
LOCAL_CHECKS: tuple[Check, ...] = CHECKS[:-1]


class Defect(NamedTuple):
    """Candles of one series that one check found wrong in one way.

    Args:
        check: which check.
        kind: one word for what is wrong ("unsorted", "low", "differs").
        begins: their begin times; the day's first millisecond for a whole file.
        say: what is wrong with the one at a position of `begins`.
    """

    check: Check
    kind: str
    begins: IntArray
    say: Callable[[int], str]


class VerifyFinding(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Args:
        check, kind: as of its flaw.
        market, symbol, interval: the series.
        begin_ms: begin time of the candle; the day's first millisecond for a whole file.
        what: in words.
    """

    check: Check
    kind: str
    market: str
    symbol: str
    interval: str
    begin_ms: int
    what: str


class FindingCounts(msgspec.Struct):
    """How one check of one series went.

    Args:
        checked: what was looked at: partitions, candles, or pairs of them.
        findings: how much of it is wrong.
        corrected: candles that a repair replaced.
        added: candles that a repair brought.
    """

    checked: int = 0
    findings: int = 0
    corrected: int = 0
    added: int = 0


class VerifyReport:
    """What a verification looked at and found.

    Args:
        findings_max: how many findings of each check are kept; the rest is counted.

    Attributes:
        unknown_candles: candles with a null in some optional column, which is no finding.
        unknown_columns: those columns.
    """

    def __init__(self, findings_max: int) -> None:
        self.tallies: dict[tuple[Series, Check], FindingCounts] = {}
        self.findings: list[VerifyFinding] = []
        self.unknown_candles = 0
        self.unknown_columns: set[str] = set()
        self._max = findings_max
        self._room = dict.fromkeys(CHECKS, findings_max)

    def of(self, series: Series, check: Check) -> FindingCounts:
        """Return the count to add to."""
        return self.tallies.setdefault((series, check), FindingCounts())

    def add(self, series: Series, flaws: Iterable[Defect]) -> None:
        """Count flaws, and keep the first of them in words."""
        for flaw in flaws:
            self.of(series, flaw.check).findings += len(flaw.begins)
            shown = min(len(flaw.begins), self._room[flaw.check])
            self._room[flaw.check] -= shown
            self.findings += (
                VerifyFinding(flaw.check, flaw.kind, *series, int(flaw.begins[at]), flaw.say(at))
                for at in range(shown)
            )

    def add_unknown(self, candles: Columns) -> None:
        """Count candles that lack an optional value."""
        if candles.unknown.any():
            self.unknown_candles += int(candles.unknown.any(axis=1).sum())
            self.unknown_columns |= unknown_columns(candles)

    @property
    def total(self) -> int:
        """How much is wrong in all."""
        return sum(tally.findings for tally in self.tallies.values())


def of_file(begin_ms: int, kind: str, what: str) -> Defect:
    """Return the flaw of a whole file of a partition."""
    return Defect("partition", kind, np.array([begin_ms], np.int64), lambda _: what)
