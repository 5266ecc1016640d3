"""The config file: lakewriter.toml, parsed into structs.

It sets the options of the command line, and the endpoints of single markets.
Reading it never uses the network.
"""

import re
import tomllib
from pathlib import Path

import msgspec

from lakewriter.errors import UsageError
from lakewriter.interval import DAY_MS
from lakewriter.market import MARKETS, Market, is_url, parse_market, served_at
from lakewriter.regular_file import read_user_file
from lakewriter.subscription import Subscription, parse_subscription
from lakewriter.written_size import parse_size
from lakewriter.written_time import parse_age

FILE_NAME = "lakewriter.toml"

# Configs are written by hand. A larger file is not a config.
FILE_BYTES_MAX = 4 * 1024 * 1024

FLUSH_EVERY_DEFAULT = "5m"
HEAL_LIMIT_DEFAULT = "7d"
ROTATE_AFTER_DEFAULT = "23h"
UNIVERSE_EVERY_DEFAULT = "10m"
SUMMARY_EVERY_DEFAULT = "1h"
JOURNAL_LIMIT_DEFAULT = "4GB"

# The formats of a recorder's log. The first one is the default.
LOG_FORMATS = ("text", "json")

# Minimum durations. Shorter ones waste request weight or connection attempts.
_LEAST_MS = {"rotate_after": 60_000, "universe_every": 1_000, "summary_every": 1_000}

# Maximum of a configured `streams_max`: the largest limit that the exchange documents for a market.
STREAMS_MAX_MAX = 1024

EXAMPLE = """\
lake = "data"
subscriptions = [
    "spot:BTCUSDT,BNBUSDT:1m",
    "usdt_futures:BTCUSDT,ETHUSDT:1m",
    "coin_futures:BTCUSD_PERP,ETHUSD_PERP:3m",
]
flush_every = "5m"
"""


class Endpoints(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Endpoints and limits of one market that replace the default ones.

    Args:
        stream_url: the part before `/stream?streams=`.
        rest_url: the part before `/api/v3/klines`, `/fapi/v1/klines` or `/dapi/v1/klines`.
        archive_url: the part before `/data/spot/daily/klines/`.
        archive_list_url: the part before `?prefix=data/spot/daily/klines/`.
        streams_max: maximum number of streams on one connection.
        grace: a duration; the time from a candle's end to its deadline.
    """

    stream_url: str | None = None
    rest_url: str | None = None
    archive_url: str | None = None
    archive_list_url: str | None = None
    streams_max: int | None = None
    grace: str | None = None


# The scheme of each field that holds a URL.
_URLS = {"stream_url": "ws", "rest_url": "http", "archive_url": "http", "archive_list_url": "http"}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of lakewriter.toml. The value of an absent key is None.

    Args:
        lake: the lake's root; a relative path starts at the config's directory.
        subscriptions: subscriptions of the form MARKET:SYMBOLS:INTERVALS.
        flush_every: a duration; the maximum age of a buffered candle.
        journal_limit: a size such as "4GB"; recording waits while the journal of candles that
            cannot be merged is larger.
        heal_limit: a duration; the maximum age of gaps that are healed.
        since: a day, or an age such as "30d"; candles missing since then are backfilled.
        keep: an age such as "400d"; older candles of the subscribed series are forgotten.
        rotate_after: a duration; the age at which a connection is replaced.
        universe_every: a duration; the pause between requests of the exchange's list of symbols.
        exchange: the URL of one server that offers all three markets.
        http: HOST:PORT; where a recorder answers requests about itself.
        log_format: the format of the log's lines: text, or json.
        log_candles: whether the log has a line for each recorded candle.
        summary_every: a duration; the pause between summaries in the log.
        queries: a directory of saved queries; a relative path starts at the config's directory.
        markets: endpoints and limits, by market.
    """

    lake: str | None = None
    subscriptions: tuple[str, ...] = ()
    flush_every: str = FLUSH_EVERY_DEFAULT
    journal_limit: str = JOURNAL_LIMIT_DEFAULT
    heal_limit: str = HEAL_LIMIT_DEFAULT
    since: str | None = None
    keep: str | None = None
    rotate_after: str = ROTATE_AFTER_DEFAULT
    universe_every: str = UNIVERSE_EVERY_DEFAULT
    exchange: str | None = None
    http: str | None = None
    log_format: str = LOG_FORMATS[0]
    log_candles: bool = False
    summary_every: str = SUMMARY_EVERY_DEFAULT
    queries: str | None = None
    markets: dict[str, Endpoints] = {}

    def parsed_subscriptions(self) -> list[Subscription]:
        """Parse the subscriptions.

        Raises:
            UsageError: if a subscription is malformed.
        """
        return [parse_subscription(text) for text in self.subscriptions]

    def market(self, name: str, exchange: str | None = None) -> Market:
        """Return the market with its configured endpoints.

        Args:
            name: the market's name.
            exchange: overrides the file's `exchange` and `[markets]`.
        """
        market = MARKETS[name]
        given = self.markets.get(name, Endpoints())
        if given.streams_max is not None:
            market = msgspec.structs.replace(market, streams_max=given.streams_max)
        if given.grace is not None:
            market = msgspec.structs.replace(market, grace_ms=parse_duration(given.grace))
        if exchange is not None:
            return served_at(market, exchange)
        if self.exchange is not None:
            market = served_at(market, self.exchange)
        urls = {field: getattr(given, field) for field in _URLS}
        changed = {field: url.rstrip("/") for field, url in urls.items() if url is not None}
        return msgspec.structs.replace(market, **changed)


def find_config(path: str | None) -> Config | None:
    """Read the config at a path, or lakewriter.toml of the working directory.

    Returns:
        the config; None if no path is given and lakewriter.toml is absent.

    Raises:
        UsageError: in the same cases as `load_config`.
    """
    if path is not None:
        return load_config(Path(path))
    return load_config(Path(FILE_NAME)) if Path(FILE_NAME).is_file() else None


def load_config(path: Path) -> Config:
    """Read a config file.

    Raises:
        UsageError: if the file is absent, is not TOML, or has an invalid value. The
            message names the file and the key.
    """
    try:
        contents = tomllib.loads(read_user_file(path, FILE_BYTES_MAX).decode())
        config = msgspec.convert(contents, Config)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "lakewriter record --help") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}", f"its keys are {', '.join(Config.__struct_fields__)}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
    _check(path, config)
    return msgspec.structs.replace(
        config, lake=_beside(path, config.lake), queries=_beside(path, config.queries)
    )


