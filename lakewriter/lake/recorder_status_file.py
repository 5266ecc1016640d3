"""The file with a living recorder's status, in its journal directory. Nothing depends on it.

    _lakewriter/journal/<recorder>/status.json

The recorder replaces the file every few seconds. It is not synced: after a power cut
the file may be old, empty or absent. This module does not know its fields.
"""

import contextlib
from pathlib import Path

from lakewriter.regular_file import read_regular

STATUS_NAME = "status.json"

# The recorder holds the lock of its directory, so one name is enough. It has the form of
# our temporary files, and no crash can leave more than one.
_TEMPORARY_NAME = f".{STATUS_NAME}.tmp-next"

# A larger file is not ours. 10,000 symbols take 0.1 MB.
STATUS_BYTES_MAX = 4 * 1024 * 1024


def write_status(directory: Path, data: bytes) -> None:
    """Replace the status in a recorder's journal directory. The directory is never created.

    Raises:
        OSError: if the directory is gone, or the disk refuses.

    Crash: the old file or the new one is there, and perhaps one temporary file.
    """
    temporary = directory / _TEMPORARY_NAME
    try:
        temporary.write_bytes(data)
        temporary.rename(directory / STATUS_NAME)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read_status(directory: Path) -> bytes | None:
    """Return the status in a journal directory, or None if it is absent or not readable."""
    try:
        return read_regular(directory / STATUS_NAME, STATUS_BYTES_MAX)
    except OSError:
        return None


def remove_status(directory: Path) -> None:
    """Remove the status from a journal directory, if it is there.

    Raises:
        OSError: if the disk refuses.
    """
    for name in (STATUS_NAME, _TEMPORARY_NAME):
        (directory / name).unlink(missing_ok=True)
