"""Groups of rows and the options → the series of a file that are chosen. Pure.

Rule: options choose, and fill in what a file does not say; only `relabel`
overrules it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lakewriter.candle import IntArray
from lakewriter.errors import UsageError
from lakewriter.evidence.claims import (
    EXAMPLES,
    LEVELS,
    Claim,
    ContradictionError,
    ImportOptions,
    Level,
    agree,
    claim,
)
from lakewriter.evidence.split import Group
from lakewriter.series import Series
from lakewriter.spelling import FUTURES

_HINT = "options choose among files; add --relabel to rename this one's rows"


class Part(NamedTuple):
    """The rows of one series in a file.

    Args:
        series: which.
        interval_by: the source that says its interval.
        rows: positions, ascending; None for all rows.
    """

    series: Series
    interval_by: str
    rows: IntArray | None


class Parts(NamedTuple):
    """What a file holds of the series that the options choose.

    Args:
        parts: the series, each once.
        other_rows: rows of other series.
    """

    parts: list[Part]
    other_rows: int


class OtherSeriesError(ContradictionError):
    """A file is of other series than the options choose."""


def check_place(place: Sequence[Claim], options: ImportOptions, name: str) -> None:
    """Check the claims of a file's name and place against each other and the options, before it is read.

    Raises:
        ContradictionError: if they contradict each other.
        OtherSeriesError: if the options choose another series.
    """
    agreed = agree(_kept(place, options), name)
    try:
        agree([*agreed.values(), *_told(options)], name)
    except ContradictionError as error:
        raise OtherSeriesError(error.what, _HINT) from None


def choose(
    groups: Sequence[Group], place: Sequence[Claim], options: ImportOptions, name: str, rows: int
) -> Parts:
    """Return the series of a file that the options choose, with their rows.

    Args:
        place: the claims of its name and place.
        name: what to call the file in an error.
        rows: how many it has.

    Raises:
        ContradictionError: if its name or place contradict its columns, or each other.
        OtherSeriesError: if the options choose none of its series.
        UsageError: if nothing tells the market, symbol or interval.
    """
    told = _told(options)
    found: dict[Series, tuple[Part, list[Group]]] = {}
    refusal = ""
    for group in groups:
        agreed = agree(_kept([*place, *group.claims], options), name)
        try:
            part = _part(agree([*agreed.values(), *told], name), group.rows, name)
        except ContradictionError as error:
            refusal = refusal or error.what
        else:
            found.setdefault(part.series, (part, []))[1].append(group)
    if not found:
        raise OtherSeriesError(refusal, _HINT)
    parts = [_joined(part, of_series, name) for part, of_series in found.values()]
    kept = sum(rows if part.rows is None else len(part.rows) for part in parts)
    return Parts(parts, rows - kept)


def _joined(part: Part, groups: list[Group], name: str) -> Part:
    """Return all rows of a series that is spelled in several ways."""
    if len(groups) == 1:
        return part
    for level in LEVELS:
        if len({each.value for group in groups for each in group.claims if each.level == level}) > 1:
            raise ContradictionError(f"{name}: holds several series, which --relabel cannot make one")
    return part._replace(
        rows=np.sort(np.concatenate([each.rows for each in groups if each.rows is not None]))
    )


def _kept(claims: Sequence[Claim], options: ImportOptions) -> list[Claim]:
    """Return the claims that the options do not overrule."""
    if not options.relabel:
        return list(claims)
    overruled = {each.level for each in _told(options)}
    if "symbol" in overruled:
        overruled.add("asset")
    return [each for each in claims if not {each.level, each.of} & overruled]


def _told(options: ImportOptions) -> list[Claim]:
    values = zip(LEVELS, (options.market, options.symbol, options.interval), strict=True)
    return [
        each for level, value in values if value is not None for each in claim(level, value, f"--{level}")
    ]


def _part(agreed: dict[Level, Claim], rows: IntArray | None, name: str) -> Part:
    market, symbol, interval = (_value(agreed, level, name) for level in LEVELS)
    if market == FUTURES:
        market = "usdt_futures"
    return Part(Series(market, symbol, interval), agreed["interval"].by, rows)


def _value(agreed: dict[Level, Claim], level: Level, name: str) -> str:
    if level not in agreed:
        raise UsageError(f"{name}: nothing tells its {level}", f"--{level} {EXAMPLES[level]}")
    return agreed[level].value
