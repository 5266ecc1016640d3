"""Names and directories of files: the claims on a series that they make, and the refused ones."""

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.errors import UsageError
from lakewriter.evidence.choice import OtherSeriesError, check_name_claims
from lakewriter.evidence.claims import ImportOptions, Level, agree
from lakewriter.importer.file_names import parse_file_name
from lakewriter.interval import INTERVALS


def said(path: str) -> dict[Level, str]:
    """Return the claims of a file's name and directories, by level."""
    return {
        level: claim.value for level, claim in agree(parse_file_name(PurePath(path)).claims, path).items()
    }


def series(path: str) -> tuple[str | None, str | None, str | None]:
    found = said(path)
    return found.get("market"), found.get("symbol"), found.get("interval")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("BTC_USDT-1h.csv", (None, "BTCUSDT", "1h")),
        ("BTC-USDT_1h.csv", (None, "BTCUSDT", "1h")),
        ("BINANCE_BTCUSDT_1h.csv", (None, "BTCUSDT", "1h")),
        ("Binance_BTCUSDT_d.csv", (None, "BTCUSDT", "1d")),
        ("Binance_BTCUSDT_2023_minute.csv", (None, "BTCUSDT", "1m")),
        ("2024-01-01_BTCUSDT_1h.csv", (None, "BTCUSDT", "1h")),
        ("20240101-btcusdt-60m.csv", (None, "BTCUSDT", "1h")),
        ("BTCUSDT_202401_1h.csv", (None, "BTCUSDT", "1h")),
        ("BTCUSDT_240101_1h.csv", (None, "BTCUSDT", "1h")),
        ("BTCUSDT_240628_1h.csv", ("usdt_futures", "BTCUSDT_240628", "1h")),
        ("BTCUSD_PERP_4h_2023.csv", ("coin_futures", "BTCUSD_PERP", "4h")),
        ("BTC_USDT_USDT-1h-futures.feather", ("usdt_futures", "BTCUSDT", "1h")),
        ("BTC_USD_BTC-1h-futures.feather", ("coin_futures", "BTCUSD_PERP", "1h")),
        ("BINANCE_BTCUSDT.P_15m.csv", ("usdt_futures", "BTCUSDT", "15m")),
        ("spot_btcusdt_1m.pqt", ("spot", "BTCUSDT", "1m")),
        ("usdt_futures_币安人生USDT_1m.pqt", ("usdt_futures", "币安人生USDT", "1m")),
        ("BTCUSDT-1m-data.csv", (None, "BTCUSDT", "1m")),
        ("BTCUSDT.csv", (None, "BTCUSDT", None)),
        ("candles_eth_btc_5min.csv", (None, "ETHBTC", "5m")),
        ("btcusdt_usdt_futures_1h.csv", ("usdt_futures", "BTCUSDT", "1h")),
        ("BTCUSDT_1h_august.csv", (None, "BTCUSDT", "1h")),
        ("BTC-USD_1d.csv", (None, None, "1d")),
        ("candles_1h.csv", (None, None, "1h")),
        ("country_1h.csv", (None, None, "1h")),
        ("interval=1h/BTCUSDT.csv", (None, "BTCUSDT", "1h")),
        ("symbol=btcusdt/timeframe=60m/market=um/part-0.parquet", ("usdt_futures", "BTCUSDT", "1h")),
        ("exchange=binance/x.csv", (None, None, None)),
        ("BTCUSDT_SETTLED-1m-2024-01-01.zip", (None, "BTCUSDT_SETTLED", "1m")),
    ],
)
def test_names(path: str, expected: tuple[str | None, str | None, str | None]) -> None:
    """The words of a name are parsed, and unknown words are ignored."""
    assert series(path) == expected


