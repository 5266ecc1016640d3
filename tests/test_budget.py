"""The budget of request weight, by told times."""

from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.budget import BACKGROUND_SHARE, PROBE_S, SHARE, WINDOW_S, WeightBudget


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10), st.booleans()), max_size=200))
def test_no_window_of_a_minute_is_ever_exceeded(asks: list[tuple[float, int, bool]]) -> None:
    """However it is asked, in no 60 seconds is more spent than the share; waits are ever enough."""
    budget, now_s = WeightBudget(100), 1000.0
    spent: list[tuple[float, int]] = []
    for pause_s, weight, background in asks:
        now_s += pause_s
        for _ in range(1000):
            wait_s = budget.wait_s(weight, now_s, background=background)
            if not wait_s:
                break
            now_s += wait_s
        budget.spend(weight, now_s)
        spent.append((now_s, weight))
        within = sum(each for at_s, each in spent if at_s > now_s - WINDOW_S)
        assert within <= 100 * SHARE * (BACKGROUND_SHARE if background else 1)


def test_what_can_wait_leaves_half_to_what_cannot() -> None:
    """Background work stops at half of the share; urgent work goes on."""
    budget = WeightBudget(100)
    budget.spend(38, 0.0)
    assert budget.wait_s(1, 1.0, background=True) == 59.0
    assert budget.wait_s(1, 1.0) == 0.0


def test_what_others_spend_counts_too() -> None:
    """Weight that the exchange counted and we did not spend is another's on this address."""
    budget = WeightBudget(100)
    budget.spend(10, 0.0)
    budget.told(80, 1.0)
    assert budget.wait_s(1, 2.0) > 0
    assert budget.wait_s(1, 61.5) == 0.0
    budget.told(5, 62.0)
    assert budget.wait_s(60, 62.0) == 0.0


def test_whoever_is_told_to_wait_waits() -> None:
    """Nothing is spent while the exchange asked to wait, and a shorter wish changes nothing."""
    budget = WeightBudget(100)
    budget.hold(30, 0.0)
    budget.hold(5, 1.0)
    assert (budget.wait_s(1, 10.0), budget.held_s(10.0)) == (20.0, 20.0)
    assert budget.wait_s(1, 30.0) == 0.0


def test_after_a_wait_one_goes_ahead() -> None:
    """Who asks first after a wait is followed only when it was answered, or when that took too long."""
    budget = WeightBudget(100)
    budget.hold(30, 0.0)
    budget.spend(1, 30.0)
    assert budget.wait_s(1, 30.5) > 0
    assert budget.wait_s(1, 30.0 + PROBE_S) == 0.0
    budget.answered()
    assert budget.wait_s(1, 30.5) == 0.0


def test_a_request_larger_than_the_share_is_sent_when_nothing_else_is() -> None:
    """What costs more than the whole share waits for an empty minute, not for ever."""
    budget = WeightBudget(10)
    assert budget.wait_s(20, 0.0) == 0.0
    budget.spend(20, 0.0)
    assert budget.wait_s(20, 0.0) == WINDOW_S
