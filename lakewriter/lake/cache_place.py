"""The directory and the size of the cache of objects: of the caller, the environment, or the defaults.

The cache itself is `remote.object_cache`. A lake on a disk has none.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from lakewriter.errors import UsageError
from lakewriter.lake.root import cache_path

# Options of the command line set them for this process and its children.
DIRECTORY_VARIABLE = "LAKEWRITER_CACHE_DIR"
SIZE_VARIABLE = "LAKEWRITER_CACHE_SIZE"

SIZE_DEFAULT = "2GB"
# A larger size is a typing error.
BYTES_MAX = 1 << 50

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s?(?:([KMGT]i?)?B)?", re.IGNORECASE)
_UNITS = {"": 1} | {
    f"{letter}{binary}": base**power
    for power, letter in enumerate("KMGT", 1)
    for binary, base in (("", 1000), ("I", 1024))
}


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
    bytes_max = parse_size(str(size))
    if not bytes_max:
        return None
    chosen = directory or os.environ.get(DIRECTORY_VARIABLE)
    return CachePlace(Path(chosen).expanduser().absolute() if chosen else cache_path(), bytes_max)


def parse_size(text: str) -> int:
    """Parse a size such as "500MB", "2GB", "1.5GiB" or "0"; return bytes.

    Raises:
        UsageError: if the text is not a size, or larger than BYTES_MAX.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[(found[2] or "").upper()]) if found else BYTES_MAX + 1
    if size > BYTES_MAX:
        raise UsageError(f"cache size: {text!r} is no size", "500MB, 2GB; 0 caches nothing")
    return size
