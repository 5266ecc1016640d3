"""Findings of a verification: the wrong candles and their descriptions. Pure.

A check takes many candles at once and returns defects. A defect has the begin times of its
candles, and a function that describes one of them. A report counts all candles, and
describes only the first ones. So the memory for a year of wrong candles is limited.
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

# The checks that read only the lake.
LOCAL_CHECKS: tuple[Check, ...] = CHECKS[:-1]


class Defect(NamedTuple):
    """Candles of one series with the same fault in one check.

    Args:
        check: the check.
        kind: one word for the defect ("unsorted", "low", "differs").
        begins: the begin times of the candles; for a whole file, the begin of its partition.
        describe: returns the description of the candle at a position of `begins`.
    """

    check: Check
    kind: str
    begins: IntArray
    describe: Callable[[int], str]


class VerifyFinding(msgspec.Struct, frozen=True):
    """One wrong candle or file.

    Args:
        check, kind: the check and the kind of its defect.
        market, symbol, interval: the series.
        begin_ms: begin time of the candle; for a whole file, the begin of its partition.
        what: its description.
    """

    check: Check
    kind: str
    market: str
    symbol: str
    interval: str
    begin_ms: int
    what: str


class FindingCounts(msgspec.Struct):
    """The counts of one check of one series.

    Args:
        checked: the checked partitions, candles, or pairs of candles.
        findings: the wrong partitions, candles, or pairs of candles.
        corrected: the candles that a repair replaced.
        added: the candles that a repair added.
    """

    checked: int = 0
    findings: int = 0
    corrected: int = 0
    added: int = 0


class VerifyReport:
    """The result of a verification.

    Args:
        findings_max: the maximum findings of each check to keep. Further ones are only counted.

    Attributes:
        counts: the counts by series and check.
        findings: the first findings.
        unknown_candles: the number of candles with a null in an optional column. Such a
            null is no finding.
        unknown_columns: the optional columns with a null.
    """

    def __init__(self, findings_max: int) -> None:
        self.counts: dict[tuple[Series, Check], FindingCounts] = {}
        self.findings: list[VerifyFinding] = []
        self.unknown_candles = 0
        self.unknown_columns: set[str] = set()
        self.findings_max = findings_max
        self._findings_left = dict.fromkeys(CHECKS, findings_max)

    def counts_of(self, series: Series, check: Check) -> FindingCounts:
        """Return the mutable counts of a check of a series."""
        return self.counts.setdefault((series, check), FindingCounts())

    def add(self, series: Series, defects: Iterable[Defect]) -> None:
        """Count defects, and keep the first ones as findings."""
        for defect in defects:
            self.counts_of(series, defect.check).findings += len(defect.begins)
            shown = min(len(defect.begins), self._findings_left[defect.check])
            self._findings_left[defect.check] -= shown
            self.findings += (
                VerifyFinding(defect.check, defect.kind, *series, int(defect.begins[at]), defect.describe(at))
                for at in range(shown)
            )

    def add_unknown(self, candles: Columns) -> None:
        """Count candles that lack an optional value."""
        if candles.unknown.any():
            self.unknown_candles += int(candles.unknown.any(axis=1).sum())
            self.unknown_columns |= unknown_columns(candles)

    def merge(self, other: "VerifyReport") -> None:
        """Add the counts and findings of another report, on other series. The first findings are kept."""
        for key, counts in other.counts.items():
            mine = self.counts_of(*key)
            for name in FindingCounts.__struct_fields__:
                setattr(mine, name, getattr(mine, name) + getattr(counts, name))
        for finding in other.findings:
            if self._findings_left[finding.check]:
                self._findings_left[finding.check] -= 1
                self.findings.append(finding)
        self.unknown_candles += other.unknown_candles
        self.unknown_columns |= other.unknown_columns

    @property
    def total(self) -> int:
        """The number of all findings."""
        return sum(counts.findings for counts in self.counts.values())


def file_defect(begin_ms: int, kind: str, what: str) -> Defect:
    """Return a defect that concerns a partition's file as a whole, not single rows."""
    return Defect("partition", kind, np.array([begin_ms], np.int64), lambda _: what)
