"""The table of markets, and the texts that can be a symbol."""

import re
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lakewriter
from lakewriter.errors import UsageError
from lakewriter.interval import INTERVALS
from lakewriter.market import MARKETS, is_symbol, parse_market, parse_symbol, served_at, wire_symbol

GOOD = [
    "BTCUSDT",
    "BTCUSD_PERP",
    "BTCUSD_261225",
    "BTCUSDT_261225",
    "1000PEPEUSDT",
    "1000000MOGUSDT",
    "1MBABYDOGEUSDT",
    "1INCHUSDT",
    "0GUSDT",
    "2ZUSDT",
    "4USDT",
    "42USDT",
    "币安人生USDT",
    "我踏马来了USDT",
    "龙虾USDT",
    "A",
    "A.B-C_D",
    "A" * 32,
]

BAD = {
    "empty": "",
    "dot": ".",
    "two dots": "..",
    "two dots inside": "BTC..USDT",
    "leading dot": ".BTCUSDT",
    "leading underscore": "_BTCUSDT",
    "leading minus": "-BTCUSDT",
    "slash": "BTC/USDT",
    "backslash": "BTC\\USDT",
    "parent": "../BTCUSDT",
    "NUL": "BTC\0USDT",
    "newline": "BTCUSDT\n",
    "tab": "BTC\tUSDT",
    "delete": "BTC\x7fUSDT",
    "C1 control": "BTC\x85USDT",
    "300 characters": "A" * 300,
    "33 characters": "A" * 33,
    "lower case": "btcusdt",
    "mixed case": "BTCUSDt",
    "space": "BTC USDT",
    "leading space": " BTCUSDT",
    "trailing space": "BTCUSDT ",
    "no-break space": "BTC\u00a0USDT",
    "percent": "BTC%2FUSDT",
    "equals": "BTC=USDT",
    "colon": "BTC:USDT",
    "quote": "BTC'USDT",
    "double quote": 'BTC"USDT',
    "hash": "BTC#USDT",
    "asterisk": "BTC*",
    "question mark": "BTC?",
    "brackets": "BTC[1]",
    "braces": "BTC{1}",
    "caret": "BTC^",
    "combining": "币\u0301USDT",
    "not NFC": unicodedata.normalize("NFD", "한국USDT"),
    "compatibility ideograph": "\uf900USDT",
    "right-to-left override": "BTC\u202eUSDT",
    "left-to-right mark": "BTC\u200eUSDT",
    "zero-width space": "BTC\u200bUSDT",
    "zero-width joiner": "BTC\u200dUSDT",
    "byte order mark": "\ufeffBTCUSDT",
    "foreign lower case": "ßUSDT",
    "fullwidth letters": "ＢＴＣ",
    "emoji": "🚀USDT",
    "private use": "\ue000USDT",
    "surrogate": "\ud800USDT",
    "unassigned": "\U000e0080USDT",
    "foreign after a dot pair": "币..安",
}


def test_three_markets():
    """The markets are spot and the two futures; only spot has `1s`."""
    assert list(MARKETS) == ["spot", "usdt_futures", "coin_futures"]
    for name, market in MARKETS.items():
        assert market.name == name
        assert set(INTERVALS) - set(market.intervals) == (set() if name == "spot" else {"1s"})
    assert MARKETS["usdt_futures"].stream_url.endswith("/market")
    assert MARKETS["coin_futures"].status_field == "contractStatus"


@pytest.mark.parametrize("name", MARKETS)
def test_parse_market(name):
    """A market is parsed from its name."""
    assert parse_market(name) is MARKETS[name]


@pytest.mark.parametrize("text", ["", "SPOT", "futures", "spot "])
def test_parse_market_refuses(text):
    """Any other name is refused, and the hint lists the markets."""
    with pytest.raises(UsageError) as caught:
        parse_market(text)
    assert str(caught.value) == f"market: {text!r} is unknown"
    assert caught.value.hint == "choose from: spot usdt_futures coin_futures"


