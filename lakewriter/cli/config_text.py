"""The text of a new lakewriter.toml: each option with its meaning and its default value.

An option that keeps its default is commented out, as `#name = value`. A comment for
people begins with `# `. A test compares the options and values with `lakewriter.config`.
"""

import json
from typing import NamedTuple

_TEXT = """\
# The config of `lakewriter record`. It is read if the file is in the working directory,
# or with --config. SIGHUP reads its subscriptions again; other changes need a restart.
# Durations are written 500ms, 5s, 5m, 1h or 7d.

# The lake: a directory, beside this file unless it begins with / or ~.
{lake}

# What to record: MARKET:SYMBOLS:INTERVALS, both lists comma-separated.
# Markets: spot, usdt_futures, coin_futures. Symbols may be globs, such as *USDT.
# Intervals: {intervals}
subscriptions = [
{subscriptions}
]

# Also fetch the history from this day on, or from so long ago ("30d").
{since}

# Forget candles that are older, a whole day, month or year at a time. Without it all are kept.
#keep = "400d"

# A candle is on disk at once, in the journal. So often it also goes into the Parquet files.
#flush_every = "5m"

# While the files take no candles, the journal grows up to this size. Then recording waits.
#journal_limit = "4GB"

# Candles that are missing for longer are not fetched again.
#heal_limit = "7d"

# A connection is replaced at this age. The exchange closes it after 24 hours.
#rotate_after = "23h"

# How often the exchange's list of symbols is fetched. New symbols of a glob begin then.
#universe_every = "10m"

# The log: lines of text, or "json"; a line for each candle; how often it has a summary.
#log_format = "text"
#log_candles = false
#summary_every = "1h"

# Where the recorder serves a page, /healthz, /metrics and /status.json. It needs lakewriter[http].
#http = "127.0.0.1:9464"

# A directory of your own saved queries, beside this file unless it begins with / or ~.
#queries = "queries"

# One server for all markets, such as the sandbox.
{exchange}

# The endpoints and limits of one market; the same for usdt_futures and coin_futures.
#[markets.spot]
#stream_url = "wss://stream.binance.com:9443"
#rest_url = "https://api.binance.com"
#archive_url = "https://data.binance.vision"
#archive_list_url = "https://s3-ap-northeast-1.amazonaws.com/data.binance.vision"
# Streams on one connection.
#streams_max = 1024
# How long after its end a closed candle may arrive.
#grace = "10s"
"""


class ConfigChoices(NamedTuple):
    """The options that a new config sets. None leaves an option commented out.

    Args:
        subscriptions: the subscriptions.
        lake: the lake's root.
        since: the first day of history, or an age.
        exchange: the URL of one server for all markets.
    """

    subscriptions: tuple[str, ...]
    lake: str | None = None
    since: str | None = None
    exchange: str | None = None


def config_text(choices: ConfigChoices, intervals: str) -> str:
    """Return the text of a config.

    Args:
        intervals: the names of the intervals, for a comment.
    """
    return _TEXT.format(
        lake=_line("lake", choices.lake, "data"),
        subscriptions="\n".join(f"    {_quoted(each)}," for each in choices.subscriptions),
        since=_line("since", choices.since, "30d"),
        exchange=_line("exchange", choices.exchange, "http://127.0.0.1:9080"),
        intervals=intervals,
    )


def _line(name: str, value: str | None, example: str) -> str:
    return f"#{name} = {_quoted(example)}" if value is None else f"{name} = {_quoted(value)}"


def _quoted(text: str) -> str:
    """Return a TOML string. Its escapes are those of JSON, and of DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
