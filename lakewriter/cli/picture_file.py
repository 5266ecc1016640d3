"""The file of a picture."""

from collections.abc import Callable
from typing import Any

from lakewriter.cli.picture_options import PictureOptions
from lakewriter.cli.terminal import ignore_broken_pipe
from lakewriter.lake.lake import LakeStore
from lakewriter.query.output.destination import open_destination


def write_picture(store: LakeStore, picture: PictureOptions, draw: Callable[[Any, str], None]) -> None:
    """Write a picture to the file of `-o`.

    Args:
        draw: writes the picture to a binary stream, in the format of a name.

    Raises:
        the errors of `open_destination`.
    """
    assert picture.path is not None
    with (
        ignore_broken_pipe(),
        open_destination(picture.path, store.state_dir, overwrite=picture.force) as out,
    ):
        draw(out, picture.format_name)
