"""The lake's format: the version in `_lakewriter/lake.json`.

A lakewriter that is too old for a lake refuses it by this version.
"""

from pathlib import Path

import msgspec

from lakewriter.errors import LakeError
from lakewriter.lake.durable import write_durably
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import ChangedError, Storage
from lakewriter.regular_file import read_regular

FORMAT_NAME = f"{STATE_DIRECTORY}/lake.json"

# In format 1 every partition is a day. Since format 2 the interval sets the partition's period.
FORMAT_VERSION = 2
FORMAT_BYTES_MAX = 64 * 1024

# An attempt fails if another writer replaced lake.json in between.
_TRIES_MAX = 10


class LakeFormat(msgspec.Struct, frozen=True):
    """The content of lake.json. Unknown fields of later versions are ignored."""

    format_version: int
    created_by: str = ""


def read_format(root: Path) -> LakeFormat | None:
    """Return the content of a directory's lake.json, or None if the file does not exist.

    Raises:
        LakeError: if the file is unreadable, or its format is newer than ours.
    """
    path = root / FORMAT_NAME
    try:
        content = read_regular(path, FORMAT_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LakeError(f"lake: {path}: {error.strerror}") from None
    return check_format(content, str(path), str(root))


def check_format(content: bytes, path: str, root: str) -> LakeFormat:
    """Return the format in a lake.json; raise if it is newer than ours.

    Args:
        content: the bytes of lake.json.
        path, root: names of the file and the lake in errors.

    Raises:
        LakeError: if the format is newer, or the content is not that of a lake.json.
    """
    try:
        lake_format = msgspec.json.decode(content, type=LakeFormat)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LakeError(f"lake: {path} is not valid: {error}") from None
    if lake_format.format_version > FORMAT_VERSION:
        raise LakeError(
            f"lake: {root} has format {lake_format.format_version}, newer than {FORMAT_VERSION}",
            "pip install --upgrade lakewriter",
        )
    return lake_format


def write_format(root: Path, created_by: str) -> None:
    """Write lake.json, unless it exists with our format.

    Raises:
        LakeError: as `read_format`.
        OSError: if the disk refuses.

    Crash: the file is whole or absent; an older one is there until it is replaced.
    """
    _write_unless_ours(root, read_format(root) or LakeFormat(0, created_by))


def upgrade_format(root: Path) -> None:
    """Set the version of an older lake.json to ours. Older versions of lakewriter then refuse the lake.

    Raises:
        LakeError: as `read_format`.
        OSError: if the disk refuses.

    Crash: the old file or the new one is there, whole. We read lakes of both formats.
    """
    found = read_format(root)
    if found is not None:
        _write_unless_ours(root, found)


def write_stored_format(storage: Storage, lake: str, created_by: str | None) -> None:
    """Write lake.json to an object store, unless it exists with our format.

    Args:
        lake: the lake's name in errors.
        created_by: the program that creates a missing lake.json, or None to leave it missing.

    Raises:
        LakeError: as `read_format`, or if the store refuses.

    Crash: the old file or the new one is there, whole.
    """
    for _ in range(_TRIES_MAX):
        found = storage.read(FORMAT_NAME)
        known = None if found is None else check_format(found.data, f"{lake}/{FORMAT_NAME}", lake)
        if (known is None and created_by is None) or (known and known.format_version >= FORMAT_VERSION):
            return
        ours = LakeFormat(FORMAT_VERSION, known.created_by if known else created_by or "")
        try:
            storage.replace(FORMAT_NAME, msgspec.json.encode(ours) + b"\n", found.version if found else None)
        except ChangedError:
            continue
        return
    raise LakeError(f"lake: {lake}/{FORMAT_NAME}: changed during every attempt to write it", "try again")


def _write_unless_ours(root: Path, found: LakeFormat) -> None:
    if found.format_version < FORMAT_VERSION:
        ours = LakeFormat(FORMAT_VERSION, found.created_by)
        write_durably(root / FORMAT_NAME, msgspec.json.encode(ours) + b"\n")
