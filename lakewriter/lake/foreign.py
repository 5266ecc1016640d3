"""Foreign files: files of other programs, which are read, or left out with a warning.

A foreign file may have any content. If it cannot be read, answers leave it out.
Our own files are never left out: without them an answer would be wrong.
"""

import errno
from collections.abc import Callable
from typing import TypeVar

from lakewriter.errors import UnreadableError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.warn_once import warn_once
from lakewriter.regular_file import NotRegularError, TooLargeError

T = TypeVar("T")

# Errors of the file itself: a retry would fail again. Other errors, such as too many
# open files, are raised.
_REFUSALS = (PermissionError, IsADirectoryError, NotRegularError, TooLargeError)


def read_or_leave_out(store: LakeStore, name: str, read: Callable[[bytes, str], T], nothing: T) -> T | None:
    """Return the content of a foreign file.

    Args:
        name: the file's path, relative to the lake's root.
        read: decodes the file's bytes. Its second argument is the file's name in errors.
        nothing: the result for a file that cannot be read.

    Returns:
        the result of `read`, or `nothing`, or None if the file vanished.
    """
    path = f"{store.name}/{name}"
    try:
        found = store.storage.read(name)
        return None if found is None else read(found.data, path)
    except UnreadableError as error:
        reason = error.what
    except OSError as error:
        if not (isinstance(error, _REFUSALS) or error.errno == errno.ELOOP):
            raise
        reason = f"{path}: {error.strerror}"
    warn_once(f"lake: {reason}; its candles are left out")
    return nothing
