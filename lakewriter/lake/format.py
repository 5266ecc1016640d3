"""The lake's format: `_lakewriter/lake.json`, which refuses versions that are too old for a lake."""

from pathlib import Path

import msgspec

from lakewriter.errors import LakeError
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import write_durably
from lakewriter.regular_file import read_regular

FORMAT_NAME = f"{STATE_DIRECTORY}/lake.json"
FORMAT_VERSION = 1
FORMAT_BYTES_MAX = 64 * 1024


class LakeFormat(msgspec.Struct, frozen=True):
    """The content of lake.json; fields of later versions are ignored."""

    format_version: int
    created_by: str = ""


def has_format(root: Path) -> bool:
    """Return whether a directory has a lake.json.

    Raises:
        LakeError: if it cannot be read, or its format is newer than ours.
    """
    path = root / FORMAT_NAME
    try:
        content = read_regular(path, FORMAT_BYTES_MAX)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LakeError(f"lake: {path}: {error.strerror}") from None
    check_format(content, str(path), str(root))
    return True


def check_format(content: bytes, path: str, root: str) -> None:
    """Raise if a lake's format is newer than ours.

    Args:
        content: of its lake.json.
        path, root: names of the file and the lake in errors.

    Raises:
        LakeError: if it is newer, or the content is no lake.json.
    """
    try:
        lake_format = msgspec.json.decode(content, type=LakeFormat)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LakeError(f"lake: {path} is not what we wrote: {error}") from None
    if lake_format.format_version > FORMAT_VERSION:
        raise LakeError(
            f"lake: {root} has format {lake_format.format_version}, newer than {FORMAT_VERSION}",
            "pip install --upgrade lakewriter",
        )


def write_format(root: Path, created_by: str) -> None:
    """Write lake.json, unless there is one.

    Raises:
        LakeError: as `has_format`.
        OSError: if the disk refuses.

    Crash: the file is there, whole, or not.
    """
    if not has_format(root):
        content = msgspec.json.encode(LakeFormat(FORMAT_VERSION, created_by))
        write_durably(root / FORMAT_NAME, content + b"\n")