def _beside(path: Path, named: str | None) -> str | None:
    """Return a lake or directory that a config names; a relative path starts at the config's directory."""
    if not named or "://" in named or named.startswith("~"):
        return named
    return str(path.parent / named)


def _check(path: Path, config: Config) -> None:
    try:
        for duration in (config.flush_every, config.heal_limit):
            parse_duration(duration)
        parse_journal_limit(config.journal_limit)
        for name, least_ms in _LEAST_MS.items():
            if parse_duration(getattr(config, name)) < least_ms:
                raise UsageError(f"{name}: {getattr(config, name)} is less than {least_ms // 1000}s")
        if config.log_format not in LOG_FORMATS:
            raise UsageError(f"log_format: {config.log_format!r} is not one of {', '.join(LOG_FORMATS)}")
        config.parsed_subscriptions()
        for name, endpoints in config.markets.items():
            parse_market(name)
            for field, scheme in _URLS.items():
                _check_url(name, field, getattr(endpoints, field), scheme)
            if endpoints.grace is not None:
                parse_duration(endpoints.grace)
            if endpoints.streams_max is not None and not 1 <= endpoints.streams_max <= STREAMS_MAX_MAX:
                raise UsageError(
                    f"markets.{name}.streams_max: {endpoints.streams_max} is not between 1 and {STREAMS_MAX_MAX}"
                )
        if config.exchange is not None:
            served_at(MARKETS["spot"], config.exchange)
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.hint) from None


def _check_url(market: str, field: str, url: str | None, scheme: str) -> None:
    if url is not None and not is_url(url, (scheme, scheme + "s")):
        raise UsageError(f"markets.{market}.{field}: {url!r} is not a {scheme}(s):// URL")


def parse_keep(config: Config, *, heal_limit: str, since: str | None) -> int | None:
    """Return the config's `keep` in milliseconds; None without one.

    Args:
        heal_limit, since: the values in effect, of the command line or the config.

    Raises:
        UsageError: if candles that are fetched, or healed, would be forgotten again.
    """
    if config.keep is None:
        return None
    keep_ms = parse_age(config.keep)
    if keep_ms is None or keep_ms % DAY_MS:
        raise UsageError(f"keep: {config.keep!r} is not a number of days or weeks", 'keep = "400d"')
    if keep_ms < parse_duration(heal_limit) + DAY_MS:
        raise UsageError(
            f"keep: {config.keep} is not a day longer than heal_limit, {heal_limit}: healing would fetch"
            " the forgotten candles again",
            f'keep = "{parse_duration(heal_limit) // DAY_MS + 2}d", or a shorter heal_limit',
        )
    if since is not None:
        since_ms = parse_age(since)
        example = f'since = "{max(1, keep_ms // DAY_MS - 1)}d"'
        if since_ms is None:
            what = f"since: {since} is a day, which will be older than keep, {config.keep}, some time"
            raise UsageError(what, f"write an age, which moves with it: {example}")
        if since_ms >= keep_ms:
            what = (
                f"since: {since} is not shorter than keep, {config.keep}: what it fetches would be forgotten"
            )
            raise UsageError(what, example)
    return keep_ms


def parse_journal_limit(text: str) -> int:
    """Parse the maximum size of a journal; return bytes.

    Raises:
        UsageError: if the text is not a size, or the size is 0.
    """
    example = "write 512MB, 4GB or 1TB"
    size = parse_size(text, "journal limit", example)
    if not size:
        raise UsageError("journal limit: nothing can be recorded into 0 bytes", example)
    return size


_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

# A longer duration is a typing error.
DURATION_MS_MAX = 366 * 86_400_000


def parse_duration(text: str) -> int:
    """Parse a duration such as "500ms", "5s", "5m", "1h" or "2d"; return milliseconds.

    Raises:
        UsageError: if the text is not a duration, or the duration is not positive, or
            exceeds 366 days.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"duration: {text!r} is not a duration", "write 500ms, 5s, 5m or 1h")
    duration_ms = round(float(found[1]) * _UNIT_MS[found[2]])
    if not 1 <= duration_ms <= DURATION_MS_MAX:
        raise UsageError(f"duration: {text!r} is not between 1ms and 366d")
    return duration_ms
