"""lakewriter.toml: its keys, and the errors of invalid configs."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakewriter.config import EXAMPLE, FILE_BYTES_MAX, Config, Endpoints, load_config, parse_duration
from lakewriter.errors import UsageError
from lakewriter.market import MARKETS
from lakewriter.subscription import Subscription

KEYS = f"its keys are {', '.join(Config.__struct_fields__)}"


def written(directory: Path, text: str | bytes) -> Path:
    path = directory / "lakewriter.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_empty(tmp_path):
    """An empty file leaves all defaults."""
    config = load_config(written(tmp_path, ""))
    assert config == Config()
    assert (config.flush_every, config.heal_limit, config.rotate_after) == ("5m", "7d", "23h")
    assert config.market("spot") == MARKETS["spot"]


def test_example(tmp_path):
    """The command line's example is a valid config."""
    config = load_config(written(tmp_path, EXAMPLE))
    assert config.lake == str(tmp_path / "data")
    assert config.parsed_subscriptions() == [
        Subscription("spot", ("BTCUSDT", "BNBUSDT"), ("1m",)),
        Subscription("usdt_futures", ("BTCUSDT", "ETHUSDT"), ("1m",)),
        Subscription("coin_futures", ("BTCUSD_PERP", "ETHUSD_PERP"), ("3m",)),
    ]
    assert parse_duration(config.flush_every) == 300_000


@pytest.mark.parametrize(
    ("lake", "beside"),
    [("data", True), ("../x", True), ("/srv/x", False), ("~/x", False), ("s3://b/x", False)],
)
def test_a_relative_lake_lies_beside_the_config(tmp_path, monkeypatch, lake, beside):
    """A config's relative lake does not depend on the working directory."""
    path = written(tmp_path, f'lake = "{lake}"')
    monkeypatch.chdir("/")
    assert load_config(path).lake == (f"{tmp_path}/{lake}" if beside else lake)


def test_endpoints(tmp_path):
    """An endpoint in the file replaces that of its market, without a final slash; the others stay."""
    path = written(
        tmp_path,
        """
        [markets.spot]
        stream_url = "ws://127.0.0.1:9443/"
        [markets.coin_futures]
        rest_url = "http://127.0.0.1:9080"
        archive_url = "https://127.0.0.1:9081"
        archive_list_url = "http://127.0.0.1:9082/bucket/"
        """,
    )
    config = load_config(path)
    assert config.market("spot").stream_url == "ws://127.0.0.1:9443"
    assert config.market("spot").rest_url == MARKETS["spot"].rest_url
    assert config.market("coin_futures").rest_url == "http://127.0.0.1:9080"
    assert config.market("coin_futures").archive_url == "https://127.0.0.1:9081"
    assert config.market("coin_futures").archive_list_url == "http://127.0.0.1:9082/bucket"
    assert config.market("coin_futures").stream_url == MARKETS["coin_futures"].stream_url
    assert config.market("usdt_futures") == MARKETS["usdt_futures"]


def test_exchange():
    """A market's endpoints override the file's exchange; the command line's exchange overrides both."""
    config = Config(exchange="http://one:1", markets={"spot": Endpoints(rest_url="http://two:2")})
    assert config.market("spot").stream_url == "ws://one:1/spot"
    assert config.market("spot").rest_url == "http://two:2"
    assert config.market("usdt_futures").stream_url == "ws://one:1/usdt_futures/market"
    assert config.market("spot", "http://three:3").rest_url == "http://three:3/spot"


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("lake = 5", "Expected `str | null`, got `int` - at `$.lake`", KEYS),
        ("lakes = 'x'", "Object contains unknown field `lakes`", KEYS),
        ("flush_every = 5", "Expected `str`, got `int` - at `$.flush_every`", KEYS),
        ("flush_every = '5 minutes'", "duration: '5 minutes' is not a duration", "write 500ms, 5s, 5m or 1h"),
        ("flush_every = '0s'", "duration: '0s' is not between 1ms and 366d", ""),
        ("subscriptions = 'spot:A:1m'", "Expected `array`, got `str` - at `$.subscriptions`", KEYS),
        (
            "subscriptions = ['spot:A']",
            "subscription: 'spot:A' is not MARKET:SYMBOLS:INTERVALS",
            "for example spot:BTCUSDT,BNBUSDT:1m",
        ),
        (
            "exchange = 'ftp://x'",
            "exchange: 'ftp://x' is not an http:// or https:// URL",
            "lakewriter record --exchange http://127.0.0.1:9080 …",
        ),
        (
            "[markets.forex]\nrest_url='http://x'",
            "market: 'forex' is unknown",
            "choose from: spot usdt_futures coin_futures",
        ),
        (
            "[markets.spot]\nurl='http://x'",
            "Object contains unknown field `url` - at `$.markets[...]`",
            KEYS,
        ),
        (
            "[markets.spot]\nstream_url='http://x'",
            "markets.spot.stream_url: 'http://x' is not a ws(s):// URL",
            "",
        ),
        ("[markets.spot]\nstream_url='ws://'", "markets.spot.stream_url: 'ws://' is not a ws(s):// URL", ""),
        ("[markets.spot]\nrest_url='ws://x'", "markets.spot.rest_url: 'ws://x' is not a http(s):// URL", ""),
        ("[markets.spot]\narchive_url='x'", "markets.spot.archive_url: 'x' is not a http(s):// URL", ""),
        (
            "[markets.spot]\narchive_list_url='s3://x'",
            "markets.spot.archive_list_url: 's3://x' is not a http(s):// URL",
            "",
        ),
        (
            "markets = 5",
            "Expected `object`, got `int` - at `$.markets`",
            KEYS,
        ),
    ],
)
def test_malformed(tmp_path, text, what, hint):
    """The error for a malformed file is one line that begins with the file's path."""
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert (caught.value.what, caught.value.hint) == (f"{path}: {what}", hint)


