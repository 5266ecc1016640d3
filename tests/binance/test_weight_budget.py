"""The budget of request weight, with times passed in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.binance.weight_budget import (
    BACKGROUND_SHARE,
    BOOTS_MAX,
    HOLD_MAX_S,
    PROBE_S,
    RESERVED_S,
    RESERVED_SHARE,
    SHARE,
    WINDOW_S,
    WeightBook,
    WeightBudget,
    WeightUse,
    parse_book,
    render_book,
)
from lakewriter.lake.exchange_limits import PAGE_BYTES

WALL_S = 1_800_000_000.0

Asks = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 10), st.booleans(), st.booleans()), max_size=200)


class Holder:
    """A process that shares the budget's bytes, and knows nothing else."""

    data = b""

    def wait_s(self, weight: int, now_s: float, background: bool) -> float:
        book = parse_book(self.data)
        budget = WeightBudget(100, book.use("boot", now_s, WALL_S + now_s))
        wait_s = budget.wait_s(weight, now_s, background=background)
        if not wait_s:
            budget.spend(weight, now_s, background=background)
        Holder.data = render_book(book)
        return wait_s


@given(Asks)
def test_no_window_of_a_minute_is_ever_exceeded_by_two(asks: list[tuple[float, int, bool, bool]]) -> None:
    """Two processes with one state never spend more than the share in any 60 seconds.

    The wait that one gets is sufficient if the other does not spend first. Background
    work gets half of the share, and always its own tenth.
    """
    Holder.data = b""
    holders, now_s = (Holder(), Holder()), 1000.0
    spent: list[tuple[float, int, bool]] = []
    for pause_s, weight, background, which in asks:
        now_s += pause_s
        while wait_s := holders[which].wait_s(weight, now_s, background):
            now_s += wait_s
        spent.append((now_s, weight, background))
        within = sum(each for at_s, each, _ in spent if at_s > now_s - WINDOW_S)
        own = sum(each for at_s, each, is_background in spent if is_background and at_s > now_s - WINDOW_S)
        assert within <= 100 * SHARE
        if background:
            assert within <= 100 * SHARE * BACKGROUND_SHARE or own <= 100 * SHARE * RESERVED_SHARE


@given(
    st.lists(
        st.tuples(
            st.floats(0, 90),
            st.sampled_from(["spend", "told", "hold", "answered", "wait"]),
            st.integers(0, 10**7),
        ),
        max_size=60,
    )
)
def test_what_is_kept_is_what_was(steps: list[tuple[float, str, int]]) -> None:
    """A book is equal after rendering and parsing, in any state."""
    book, now_s = WeightBook(), 0.0
    for pause_s, step, number in steps:
        now_s += pause_s
        budget = WeightBudget(6000, book.use("boot", now_s, WALL_S + now_s))
        if step == "spend":
            budget.spend(number % 100, now_s)
        elif step == "told":
            budget.note_used(number, now_s)
        elif step == "hold":
            budget.block(number, now_s, WALL_S + now_s)
        elif step == "answered":
            budget.note_answered(now_s)
        else:
            budget.wait_s(2, now_s)
        assert parse_book(render_book(book)) == book


@given(st.data())
def test_nothing_that_was_kept_breaks_anything(data: st.DataObject) -> None:
    """A book with absurd values raises no error, and causes no wait longer than a ban."""
    number = st.floats(allow_nan=False, allow_infinity=False)
    second, weight = st.integers(0, 10**10), st.integers(0, 10**6)
    uses = st.builds(
        WeightUse,
        st.dictionaries(st.one_of(second, st.integers(30, 110)), weight, max_size=64),
        weight, number, number, number, st.booleans(), st.one_of(st.none(), number),
        st.dictionaries(st.one_of(second, st.integers(30, 110)), weight, max_size=64), number,
    )  # fmt: skip
    book = WeightBook(data.draw(st.dictionaries(st.sampled_from(["a", "b", "c"]), uses)))
    book = parse_book(render_book(book))
    budget = WeightBudget(100, book.use("a", 100.0, WALL_S))
    assert 0 <= budget.wait_s(1, 100.0) <= HOLD_MAX_S
    budget.spend(1, 100.0)
    budget.note_used(500, 101.0)
    budget.note_answered(101.0)
    budget.block(7, 101.0, WALL_S)
    assert parse_book(render_book(book)) == book


