"""`lakewriter chart`, which draws the candles of a series in the terminal or as a picture."""

from lakewriter.cli import DEFAULT_LAKE
from lakewriter.cli.moment import parse_start, parse_stop
from lakewriter.cli.picture_file import picture_of, write_picture
from lakewriter.cli.picture_options import PictureOptions
from lakewriter.cli.series_check import check_matches
from lakewriter.clock import present_ms
from lakewriter.errors import UsageError
from lakewriter.lake.open import open_to_read
from lakewriter.lake.partition_filter import PartitionFilter
from lakewriter.series import Series
from lakewriter.subscription import is_glob, parse_subscription
from lakewriter.written_time import parse_age

_EXAMPLE = "lakewriter chart spot:BTCUSDT:1h --last 7d"

# Columns of a terminal that the axis of prices may need.
_AXIS_COLUMNS = 16

# Width and height of a picture, in pixels.
_SIZE = (1200, 675)


def run(
    series: str,
    last: str | None,
    since: str | None,
    until: str | None,
    picture_options: PictureOptions,
    ascii_only: bool,
    lake: str | None,
) -> None:
    """Draw the candles."""
    from lakewriter.pictures.bars import WantedRange, read_chart, source_of

    wanted = _parse_series(series)
    since_ms, until_ms, last_ms = _parse_range(since, until, last)
    picture = picture_of(picture_options)
    look = picture.look(_SIZE)
    now_ms = present_ms()
    store = open_to_read(lake or DEFAULT_LAKE)
    source = source_of(store, wanted)
    if source is None:
        names = PartitionFilter((wanted.market,), (wanted.symbol,), (wanted.interval,))
        check_matches("chart", store, names)
        source = wanted
    if picture.path is not None:
        from lakewriter.pictures.plotted_chart import bars_for, plot_chart

        asked = WantedRange(since_ms, until_ms, last_ms, bars_for(look))
        data = read_chart(store, wanted, source, asked, now_ms)
        write_picture(store, picture, plot_chart(data, look))
        return
    from lakewriter.cli.drawing import print_drawing, screen
    from lakewriter.pictures.terminal_chart import COLUMNS_MIN, chart_lines

    shown = screen(ascii_only=ascii_only)
    asked = WantedRange(since_ms, until_ms, last_ms, max(shown.columns, COLUMNS_MIN) - _AXIS_COLUMNS)
    print_drawing(chart_lines(read_chart(store, wanted, source, asked, now_ms), shown))


def _parse_series(text: str) -> Series:
    """Parse the name of one series.

    Raises:
        UsageError: if the text names no series, or several.
    """
    if text.count(":") != 2:
        raise UsageError(f"chart: {text!r} is not MARKET:SYMBOL:INTERVAL", _EXAMPLE)
    subscription = parse_subscription(text)
    names = [*subscription.symbols, *subscription.intervals]
    if len(names) != 2 or is_glob(names[0]):
        raise UsageError(f"chart: {text} names several series", _EXAMPLE)
    return Series(subscription.market, *names)


def _parse_range(
    since: str | None, until: str | None, last: str | None
) -> tuple[int | None, int | None, int | None]:
    since_ms, until_ms = parse_start(since, "--since"), parse_stop(until, "--until")
    last_ms = None
    if last is not None:
        last_ms = parse_age(last)
        if last_ms is None:
            raise UsageError(f"--last: {last!r} is not a duration of s, m, h, d or w", "--last 7d")
        if since_ms is not None:
            raise UsageError("chart: --last and --since are both the start", _EXAMPLE)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UsageError("chart: --since is not before --until", _EXAMPLE)
    return since_ms, until_ms, last_ms
