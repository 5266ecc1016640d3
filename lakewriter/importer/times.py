"""Parse columns of text into times, in many formats. Pure.

Numbers count seconds, milliseconds, microseconds or nanoseconds, depending on their size.
Dates have the year first or last. If the year is last, the column must show which part is
the day. A time without an offset is UTC. Any other text is not a time.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakewriter.candle import BoolArray, IntArray
from lakewriter.errors import LakewriterError

_WHOLE = r"^\+?\d+(?:\.0*)?$"
_INT64 = r"^(?:\d{1,18}|[1-8]\d{18})$"
_COMPACT = r"^(?P<a>20\d{2})(?P<b>\d{2})(?P<c>\d{2})(?:[ T]?(?P<h>\d{2}):?(?P<m>\d{2})(?::?(?P<s>\d{2}))?)?$"
_CLOCK = r"^\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?$"
_DATED = (
    r"^(?P<a>\d{1,4})[-/.](?P<b>\d{1,2})[-/.](?P<c>\d{1,4})"
    r"(?:[T ,]+(?P<h>\d{1,2})(?::(?P<m>\d{2})(?::(?P<s>\d{2})(?:[.,](?P<f>\d{1,9}))?)?)?"
    r"(?:[ -]?(?P<p>[AaPp])\.?[Mm]\.?)?"
    r"(?: ?(?:Z|UTC|GMT|(?P<zs>[+-])(?P<zh>\d{2})(?::?(?P<zm>\d{2}))?))?)?$"
)
_LOST = r"^[+-]?\d[.,]?\d*[eE]\+?\d+$"

_SECOND_US = 1_000_000
_HOUR_US = 3600 * _SECOND_US
_DAY_US = 24 * _HOUR_US
_OFFSET_HOURS_MAX = 14


class TextTimes(NamedTuple):
    """Times that were parsed from text.

    Args:
        array: int64 for numbers, date32 for days, time64 for times of day, else timestamps.
            A text that is null or not a time becomes null.
        bad: whether each cell is not a time.
    """

    array: pa.Array
    bad: BoolArray


def read_times(name: str, text: pa.Array) -> TextTimes:
    """Return the times in a column of trimmed text or null.

    Raises:
        LakewriterError: if the column has no times, or if days and months are ambiguous.
    """
    present = text.is_valid().to_numpy(zero_copy_only=False)
    if not present.any():
        return TextTimes(pa.nulls(len(text), pa.timestamp("us", tz="UTC")), ~present & present)
    if (iso := _iso(text)) is not None:
        return TextTimes(iso, np.zeros(len(text), np.bool_))
    for pattern, read in ((_COMPACT, _calendar), (_WHOLE, _numbers), (_CLOCK, _clocks), (_DATED, _calendar)):
        fits = pc.match_substring_regex(text, pattern).fill_null(False).to_numpy(zero_copy_only=False)
        # The majority determines the column's format. The other cells are not times.
        if fits.sum() * 2 > present.sum():
            array, bad = read(name, pc.if_else(pa.array(fits), text, None), pattern)
            return TextTimes(array, bad | (present & ~fits))
    first = text.drop_null()[0].as_py()
    if bool(pc.match_substring_regex(pa.array([first]), _LOST)[0].as_py()):
        raise LakewriterError(f"{name} holds times without their last digits: {first!r}", "export it again")
    raise LakewriterError(f"{name} holds no times: {first[:40]!r}")


def _iso(text: pa.Array) -> pa.Array | None:
    """Parse ISO 8601 with Arrow: days, times with offsets, or times without offsets."""
    longest = pc.max(pc.utf8_length(text)).as_py()
    first = text.drop_null()[0].as_py()
    if len(first) < len("2024-01-01") or first[4:5] != "-":
        return None
    zoned = first.endswith("Z") or "+" in first or first.count("-") > 2
    try:
        times = text.cast(pa.timestamp("us", tz="UTC" if zoned else None))
    except pa.ArrowInvalid:
        return None
    return times.cast(pa.date32()) if longest == len("2024-01-01") else times


def _numbers(_name: str, text: pa.Array, _pattern: str) -> tuple[pa.Array, BoolArray]:
    digits = pc.replace_substring_regex(text, r"^\+|\.0*$", "")
    too_long = pc.invert(pc.match_substring_regex(digits, _INT64)).fill_null(False)
    numbers = pc.if_else(too_long, None, digits).cast(pa.int64())
    return numbers, too_long.to_numpy(zero_copy_only=False)


def _clocks(_name: str, text: pa.Array, _pattern: str) -> tuple[pa.Array, BoolArray]:
    return _calendar("", pc.binary_join_element_wise("1970-01-01", text, " "), _DATED, clock=True)


def _calendar(name: str, text: pa.Array, pattern: str, *, clock: bool = False) -> tuple[pa.Array, BoolArray]:
    parts = _Parts(pc.extract_regex(text, pattern))
    present = parts.present
    years, months, days = parts.date(name)
    dates = ((years - 1970) * 12 + months - 1).astype("datetime64[M]").astype("datetime64[D]") + (days - 1)
    good = (
        present
        & (months >= 1)
        & (months <= 12)
        & (dates.astype("datetime64[M]").astype(np.int64) % 12 == months - 1)
    )
    times, in_range = parts.time_us()
    good &= in_range & (years >= 1970) & (years < 2262)
    bad = present & ~good
    mask = ~good
    if clock:
        return pa.array(times, pa.time64("us"), mask=mask), bad
    if not parts.has_time:
        return pa.array(dates.astype(np.int32), pa.date32(), mask=mask), bad
    moments = dates.astype(np.int64) * _DAY_US + times - parts.offset_us(name)
    return pa.array(moments, pa.timestamp("us", tz="UTC"), mask=mask), bad


class _Parts:
    """The parts of dates and times in text, by a pattern's group names. A missing part is 0."""

    def __init__(self, found: pa.Array) -> None:
        self.present: BoolArray = found.is_valid().to_numpy(zero_copy_only=False)
        names = [found.type.field(at).name for at in range(found.type.num_fields)]
        self._text = dict(zip(names, found.flatten(), strict=True))
        self.has_time = self._given("h").any()

    def _given(self, name: str) -> BoolArray:
        if name not in self._text:
            return np.zeros(len(self.present), np.bool_)
        given: BoolArray = pc.not_equal(self._text[name], "").fill_null(False).to_numpy(zero_copy_only=False)
        return given

    def _number(self, name: str) -> IntArray:
        if name not in self._text:
            return np.zeros(len(self.present), np.int64)
        digits = pc.if_else(pa.array(self._given(name)), self._text[name], "0")
        numbers: IntArray = digits.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return numbers

    def _length(self, name: str) -> IntArray:
        lengths: IntArray = pc.utf8_length(self._text[name]).fill_null(0).to_numpy(zero_copy_only=False)
        return lengths

    def date(self, name: str) -> tuple[IntArray, IntArray, IntArray]:
        """Return years, months and days. A year of two digits becomes 0."""
        first, second, third = (self._number(each) for each in "abc")
        year_first, year_last = self._length("a") == 4, (self._length("a") < 3) & (self._length("c") == 4)
        two = first[year_last], second[year_last]
        day_first = _is_day_first(name, *two)
        months = np.where(year_first, second, second if day_first else first)
        days = np.where(year_first, np.where(self._length("c") < 3, third, 0), first if day_first else second)
        return np.where(year_first, first, np.where(year_last, third, 0)), months, days

    def time_us(self) -> tuple[IntArray, BoolArray]:
        """Return microseconds since midnight, and whether each time is valid."""
        hours, minutes, seconds = (self._number(each) for each in "hms")
        halves = self._given("p")
        if halves.any():
            after_noon = pc.equal(pc.utf8_lower(self._text["p"]), "p").fill_null(False)
            in_half = (hours >= 1) & (hours <= 12)
            hours = np.where(
                halves,
                np.where(in_half, hours % 12 + 12 * after_noon.to_numpy(zero_copy_only=False), 99),
                hours,
            )
        times = hours * _HOUR_US + minutes * 60 * _SECOND_US + seconds * _SECOND_US
        if "f" in self._text:
            padded = pc.utf8_rpad(pc.utf8_slice_codeunits(self._text["f"], 0, 6), 6, "0")
            times = times + padded.fill_null("0").cast(pa.int64()).to_numpy(zero_copy_only=False)
            # A fraction of a microsecond is rounded up, because truncation could make a
            # begin time exact.
            rest = pc.match_substring_regex(self._text["f"], r"^.{6}0*[1-9]").fill_null(False)
            times = times + rest.to_numpy(zero_copy_only=False)
        return times, (hours < 24) & (minutes < 60) & (seconds < 60)

    def offset_us(self, name: str) -> IntArray:
        """Return the offset of each time from UTC in microseconds.

        Raises:
            LakewriterError: if only some times have an offset.
        """
        given = self._given("zs")
        if not given.any():
            return np.zeros(len(given), np.int64)
        hours, minutes = self._number("zh"), self._number("zm")
        if (given != self.present).any() or (hours > _OFFSET_HOURS_MAX).any():
            raise LakewriterError(f"{name} has times with an offset and times without")
        west = pc.equal(self._text["zs"], "-").fill_null(False).to_numpy(zero_copy_only=False)
        offsets: IntArray = np.where(west, -1, 1) * (hours * _HOUR_US + minutes * 60 * _SECOND_US)
        return offsets


def _is_day_first(name: str, first: IntArray, second: IntArray) -> bool:
    """Return whether dates like 03/04/2024 have the day first. Unambiguous dates decide."""
    day_first, month_first = bool((first > 12).any()), bool((second > 12).any())
    if day_first and month_first:
        raise LakewriterError(f"{name} has dates with the day first, and others with the month first")
    if not day_first and not month_first and bool((first != second).any()):
        at = int(np.argmax(first != second))
        raise LakewriterError(
            f"{name} has ambiguous days and months: {first[at]:02}/{second[at]:02}", "write 2024-01-31"
        )
    return day_first
