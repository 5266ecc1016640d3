"""Histograms: counts in buckets of close numbers."""

from hypothesis import given
from hypothesis import strategies as st

from lakewriter.recording.histogram import Histogram


def test_nothing_counted() -> None:
    """Without values each quantile is 0."""
    assert (Histogram().count, Histogram().most, Histogram().at_most(0.99)) == (0, 0, 0)


@given(st.lists(st.integers(0, 10**6), min_size=1), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_share_is_not_exceeded(values: list[int], share: float) -> None:
    """The quantile is at least the exact one, and hardly larger."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    answer = histogram.at_most(share)
    exact = sorted(values)[max(0, -(-round(share * 100) * len(values) // 100) - 1)]
    assert exact <= answer <= exact * 17 / 16
    assert answer <= max(values) == histogram.most
    assert histogram.count == len(values)


@given(st.lists(st.integers(0, 10**6)))
def test_counts_below_powers_of_two_are_exact(values: list[int]) -> None:
    """The cumulative counts have no error of a bucket, and the sum is exact."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    expected = [sum(value < 2**exponent for value in values) for exponent in range(22)]
    assert histogram.counts_below(range(22)) == expected
    assert histogram.total == sum(values)
