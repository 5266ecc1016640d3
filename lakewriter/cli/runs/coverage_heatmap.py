"""The heat map of `lakewriter coverage`, in the terminal or as a picture."""

from collections.abc import Sequence

import click

from lakewriter.cli.option_values import HEATMAP_ROWS_SHOWN
from lakewriter.cli.picture_file import Picture, write_picture
from lakewriter.lake.coverage.absences import SeriesAbsences
from lakewriter.lake.lake import LakeStore

# The suggested size of a picture that is refused, in pixels.
_SIZE = (1200, 400)


def check_picture(picture: Picture) -> None:
    """Check the options of a picture before the lake is read.

    Raises:
        UsageError: if an option is invalid, or needs -o.
    """
    picture.look(_SIZE)


def show_heatmap(
    store: LakeStore, found: Sequence[SeriesAbsences], picture: Picture, *, show_all: bool
) -> None:
    """Print the heat map, or write it to the file of `-o`.

    Args:
        found: the series, at least one with expected candles.
        show_all: whether the terminal shows every series.

    Raises:
        the errors of `plot_heatmap` and `write_picture`.
    """
    if picture.path is not None:
        from lakewriter.pictures.plotted_heatmap import default_size, plot_heatmap

        write_picture(store, picture, plot_heatmap(found, picture.look(default_size(len(found)))))
        return
    from lakewriter.cli.drawing import print_drawing, screen
    from lakewriter.cli.terminal import terminal_width
    from lakewriter.pictures.terminal_heatmap import heatmap_lines

    rows_max = None if show_all or terminal_width() is None else HEATMAP_ROWS_SHOWN
    print_drawing(heatmap_lines(found, screen(), rows_max))
    if rows_max is not None and len(found) > rows_max:
        click.echo(f"lakewriter: {len(found) - rows_max} better series are not shown; --all", err=True)
