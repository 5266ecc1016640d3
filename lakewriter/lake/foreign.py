"""Foreign files: files of other programs, which are read, or left out with a warning.

A foreign file may have any content. If it cannot be read, answers leave it out.
Our own files are never left out: without them an answer would be wrong. This includes
files of days, which lakewriter wrote before format 2.
"""

import errno
from collections.abc import Callable
from typing import TypeVar

from lakewriter.errors import UnreadableError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.warn_once import warn_once
from lakewriter.partition import Partition, is_own_file
from lakewriter.regular_file import NotRegularError, TooLargeError

T = TypeVar("T")

# Errors of the file itself: a retry would fail again. Other errors, such as too many
# open files, are raised.
_REFUSALS = (PermissionError, IsADirectoryError, NotRegularError, TooLargeError)


def read_or_leave_out(
    store: LakeStore,
    partition: Partition,
    name: str,
    read: Callable[[bytes, str], T],
    nothing: T,
    version: str = "",
) -> T | None:
    """Return the content of a file that is not the partition's own one.

    Args:
        partition: the file's partition.
        name: the file's path, relative to the lake's root.
        read: decodes the file's bytes. Its second argument is the file's name in errors.
        nothing: the result for a file that cannot be read.
        version: the file's version in a recent listing, or "".

    Returns:
        the result of `read`, or `nothing`, or None if the file vanished.

    Raises:
        LakeError: if it is our own file of a day, and cannot be read.
    """
    path = f"{store.name}/{name}"
    try:
        found = store.storage.read_listed(name, version)
        return None if found is None else read(found.data, path)
    except UnreadableError as error:
        if is_own_file(partition, name):
            raise
        reason = error.what
    except OSError as error:
        refused = isinstance(error, _REFUSALS) or error.errno == errno.ELOOP
        if not refused or is_own_file(partition, name):
            raise
        reason = f"{path}: {error.strerror}"
    warn_once(f"lake: {reason}; its candles are left out")
    return nothing
