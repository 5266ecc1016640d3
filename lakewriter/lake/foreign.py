"""Files that others put into partitions: read, or left out with one line in the log.

Nothing of ours depends on such a file, and anything may be in it. It does not
stop an answer about the candles beside it. Our own files are never left out:
without them an answer would be wrong.
"""

import errno
from collections.abc import Callable
from typing import TypeVar

from lakewriter.errors import UnreadableError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.warn_once import warn_once
from lakewriter.regular_file import NotRegularError, TooLargeError

T = TypeVar("T")

# Errors of a file that another attempt meets again. Others, like too many open
# files, say nothing about the file.
_REFUSALS = (PermissionError, IsADirectoryError, NotRegularError, TooLargeError)


def read_or_leave_out(store: LakeStore, name: str, read: Callable[[bytes, str], T], nothing: T) -> T | None:
    """Return the content of a foreign file.

    Args:
        name: relative to the lake's root.
        read: gets the file's bytes, and its name for errors.
        nothing: the content of a file that cannot be read.

    Returns:
        None if the file vanished.
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
