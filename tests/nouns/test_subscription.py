"""MARKET:SYMBOLS:INTERVALS: parsed, or refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import UsageError
from lakewriter.market import MARKETS
from lakewriter.subscription import SYMBOLS_MAX, Subscription, is_glob, matching, parse_subscription


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spot:BTCUSDT:1m", Subscription("spot", ("BTCUSDT",), ("1m",))),
        ("spot:BTCUSDT,BNBUSDT:1m", Subscription("spot", ("BTCUSDT", "BNBUSDT"), ("1m",))),
        ("spot:btcusdt:1s", Subscription("spot", ("BTCUSDT",), ("1s",))),
        ("coin_futures:BTCUSD_PERP:3m,1M", Subscription("coin_futures", ("BTCUSD_PERP",), ("3m", "1mo"))),
        ("usdt_futures:*usdt:1m,5m", Subscription("usdt_futures", ("*USDT",), ("1m", "5m"))),
        ("usdt_futures:龙虾usdt:1m", Subscription("usdt_futures", ("龙虾USDT",), ("1m",))),
        (" spot : BTCUSDT , ETHUSDT,, : 1m , ", Subscription("spot", ("BTCUSDT", "ETHUSDT"), ("1m",))),
        ("spot:BTCUSDT,btcusdt:1m,1m,1M,1mo", Subscription("spot", ("BTCUSDT",), ("1m", "1mo"))),
        ("spot:[A-C]*,??USDT,[!B]*:1m", Subscription("spot", ("[A-C]*", "??USDT", "[!B]*"), ("1m",))),
    ],
)
def test_good(text, expected):
    """Both lists accept commas, spaces and either case, and duplicates are dropped."""
    assert parse_subscription(text) == expected


FOR_EXAMPLE = "for example spot:BTCUSDT,BNBUSDT:1m"
LOOK = "symbols look like BTCUSDT or BTCUSD_PERP"


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("", "subscription: '' is not MARKET:SYMBOLS:INTERVALS", FOR_EXAMPLE),
        ("spot", "subscription: 'spot' is not MARKET:SYMBOLS:INTERVALS", FOR_EXAMPLE),
        ("spot:BTCUSDT", "subscription: 'spot:BTCUSDT' is not MARKET:SYMBOLS:INTERVALS", FOR_EXAMPLE),
        ("spot:A:1m:", "subscription: 'spot:A:1m:' is not MARKET:SYMBOLS:INTERVALS", FOR_EXAMPLE),
        ("spot: :1m", "subscription: 'spot: :1m' is not MARKET:SYMBOLS:INTERVALS", FOR_EXAMPLE),
        ("::", "subscription: '::' is not MARKET:SYMBOLS:INTERVALS", FOR_EXAMPLE),
        ("spot:,:1m", "subscription: 'spot:,:1m' names no symbol or no interval", FOR_EXAMPLE),
        ("spot:A:,", "subscription: 'spot:A:,' names no symbol or no interval", FOR_EXAMPLE),
        ("forex:A:1m", "market: 'forex' is unknown", "choose from: spot usdt_futures coin_futures"),
        ("spot:../A:1m", "symbol: '../A' cannot be a symbol", LOOK),
        ("spot:BTC/USDT:1m", "symbol: 'BTC/USDT' cannot be a symbol", LOOK),
        ("spot:*/..:1m", "symbol: '*/..' matches no possible symbol", "globs look like *USDT or BTCUSD_*"),
    ],
)
def test_malformed(text, what, hint):
    """The message begins with the error, and the hint shows the format."""
    with pytest.raises(UsageError) as caught:
        parse_subscription(text)
    assert (caught.value.what, caught.value.hint) == (what, hint)
    assert caught.value.exit_code == 2


def test_intervals_of_the_market():
    """The error for an interval that the market lacks lists the market's intervals."""
    with pytest.raises(UsageError) as caught:
        parse_subscription("coin_futures:BTCUSD_PERP:1s")
    assert caught.value.what == "interval: coin_futures has no 1s candles"
    assert caught.value.hint == "choose from: " + " ".join(MARKETS["coin_futures"].intervals)


def test_too_many_symbols():
    """A list of symbols has a limit, and the hint is a glob."""
    symbols = [f"S{number}" for number in range(SYMBOLS_MAX)]
    assert len(parse_subscription(f"spot:{','.join(symbols)}:1m").symbols) == SYMBOLS_MAX
    with pytest.raises(UsageError) as caught:
        parse_subscription(f"spot:{','.join([*symbols, 'ONE'])}:1m")
    assert caught.value.what == f"subscription: {SYMBOLS_MAX + 1} symbols are more than {SYMBOLS_MAX}"
    assert caught.value.hint == "use a glob: spot:*USDT:1m"


names = st.text("ABZ019", min_size=1, max_size=6)


@given(
    st.sampled_from(list(MARKETS)),
    st.lists(names | names.map("*".join), min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_round_trip(market, symbols, data):
    """A subscription is formatted in the form that it is parsed from."""
    intervals = data.draw(st.lists(st.sampled_from(MARKETS[market].intervals), min_size=1, unique=True))
    subscription = Subscription(market, tuple(symbols), tuple(intervals))
    assert parse_subscription(str(subscription)) == subscription


@given(st.text(max_size=60) | st.text(":,*[]?! spot1mBTC", max_size=30))
def test_any_text(text):
    """Any text gives a subscription or a UsageError."""
    try:
        subscription = parse_subscription(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse_subscription(str(subscription)) == subscription


@pytest.mark.parametrize(
    ("text", "expected"), [("BTCUSDT", False), ("*", True), ("BTC?", True), ("[AB]C", True)]
)
def test_is_glob(text, expected):
    """A star, a question mark or a bracket makes a glob."""
    assert is_glob(text) is expected


def test_matching():
    """A glob matches whole names, case-sensitively, in the list's order."""
    listed = ["ETHUSDT", "BTCUSDT", "BTCUSD", "btcusdt"]
    assert matching("*USDT", listed) == ["ETHUSDT", "BTCUSDT"]
    assert matching("BTC*", listed) == ["BTCUSDT", "BTCUSD"]
    assert matching("[!B]*USDT", listed) == ["ETHUSDT"]
    assert matching("XRP*", listed) == []
