"""Imports have bounds: memory has a limit, and a path that is no regular file does not block."""

import gzip
import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lakewriter.errors import LakewriterError
from lakewriter.importer.file_table import read_table
from lakewriter.regular_file import NotRegularError

ZEROS = bytes(150_000_000)


def packed(path: Path) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(ZEROS, 6))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("candles.csv", ZEROS)
    return path


@pytest.mark.parametrize("name", ["BTCUSDT-1m-2024-01-01.zip", "candles.zip", "candles.csv.gz"])
def test_a_bomb_is_not_inflated(tmp_path: Path, name: str) -> None:
    """A zip inflates at most to the size that its name allows, other files to a hundred times their size."""
    path = packed(tmp_path / name)
    bytes_max = 11_935_744 if name.startswith("BTC") else 100 * path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(LakewriterError, match=f"more than {bytes_max:,}"):
            read_table(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * bytes_max
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spoil", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A pipe or device is an error at once; in the place of a checksum it counts as absent."""
    path = tmp_path / "candles.csv"
    spoil(path)
    with pytest.raises(NotRegularError):
        read_table(path)
    path.unlink()
    path.write_text("unix,open,high,low,close,volume\n1704067200,1,2,1,2,3\n")
    spoil(tmp_path / "candles.csv.CHECKSUM")
    read = read_table(path)
    assert (read.table.num_rows, read.checked) == (1, False)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    """A huge file is refused by its size, with a hint."""
    path = tmp_path / "candles.csv"
    path.touch()
    os.truncate(path, 3 << 30)
    with pytest.raises(LakewriterError, match=r"larger than 1,073,741,824 bytes") as caught:
        read_table(path)
    assert caught.value.hint == "import it in parts"