@pytest.mark.parametrize(
    "text", [b"lake", b"\xff\xfe", b"lake = 'a'\nlake = 'b'", b"\x00", b"x = " + b"[" * 5000]
)
def test_not_toml(tmp_path, text):
    """A file that is not TOML is refused in one line."""
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert caught.value.what.startswith(f"{path}: not TOML: ")
    assert "\n" not in caught.value.what


def test_too_large(tmp_path):
    """A file far larger than any config is refused without reading all of it."""
    with pytest.raises(UsageError) as caught:
        load_config(written(tmp_path, b"#" * (FILE_BYTES_MAX + 1)))
    assert caught.value.what == f"{tmp_path}/lakewriter.toml: larger than 4,194,304 bytes"
    load_config(written(tmp_path, b"#" * FILE_BYTES_MAX))


def test_absent(tmp_path):
    """An absent file, or a directory in its place, is a usage error."""
    for path, what in [(tmp_path / "no.toml", "No such file or directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(UsageError) as caught:
            load_config(path)
        assert (caught.value.what, caught.value.hint) == (f"{path}: {what}", "lakewriter record --help")


@given(text=st.binary(max_size=60) | st.text("[]={}'\"\n lakemrtsub.5", max_size=60).map(str.encode))
def test_any_bytes(tmp_path_factory, text):
    """Any bytes give a config or a UsageError."""
    path = written(tmp_path_factory.getbasetemp(), text)
    try:
        load_config(path)
    except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("1ms", 1),
        ("500ms", 500),
        ("5s", 5_000),
        ("0.5s", 500),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1.5h", 5_400_000),
        ("366d", 366 * 86_400_000),
        (" 5s ", 5_000),
    ],
)
def test_durations(text, duration_ms):
    """A duration is a number and a unit."""
    assert parse_duration(text) == duration_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5 s",
        "-5s",
        "+5s",
        "1e3s",
        "5S",
        "5min",
        "1h30m",
        "nan s",
        ".5s",
        "5.s",
        "1_0s",
        "5s\n5s",
        "٥s",
    ],
)
def test_no_durations(text):
    """Any other text is no duration."""
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert caught.value.what == f"duration: {text!r} is not a duration"
    assert caught.value.hint == "write 500ms, 5s, 5m or 1h"


@pytest.mark.parametrize("text", ["0s", "0.1ms", "367d", "999999999999d", "31622401s"])
def test_durations_out_of_range(text):
    """A duration of zero, or of more than a year, is refused."""
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert caught.value.what == f"duration: {text!r} is not between 1ms and 366d"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('universe_every = "1ms"', "universe_every: 1ms is less than 1s"),
        ('rotate_after = "1s"', "rotate_after: 1s is less than 60s"),
        ('heal_limit = "x"', "duration: 'x' is not a duration"),
        ('[markets.spot]\ngrace = "x"', "duration: 'x' is not a duration"),
        ("[markets.spot]\nstreams_max = 0", "markets.spot.streams_max: 0 is not between 1 and 1024"),
        ("[markets.spot]\nstreams_max = 5000", "markets.spot.streams_max: 5000 is not between 1 and 1024"),
    ],
)
def test_limits_have_limits(tmp_path, text, what):
    """Values that would ask too often or never are refused when the file is read."""
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert caught.value.what == f"{path}: {what}"


def test_a_market_takes_its_own_limits(tmp_path):
    """A market's streams_max and grace override the defaults, with --exchange too."""
    config = load_config(written(tmp_path, '[markets.spot]\nstreams_max = 7\ngrace = "3s"'))
    market = config.market("spot", "http://127.0.0.1:1")
    assert (market.streams_max, market.grace_ms) == (7, 3000)
