"""What differs between the engine's releases.

The rest of this package is written for DuckDB 2.0. What 1.4 and 1.5 have
under another name, or do by other means, is here: a row of a table, or a
function. Other releases are refused: that a statement only reads is told from
the tree that the engine prints of it, and nobody has looked at theirs.
"""

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import duckdb
import pyarrow as pa

from lakewriter.errors import LakewriterError

Version = tuple[int, int]

OLDEST: Version = (1, 4)
REFUSED: Version = (3, 0)

_INSTALL = "pip install 'duckdb>=1.4,<3'"


class Release(NamedTuple):
    """What a release has.

    Args:
        arrow_reader: the method of a relation that gives its rows batch by batch.
        file_structs: whether names of files are taken as they stand if they are
            given as structs; if not they are globs.
        real_paths: whether it looks at where a link leads when it is told where it
            may read, so that a descriptor of a file of the lake is one.
        time_setting: whether it stops a statement after a time by itself.
        unlearnt: optimizers to do without where a dataset of ours is scanned for
            the answer. What a join of 1.5 learns of times reaches a dataset only
            with pytz, which need not be installed.
    """

    arrow_reader: str
    file_structs: bool
    real_paths: bool
    time_setting: bool
    unlearnt: str = ""


# By the first release that is so.
_RELEASES = {
    (1, 4): Release("fetch_record_batch", file_structs=False, real_paths=False, time_setting=False),
    (1, 5): Release(
        "to_arrow_reader",
        file_structs=False,
        real_paths=False,
        time_setting=False,
        unlearnt="join_filter_pushdown",
    ),
    (2, 0): Release("to_arrow_reader", file_structs=True, real_paths=True, time_setting=True),
}

# What a plan calls the scan of a dataset: until 1.5, and since 2.0.
ARROW_SCANS = frozenset(("ARROW_SCAN", "PYTHON_ARROW_SCAN"))

_GLOB = re.compile(r"[*?\[]")


def version_of(text: str) -> Version:
    """Return the release of a version: (1, 5) of "1.5.6" or "1.5.0.dev7"; (0, 0) if it is none."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def release_of(version: Version) -> Release:
    """Return what a release has."""
    return _RELEASES[max(first for first in _RELEASES if first <= max(version, OLDEST))]


VERSION = version_of(duckdb.__version__)

RELEASE = release_of(VERSION)


def check_release(text: str = duckdb.__version__) -> None:
    """Refuse a release that nobody has looked at.

    Raises:
        LakewriterError: if it is too old or too new.
    """
    version = version_of(text)
    if not OLDEST <= version < REFUSED:
        age = "new" if version >= REFUSED else "old"
        raise LakewriterError(f"query: DuckDB {text} is too {age}", _INSTALL)


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Say in one line that a release does not have what an engine is prepared with in the block."""
    check_release()
    try:
        yield
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise LakewriterError(f"query: DuckDB {duckdb.__version__}: {first}", _INSTALL) from None


def rows_of(relation: duckdb.DuckDBPyRelation, batch_rows: int) -> pa.RecordBatchReader:
    """Return the rows of a relation, in batches."""
    return getattr(relation, RELEASE.arrow_reader)(batch_rows)


def file_sql(name: str) -> str:
    """Return SQL for a file in a list of files to read, from SQL for what `path_text` made of its path."""
    return f"{{'filename': {name}}}" if RELEASE.file_structs else name


def path_text(path: str) -> str:
    """Return a path so that no file but this one is read by it."""
    # In a pattern a backslash would be a slash. As it stands, such a path is a
    # pattern too, but of a file that is there by this very name nothing else is read.
    if RELEASE.file_structs or "\\" in path:
        return path
    return _GLOB.sub(r"[\g<0>]", path)


def time_limit_sql(limit_ms: int) -> str:
    """Return a statement that bounds those after it."""
    return f"SET max_execution_time={limit_ms}" if RELEASE.time_setting else ""


def no_time_limit_sql() -> str:
    """Return a statement that takes the bound away."""
    return "RESET max_execution_time" if RELEASE.time_setting else ""


@contextlib.contextmanager
def time_limited(connection: duckdb.DuckDBPyConnection, limit_ms: int) -> Iterator[None]:
    """Interrupt what runs in the block after a time, where the engine cannot do so by itself."""
    if RELEASE.time_setting:
        yield
        return
    lock = threading.Lock()
    over = False

    def interrupt() -> None:
        with lock:
            if not over:
                connection.interrupt()

    timer = threading.Timer(limit_ms / 1000, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        # What runs after the block is no longer the timer's.
        with lock:
            over = True
        timer.cancel()


def kind_of(operator: dict[str, Any]) -> str:
    """Return the kind of an operator of a plan that was run; "" if it is none."""
    return cast("str", operator.get("type") or operator.get("operator_type") or "")