@pytest.mark.parametrize(
    ("path", "read_as"),
    [("BTC_USDT-1h.csv", "BTCUSDT"), ("btcusdt_1h.csv", "BTCUSDT"), ("BTC_USD_BTC-1h.csv", "BTCUSD_PERP"),
     ("BTCUSDT-1m-2024-01-01.zip", ""), ("BINANCE_BTCUSDT_1h.csv", ""), ("candles_1h.csv", "")],
)  # fmt: skip
def test_what_was_understood_is_said(path: str, read_as: str) -> None:
    """A symbol in another spelling is reported with the exchange's spelling."""
    assert parse_file_name(PurePath(path)).read_as == read_as


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("BTCUSDT_ETHUSDT_1h.csv", "its name has two symbols, BTCUSDT and ETHUSDT"),
        ("btc_eth_1h.csv", "its name has two assets, BTC and ETH"),
        ("BTCUSDT_1h_heikinashi.csv", "holds Heikin-Ashi candles, not trades"),
        ("BTCUSDT_1h_4h.csv", "its name has two intervals, 1h and 4h"),
        ("spot_BTCUSDT_um_1h.csv", "its name has two markets, spot and usdt_futures"),
        ("BTC_USDT-8h-mark.feather", "holds mark prices, not trades"),
        ("BTC_USDT-8h-funding_rate.feather", "holds funding rates, not trades"),
        ("data/futures/um/daily/markPriceKlines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip", "holds mark prices, not trades"),
        ("premiumIndexKlines/BTCUSDT/1m/BTCUSDT-1m-2024-01-01.zip", "holds premiums, not trades"),
        ("bybit_BTCUSDT_1h.csv", "is of bybit, but a lake holds candles of Binance"),
        ("data/okx/BTC_USDT-1h.feather", "is of okx, but a lake holds candles of Binance"),
        ("symbol=BTCUSDT/market=forex/x.csv", "market=forex is no market of Binance"),
        ("interval=7m/BTCUSDT.csv", "interval=7m is no interval of Binance"),
    ],
)  # fmt: skip
def test_names_that_are_refused(path: str, what: str) -> None:
    """A name with two symbols, with prices not made from trades, or of another exchange is refused."""
    with pytest.raises(UsageError) as caught:
        parse_file_name(PurePath(path))
    assert caught.value.what == f"{path}: {what}"


@pytest.mark.parametrize(
    "path", ["ETH_1m.csv", "eth.csv", "ETHUSD_1m.csv", "ETH-USD.csv", "ethereum_2024.csv"]
)
def test_an_asset_alone_names_no_symbol(path: str) -> None:
    """A base asset alone implies no symbol, but contradicts symbols of other assets."""
    assert said(path).get("symbol") is None
    assert said(path)["asset"] == "ETH"
    with pytest.raises(OtherSeriesError, match="says ETH, --symbol says BTCUSDT"):
        check_name_claims(parse_file_name(PurePath(path)).claims, ImportOptions(symbol="BTCUSDT"), path)
    check_name_claims(parse_file_name(PurePath(path)).claims, ImportOptions(symbol="ETHUSDT"), path)


@pytest.mark.parametrize(
    ("path", "archive_name"),
    [("a/BTCUSDT-1m-2024-06-30.zip", "BTCUSDT-1m-2024-06-30"), ("BTCUSDT-1mo-2024-06.csv.gz", "BTCUSDT-1mo-2024-06"),
     ("BTCUSDT-1m.csv", ""), ("btcusdt-1m-2024-06-30.csv", ""), ("BTC_USDT-1h-2024-06.csv", ""), ("spot_BTCUSDT_1m.csv", "")],
)  # fmt: skip
def test_names_of_the_archive(path: str, archive_name: str) -> None:
    """Only the exchange's spelling with an interval and a day or month is an archive name."""
    assert parse_file_name(PurePath(path)).archive_name == archive_name


@given(
    st.sampled_from(["BTCUSDT", "1000PEPEUSDT", "ETHBTC", "BTCUSD_PERP", "ETHUSD_261225", "SOLUSDC"]),
    st.sampled_from(sorted(INTERVALS)),
    st.sampled_from(["{symbol}-{interval}-2024-06-30.zip", "{symbol}_{interval}.csv", "{symbol}-{interval}.json.gz",
                     "my-{symbol}-{interval}-2023.csv", "2024_{symbol}_{interval}.parquet"]),
)  # fmt: skip
def test_every_form_names_the_same_series(symbol: str, interval: str, form: str) -> None:
    """Each form of name gives the exchange's own spelling."""
    assert series(form.format(symbol=symbol, interval=interval))[1:] == (symbol, interval)
