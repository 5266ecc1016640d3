"""Compare published rows with the lake's, and find the winners. Pure.

A published row wins as in any merge; see `candle.precedence`.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import VALUE_COLUMNS, IntArray, int_column, ranks
from lakewriter.candle_arrays import Bools
from lakewriter.verify.findings import Defect


class Differences(NamedTuple):
    """The differences between published rows and the lake's, as positions in either table.

    Args:
        missing: published rows that the lake lacks.
        differs: published rows whose prices, volumes or trades differ from the lake's.
        ours: the lake's rows for the candles of `differs`.
        unpublished: rows of the lake that are not published.
        columns: the differing columns of each row in `differs`.
    """

    missing: IntArray
    differs: IntArray
    ours: IntArray
    unpublished: IntArray
    columns: Bools


def differences(ours: pa.Table, published: pa.Table) -> Differences:
    """Compare the rows of one range; both tables are sorted by begin time and unique."""
    left, right = int_column(ours, "candle_begin_time"), int_column(published, "candle_begin_time")
    _, at_left, at_right = np.intersect1d(left, right, assume_unique=True, return_indices=True)
    unlike = np.zeros((len(at_left), len(VALUE_COLUMNS)), np.bool_)
    for number, name in enumerate(VALUE_COLUMNS):
        one, other = ours[name].to_numpy()[at_left], published[name].to_numpy()[at_right]
        unlike[:, number] = (one != other) & ~((one != one) & (other != other))
    any_unlike = unlike.any(axis=1)
    return Differences(
        missing=np.flatnonzero(~np.isin(right, left)),
        differs=at_right[any_unlike],
        ours=at_left[any_unlike],
        unpublished=np.flatnonzero(~np.isin(left, right)),
        columns=unlike[any_unlike],
    )


def winning_rows(ours: pa.Table, published: pa.Table) -> Bools:
    """Return whether each published row wins over the lake's row, by `candle.precedence`."""

    wins: Bools = np.zeros(ours.num_rows, np.bool_)
    same = ~wins
    left: Any
    right: Any
    for left, right in zip(ranks(ours), ranks(published), strict=True):
        wins |= same & (right > left)
        same &= right == left
    return wins | same  # in a full tie, a merge keeps the new row


def defects_of(
    ours: pa.Table, published: pa.Table, found: Differences, published_wins: Bools, *, repair: bool
) -> list[Defect]:
    """Return the differences as defects.

    Args:
        published_wins: whether the published row wins, for each differing row.
        repair: whether winning and missing rows are merged.
    """
    source = published["source"][0].as_py() if published.num_rows else "the exchange"

    def differs(at: int) -> str:
        parts = [
            f"{name} {ours[name][found.ours[at]].as_py()!r}, {source} has "
            f"{published[name][found.differs[at]].as_py()!r}"
            for name, unlike in zip(VALUE_COLUMNS, found.columns[at], strict=True)
            if unlike
        ]
        return "; ".join(parts) + (f" ({_repair_text(bool(published_wins[at]))})" if repair else "")

    lacking = f"is not here, {source} has it" + (" (added)" if repair else "")
    defects = [
        Defect("against", "differs", int_column(ours, "candle_begin_time")[found.ours], differs),
        Defect(
            "against",
            "missing",
            int_column(published, "candle_begin_time")[found.missing],
            lambda _: lacking,
        ),
        Defect(
            "against",
            "unpublished",
            int_column(ours, "candle_begin_time")[found.unpublished],
            lambda _: f"{source} has no such candle",
        ),
    ]
    return [defect for defect in defects if len(defect.begins)]


def _repair_text(wins: bool) -> str:
    return "corrected" if wins else "left: ours has more trades, or is from the archive"
