"""The choices and defaults that options name, so that `--help` imports no other module for them.

Those of a module that is not part of the command line are repeated here. A test compares them.
"""

# The config in the working directory.
FILE_NAME = "lakewriter.toml"

LOG_FORMATS = ("text", "json")
MARKETS = ("spot", "usdt_futures", "coin_futures")

# The sources of candles.
SOURCES = ("stream", "rest", "archive")

# The downloads of a backfill at once, in this process and in each worker.
DOWNLOADS = 8
WORKER_DOWNLOADS = 2

# Maximum number of downloads at once. More are no faster, because one core imports the files.
DOWNLOADS_MAX = 64

# The checks of `lakewriter verify` that need no network.
LOCAL_CHECKS = ("partition", "candle", "intervals", "jumps")

# A price jump has more deviations than this.
DEVIATIONS = 20.0

# Maximum number of printed findings of each check.
FINDINGS_SHOWN = 20

# Maximum number of printed gaps. `--all` prints all of them.
GAPS_SHOWN = 40

# Maximum number of series in a heat map on a terminal. `--all` draws all of them.
HEATMAP_ROWS_SHOWN = 40

UNTIL_HELP = "Only this day and earlier ones. With a time, or now, every series must last until then."