@pytest.mark.parametrize(
    ("url", "name", "stream_url", "rest_url"),
    [
        ("http://127.0.0.1:9080", "spot", "ws://127.0.0.1:9080/spot", "http://127.0.0.1:9080/spot"),
        (
            "http://h:1/",
            "usdt_futures",
            "ws://h:1/usdt_futures/market",
            "http://h:1/usdt_futures",
        ),
        (
            "https://h/base//",
            "coin_futures",
            "wss://h/base/coin_futures",
            "https://h/base/coin_futures",
        ),
    ],
)
def test_served_at(url, name, stream_url, rest_url):
    """One server has each market below its name; USDⓈ-M klines stay below /market."""
    market = served_at(MARKETS[name], url)
    assert (market.stream_url, market.rest_url, market.archive_url) == (stream_url, rest_url, rest_url)
    assert market.archive_list_url == f"{url.rstrip('/')}/data.binance.vision"
    assert market.streams_max == MARKETS[name].streams_max


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:9080", "ws://h", "http://", "http:///x", "ftp://h", "file:///x"]
)
def test_served_at_refuses(url):
    """Only http and https URLs with a host are accepted."""
    with pytest.raises(UsageError) as caught:
        served_at(MARKETS["spot"], url)
    assert str(caught.value) == f"exchange: {url!r} is not an http:// or https:// URL"
    assert caught.value.hint == "lakewriter record --exchange http://127.0.0.1:9080 …"


@pytest.mark.parametrize("symbol", GOOD)
def test_symbols(symbol):
    """Each kind of symbol in the exchange's history is valid."""
    assert is_symbol(symbol)
    assert parse_symbol(symbol) == symbol
    assert parse_symbol(wire_symbol(symbol)) == symbol


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_no_symbols(text):
    """Names that leave the lake, mislead a reader or collide on a disk are no symbols."""
    assert not is_symbol(text)


@pytest.mark.parametrize("char", ["\u115f", "\u1160", "\u3164", "\uffa0"])
def test_no_invisible_letters(char):
    """Names with invisible letters are no symbols: two of them would look equal."""
    assert not is_symbol(f"BTC{char}USDT")


@given(st.text(max_size=40))
@example("A" * 32)
@example("币" * 32)
def test_a_symbol_is_one_path_component(text):
    """Each accepted symbol is one visible component of a path, without encoding."""
    if not is_symbol(text):
        return
    path = PurePosixPath("lake") / f"symbol={text}"
    assert path.parts == ("lake", f"symbol={text}")
    assert len(path.name.encode()) <= 255
    assert text not in (".", "..")
    assert text.isprintable()
    assert not set(text) & set("/\\:*?\"'<>|%#=[]{}^ \x7f")
    assert unicodedata.normalize("NFC", text) == text
    assert text == "".join(char.upper() if char.isascii() else char for char in text)


def test_symbols_are_directories(tmp_path: Path):
    """Each kind of symbol is read back unchanged from a directory's name."""
    for symbol in GOOD:
        (tmp_path / symbol).mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(GOOD)


@pytest.mark.parametrize(
    ("text", "symbol"), [("btcusdt", "BTCUSDT"), ("龙虾usdt", "龙虾USDT"), ("btcusd_perp", "BTCUSD_PERP")]
)
def test_parse_symbol(text, symbol):
    """ASCII letters may be in either case."""
    assert parse_symbol(text) == symbol
    assert wire_symbol(symbol) == text


@pytest.mark.parametrize("text", ["", "../x", "btc/usdt", "BTC USDT", "ß"])
def test_parse_symbol_refuses(text):
    """The error quotes the name that cannot be a symbol."""
    with pytest.raises(UsageError) as caught:
        parse_symbol(text)
    assert str(caught.value) == f"symbol: {text!r} cannot be a symbol"
    assert caught.value.hint == "symbols look like BTCUSDT or BTCUSD_PERP"


def test_markets_differ_in_the_table_alone() -> None:
    """No module outside the sandbox branches on a market's name."""
    branch = re.compile(
        r"""(?:market|name) (?:==|!=|in|not in) \(?["'](?:spot|usdt_futures|coin_futures)["']"""
    )
    package = Path(lakewriter.__file__).parent
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "sandbox" not in path.parts and branch.search(path.read_text())
    ]
    assert found == []
