"""The directory and the size of the cache of objects: of the caller, the environment, or the defaults.

The cache itself is `remote.object_cache`. A lake on a disk has none.
"""

import os
from pathlib import Path
from typing import NamedTuple

from lakewriter.lake.root import cache_path
from lakewriter.written_size import parse_size

# Options of the command line set them for this process and its children.
DIRECTORY_VARIABLE = "LAKEWRITER_CACHE_DIR"
SIZE_VARIABLE = "LAKEWRITER_CACHE_SIZE"

SIZE_DEFAULT = "2GB"


class CachePlace(NamedTuple):
    """Where objects are cached, and how many bytes of the disk they may use."""

    directory: Path
    bytes_max: int


def cache_place(
    directory: str | os.PathLike[str] | None = None, size: str | int | None = None
) -> CachePlace | None:
    """Return the place of the cache, or None if it is switched off.

    Args:
        directory: the directory; None is that of the environment, or the platform's.
        size: bytes, or text such as "500MB"; None is that of the environment, or the
            default. 0 switches the cache off.

    Raises:
        UsageError: if the size is no size, or there is no directory.
    """
    if size is None:
        size = os.environ.get(SIZE_VARIABLE) or SIZE_DEFAULT
    bytes_max = parse_cache_size(size if isinstance(size, str) else f"{size}B")
    if not bytes_max:
        return None
    chosen = directory or os.environ.get(DIRECTORY_VARIABLE)
    return CachePlace(Path(chosen).expanduser().absolute() if chosen else cache_path(), bytes_max)


def parse_cache_size(text: str) -> int:
    """Parse the size of the cache; return bytes. 0 switches it off.

    Raises:
        UsageError: if the text is not a size.
    """
    return parse_size(text, "cache size", "500MB, 2GB; 0 caches nothing")
