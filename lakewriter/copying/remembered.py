"""The comparisons of earlier copies, by which a copy of an unchanged lake reads no candle file.

    _lakewriter/copied/<checksum of the source's name>.json

It lies in the target's local state. An entry has the versions of both files when they
were compared. It counts only while both have these versions. The file may be deleted at
any time. It has about 150 bytes for each partition.
"""

import zlib
from collections.abc import Mapping

import msgspec

from lakewriter.copying.pair import Pair
from lakewriter.copying.partition_copy import Versions
from lakewriter.lake.durable import make_directories, write_durably
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.regular_file import read_regular

DIRECTORY = f"{STATE_DIRECTORY}/copied"

# Enough for three million partitions. A larger file is ignored, and none is written.
FILE_BYTES_MAX = 512 * 1024 * 1024

Remembered = Mapping[str, Versions]


class _File(msgspec.Struct):
    """The content of the file: the two lakes, and the versions by the name of the partition's file."""

    source: str
    target: str
    partitions: dict[str, Versions]


def read_remembered(pair: Pair) -> dict[str, Versions]:
    """Return the comparisons of earlier copies. An unreadable file, or one of other lakes, has none."""
    try:
        data = read_regular(pair.target.state_dir / _name(pair), FILE_BYTES_MAX)
        found = msgspec.json.decode(data, type=_File)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found.partitions if (found.source, found.target) == _names(pair) else {}


def write_remembered(pair: Pair, partitions: dict[str, Versions]) -> None:
    """Write the comparisons for the next copy.

    Raises:
        OSError: if the disk refuses.

    Crash: the old file or the new one is there, whole; either is right.
    """
    data = msgspec.json.encode(_File(*_names(pair), partitions))
    if len(data) <= FILE_BYTES_MAX:
        path = pair.target.state_dir / _name(pair)
        make_directories(pair.target.state_dir, path.parent)
        write_durably(path, data)


def _names(pair: Pair) -> tuple[str, str]:
    return pair.source.name, pair.target.name


def _name(pair: Pair) -> str:
    return f"{DIRECTORY}/{zlib.crc32(pair.source.name.encode()):08x}.json"
