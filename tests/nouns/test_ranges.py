"""Sets of times as ranges, compared with sets of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from lakewriter.ranges import Range, added, contains, minus, union, within, without

MOMENTS = st.integers(0, 40)
RANGES = st.lists(st.tuples(MOMENTS, MOMENTS), max_size=8)


def moments(ranges: list[Range]) -> set[int]:
    return {moment for start_ms, stop_ms in ranges for moment in range(start_ms, stop_ms)}


def is_set(ranges: list[Range]) -> bool:
    flat = [edge for each in ranges for edge in each]
    return flat == sorted(set(flat))


@given(RANGES, RANGES, MOMENTS, MOMENTS)
def test_ranges_are_sets_of_moments(some: list[Range], others: list[Range], start: int, stop: int) -> None:
    """After any unions and cuts the ranges equal a set of numbers, and are sorted and disjoint."""
    ranges = union(some)
    span = set(range(start, stop))
    for result, expected in (
        (ranges, moments(some)),
        (added(ranges, start, stop), moments(some) | span),
        (without(ranges, start, stop), moments(some) - span),
        (minus(ranges, others), moments(some) - moments(others)),
        (within(ranges, start, max(start, stop)), moments(some) & span),
    ):
        assert moments(result) == expected
        assert is_set(result)
    assert contains(ranges, start) == (start in moments(some))