def test_an_absurd_weight_costs_a_minute_and_not_more() -> None:
    """After an answer with any used weight, the next request waits at most a minute."""
    budget, now_s = WeightBudget(6000), 100.0
    for used in (10**9, 10**6, 6001, 10**9):
        budget.spend(2, now_s)
        budget.note_used(used, now_s)
        wait_s = budget.wait_s(2, now_s)
        assert 0 < wait_s <= 62
        now_s += wait_s
        assert budget.wait_s(2, now_s) == 0


def test_a_full_book_fits_into_its_file() -> None:
    """The largest possible book, with all its boots, fits into the file's page."""
    year_s = 365 * 86_400
    book = WeightBook()
    for number in range(BOOTS_MAX):
        boot = f"4f6b1c1e-0000-0000-0000-{number:012d}"
        budget = WeightBudget(6000, book.use(boot, year_s - 62.0, WALL_S))
        for second in range(62):
            budget.spend(4500, year_s - 61.5 + second, background=True)
        budget.note_used(6000, float(year_s))
        budget.block(0.123456789, year_s - 0.123456789, WALL_S + 0.123456789)
        budget.spend(1, year_s + 0.123456789)
    assert len(render_book(book)) <= PAGE_BYTES


def test_what_can_wait_leaves_half_to_what_cannot() -> None:
    """Background work stops at half of the share, beyond its own tenth; urgent work continues."""
    budget = WeightBudget(100)
    budget.spend(31, 0.0)
    budget.spend(7, 0.0, background=True)
    assert budget.wait_s(1, 1.0, background=True) == WINDOW_S
    assert budget.wait_s(1, 1.0) == 0.0


def test_background_work_has_a_tenth_while_urgent_work_takes_all_it_can() -> None:
    """Urgent requests without a pause leave a tenth to background work, within the share."""
    budget = WeightBudget(100)
    spent: list[tuple[float, bool]] = []
    for step in range(10 * 600):
        now_s = step / 10
        for background in (False, True):
            if budget.wait_s(1, now_s, background=background) == 0.0:
                budget.spend(1, now_s, background=background)
                spent.append((now_s, background))
        assert sum(at_s > now_s - WINDOW_S for at_s, _ in spent) <= 100 * SHARE
    for minute in range(1, 9):
        minutes = [background for at_s, background in spent if minute * 60 <= at_s < minute * 60 + 70]
        assert sum(minutes) >= int(100 * SHARE * RESERVED_SHARE)
        assert minutes.count(False) >= 100 * SHARE * 0.85


def test_without_background_work_nothing_is_reserved() -> None:
    """Urgent work may use the whole share until background work waits."""
    budget = WeightBudget(100)
    budget.spend(70, 0.0)
    assert budget.wait_s(5, 0.5) == 0.0
    assert budget.wait_s(6, 0.5, background=True) > 0.0
    assert budget.wait_s(5, 0.5) > 0.0
    assert budget.wait_s(5, 0.5 + RESERVED_S) == 0.0


def test_what_others_spend_counts_too() -> None:
    """Weight that the exchange counts beyond ours counts as that of other programs."""
    budget = WeightBudget(100)
    budget.spend(10, 0.0)
    budget.note_used(80, 1.0)
    assert budget.wait_s(1, 2.0) > 0
    assert budget.wait_s(1, 61.5) == 0.0
    budget.note_used(5, 62.0)
    assert budget.wait_s(60, 62.0) == 0.0


def test_what_two_of_us_spend_is_nobody_elses() -> None:
    """The weight of our other processes is not counted as that of other programs."""
    use = WeightUse()
    one, other = WeightBudget(100, use), WeightBudget(100, use)
    one.spend(20, 0.0)
    other.spend(30, 0.5)
    one.note_used(50, 1.0)
    assert use.others == 0
    other.note_used(57, 1.0)
    assert use.others == 7
    assert one.wait_s(18, 2.0) == 0.0
    assert one.wait_s(19, 2.0) > 0


