"""Claims on the series of a file: by options, name, place and columns; and their agreement. Pure.

Rule 1: two claims that differ refuse the file, in one line that names both.
Rule 2: options choose, and fill in what a file does not say; only `relabel`
overrules it. Rule 3: columns of several values split the file, a series each.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from lakewriter.candle import IntArray, Source
from lakewriter.errors import LakewriterError, UsageError
from lakewriter.series import Series
from lakewriter.spelling import (
    ANY,
    FUTURES,
    asset_in,
    interval_in,
    is_of_asset,
    market_in,
    market_of,
    symbol_in,
)

# "asset" is the base asset alone: it names no symbol, but can contradict one.
Level = Literal["market", "symbol", "interval", "asset"]
LEVELS: tuple[Level, ...] = ("market", "symbol", "interval")

# Series in one file. A year of all that the exchange lists is some thousands.
SERIES_MAX = 20_000

# The claim of a file's name, in an error.
NAME = "its name"

_HINT = "options choose among files; add --relabel to rename this one's rows"
_EXAMPLES = {"market": "usdt_futures", "symbol": "BTCUSDT", "interval": "1m"}
_CHARACTERS_MAX = 40


class Options(NamedTuple):
    """What a user asks of an import.

    Args:
        market, symbol, interval: of which series; they choose, and fill in what a file does not say.
        source: where the rows come from, if the file does not say.
        relabel: market, symbol and interval overrule the file.
        sparse: rows may be farther apart than the interval.
        skip_bad_rows: leave out rows that cannot be candles, which else refuse their file.
    """

    market: str | None = None
    symbol: str | None = None
    interval: str | None = None
    source: Source | None = None
    relabel: bool = False
    sparse: bool = False
    skip_bad_rows: bool = False


class Claim(NamedTuple):
    """One source's word on a market, symbol, interval or base asset.

    Args:
        level: which of these.
        value: the exchange's name for it; FUTURES for either futures market.
        by: the source, as an error calls it: NAME, "--symbol", "its column pair".
        of: the level of the text that says so: a symbol can tell its market.
    """

    level: Level
    value: str
    by: str
    of: Level


class ColumnClaim(NamedTuple):
    """A column that says which market, symbol, interval or base asset each row is of.

    Args:
        level: which of these.
        name: the column's name, as the file spells it.
        values: a text for each row, or null.
        loose: the name has other meanings as well: it counts if all values are understood.
    """

    level: Level
    name: str
    values: pa.Array
    loose: bool = False


class Group(NamedTuple):
    """Rows of which the columns claim the same.

    Args:
        claims: what they claim.
        rows: positions, ascending; None for all rows.
    """

    claims: tuple[Claim, ...]
    rows: IntArray | None


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


class ContradictionError(LakewriterError):
    """Two sources claim different series for the same rows."""


class OtherSeriesError(ContradictionError):
    """A file is of other series than the options choose."""


def _never(_text: str) -> bool:
    return False


def claim(level: Level, value: str, by: str) -> list[Claim]:
    """Return a claim, and for a symbol also that on the market which only such a symbol has."""
    claims = [Claim(level, value, by, level)]
    if level == "symbol" and (market := market_of(value)) is not None:
        claims.append(Claim("market", market, by, level))
    return claims


def agree(claims: Iterable[Claim], name: str) -> dict[Level, Claim]:
    """Return one claim for each level that any is made on.

    Args:
        name: what to call the file in an error.

    Raises:
        ContradictionError: if two claims on one level differ.
    """
    agreed: dict[Level, Claim] = {}
    for each in claims:
        known = agreed.get(each.level)
        if known is None or _is_narrower(each, known):
            agreed[each.level] = each
        elif not _is_narrower(known, each) and known.value != each.value:
            hint = f"--relabel --{each.level} {known.value} if that is right"
            raise ContradictionError(contradiction(known, each, name), hint)
    asset, symbol = agreed.get("asset"), agreed.get("symbol")
    if asset is not None and symbol is not None and not is_of_asset(symbol.value, asset.value):
        pair = (symbol, asset) if symbol.by == NAME else (asset, symbol)
        raise ContradictionError(contradiction(*pair, name))
    return agreed


def contradiction(one: Claim, other: Claim, name: str) -> str:
    """Return the line that names both sources."""
    first = name if one.by == NAME else f"{name}: {one.by}"
    return f"{first} says {one.value}, {other.by} says {other.value}"


def _is_narrower(one: Claim, other: Claim) -> bool:
    return other.value == FUTURES and one.value in ("usdt_futures", "coin_futures")


def split(columns: Sequence[ColumnClaim], name: str, is_exact: Callable[[str], bool] = _never) -> list[Group]:
    """Return the rows of a file by what its columns claim.

    Args:
        name: what to call the file in an error.
        is_exact: whether a text is a symbol as it stands, in the columns of a lake for instance.

    Raises:
        LakewriterError: if a column says nothing of ours, or nothing for some rows.
        ContradictionError: if two columns differ in a row.
    """
    all_rows: list[Claim] = []
    by_text: list[list[list[Claim]]] = []
    codes: list[IntArray] = []
    for column in columns:
        encoded = column.values.dictionary_encode()
        claims = _claims_by_text(column, encoded, name, is_exact)
        if claims is None:
            continue
        if len(claims) == 1:
            all_rows += claims[0]
        else:
            by_text.append(claims)
            codes.append(encoded.indices.to_numpy().astype(np.int64))
    if not codes:
        return [Group(tuple(agree(all_rows, name).values()), None)]
    groups = []
    for texts, rows in _combinations(codes, name):
        claims_of_rows = [each for at, claims in zip(texts, by_text, strict=True) for each in claims[at]]
        groups.append(Group(tuple(agree([*all_rows, *claims_of_rows], name).values()), rows))
    return groups


def _combinations(codes: list[IntArray], name: str) -> list[tuple[list[int], IntArray]]:
    """Return each combination of codes that some rows have, and those rows."""
    order = np.lexsort(tuple(reversed(codes)))
    changes = np.logical_or.reduce([np.diff(code[order]) != 0 for code in codes])
    firsts = [0, *(np.flatnonzero(changes) + 1).tolist(), len(order)]
    if len(firsts) > SERIES_MAX:
        raise LakewriterError(f"{name}: holds more than {SERIES_MAX} series", "import it in parts")
    # The sort is stable, so that the rows of each are ascending.
    return [
        ([int(code[order[first]]) for code in codes], order[first:stop]) for first, stop in pairwise(firsts)
    ]


def _claims_by_text(
    column: ColumnClaim, encoded: Any, name: str, is_exact: Callable[[str], bool]
) -> list[list[Claim]] | None:
    """Return the claims of each different text in a column; None if it is no column of claims."""
    texts = encoded.dictionary.to_pylist()
    if not texts:
        return None  # all of it is null
    if len(texts) > SERIES_MAX:
        raise LakewriterError(f"{name}: its column {column.name} has more than {SERIES_MAX} values")
    claims = [_claims_of(column, text, is_exact) for text in texts]
    if column.loose and (None in claims or encoded.null_count):
        return None  # it means something else
    if encoded.null_count or "" in texts:
        raise LakewriterError(f"{name}: its column {column.name} is empty in some rows")
    for text, each in zip(texts, claims, strict=True):
        if each is None:
            shown = repr(text[:_CHARACTERS_MAX])
            raise LakewriterError(
                f"{name}: its column {column.name} says {shown}, which is no {column.level} of Binance",
                f"--relabel --{column.level} {_EXAMPLES[column.level]}",
            )
    return [each or [] for each in claims]


def _claims_of(column: ColumnClaim, text: str, is_exact: Callable[[str], bool]) -> list[Claim] | None:
    by = f"its column {column.name}"
    if column.level == "asset":
        asset = asset_in(text)
        return None if asset is None else [Claim("asset", asset, by, "asset")]
    if column.level == "interval":
        interval = interval_in(text)
        return None if interval is None else claim("interval", interval.name, by)
    if column.level == "market" and (market := market_in(text)) is not None:
        return [] if market == ANY else claim("market", market, by)
    if is_exact(text):
        return claim("symbol", text, by)
    spelled = symbol_in(text)
    if spelled is None:
        return None
    return [*([Claim("market", spelled.market, by, "symbol")] if spelled.market else []),
            Claim("symbol", spelled.symbol, by, "symbol")]  # fmt: skip


def check_place(place: Sequence[Claim], options: Options, name: str) -> None:
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


def choose(groups: Sequence[Group], place: Sequence[Claim], options: Options, name: str, rows: int) -> Parts:
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


def _kept(claims: Sequence[Claim], options: Options) -> list[Claim]:
    """Return the claims that the options do not overrule."""
    if not options.relabel:
        return list(claims)
    overruled = {each.level for each in _told(options)}
    if "symbol" in overruled:
        overruled.add("asset")
    return [each for each in claims if not {each.level, each.of} & overruled]


def _told(options: Options) -> list[Claim]:
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
        raise UsageError(f"{name}: nothing tells its {level}", f"--{level} {_EXAMPLES[level]}")
    return agreed[level].value