def test_whoever_is_told_to_wait_waits() -> None:
    """No weight is spent during a block, and a shorter block does not shorten it."""
    budget = WeightBudget(100)
    budget.block(30, 0.0, WALL_S)
    budget.block(5, 1.0, WALL_S + 1)
    assert (budget.wait_s(1, 10.0), budget.blocked_s(10.0)) == (20.0, 20.0)
    assert budget.wait_s(1, 30.0) == 0.0


def test_after_a_wait_one_goes_ahead() -> None:
    """After a block one request is sent; others follow its answer, or a timeout."""
    budget = WeightBudget(100)
    budget.block(30, 0.0, WALL_S)
    budget.spend(1, 30.0)
    assert budget.wait_s(1, 30.5) > 0
    assert budget.wait_s(1, 30.0 + PROBE_S) == 0.0
    budget.note_answered(29.0)
    assert budget.wait_s(1, 30.5) > 0, "an answer to what was asked before the wait says nothing"
    budget.note_answered(30.0)
    assert budget.wait_s(1, 30.5) == 0.0


def test_a_request_larger_than_the_share_is_sent_when_nothing_else_is() -> None:
    """A request above the whole share waits for an empty minute, not forever."""
    budget = WeightBudget(10)
    assert budget.wait_s(20, 0.0) == 0.0
    budget.spend(20, 0.0)
    assert budget.wait_s(20, 0.0) == WINDOW_S + 1


def test_a_wait_outlives_the_boot_by_the_wall_clock() -> None:
    """After a reboot the monotonic clock restarts; the rest of a ban still holds, then one request is sent."""
    book = WeightBook()
    before = WeightBudget(100, book.use("first", 9000.0, WALL_S))
    before.spend(50, 9000.0)
    before.block(600, 9000.0, WALL_S)
    book = parse_book(render_book(book))
    after = WeightBudget(100, book.use("second", 20.0, WALL_S + 100))
    assert after.blocked_s(20.0) == 500.0
    assert after.wait_s(50, 520.0) == 0.0
    after.spend(50, 520.0)
    assert after.wait_s(1, 521.0) > 0


def test_a_wall_clock_that_was_wrong_holds_nobody_for_years() -> None:
    """A block that ends years ahead by the wall clock ends after the longest ban."""
    book = WeightBook({"first": WeightUse(held_until_unix_s=WALL_S + 1e9)})
    assert WeightBudget(100, book.use("second", 5.0, WALL_S)).blocked_s(5.0) == HOLD_MAX_S
    later_s = HOLD_MAX_S + 10
    assert WeightBudget(100, book.use("second", later_s, WALL_S + later_s)).wait_s(1, later_s) == 0.0


def test_times_of_another_boot_are_dropped() -> None:
    """Without a boot id, times in the future count as those of a previous boot."""
    use = WeightUse({5000: 40, 3: 7}, 90, 5060.0, 0.0, 0.0, True, 5000.0)
    budget = WeightBudget(100, use)
    assert budget.wait_s(68, 20.0) == 0.0
    assert use.spent == {3: 7}
    assert (use.others, use.probed_s) == (0, None)


def test_machines_that_share_a_disk_count_apart() -> None:
    """Each boot has its own use in the shared book, and old boots are dropped."""
    book = WeightBook()
    for number in range(BOOTS_MAX + 2):
        WeightBudget(100, book.use(f"boot {number}", 10.0, WALL_S)).spend(number, 10.0)
    assert [each.spent[10] for each in book.boots.values()] == [2, 3, 4]
    assert book.use("boot 3", 11.0, WALL_S).spent == {10: 3}


@pytest.mark.parametrize(
    "data",
    [
        b"{", b"\0" * 4096, b"[]", b'"\xff"', b"[" * 4000, b'{"boots":{"a":{"spent":{"1":-1}}}}',
        b'{"boots":{"a":{"spent":{"1":1e400}}}}', b'{"boots":{"a":{"others":10000000}}}',
        b'{"boots":{"a":{"held_until_s":NaN}}}', b'{"boots":{"a":{"spent":{"99999999999999":1}}}}',
        b'{"boots":{"a":{},"b":{},"c":{},"d":{}}}',
    ],
)  # fmt: skip
def test_what_is_no_book_is_refused(data: bytes) -> None:
    """Damaged bytes of any kind raise ValueError."""
    with pytest.raises(ValueError):
        parse_book(data)
