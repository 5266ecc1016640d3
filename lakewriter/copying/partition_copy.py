"""The copy of one partition: compare, put or merge, then read back and compare.

- If the target lacks the partition, it gets the same bytes.
- If it has other rows, the missing and the better ones are merged. The lake's rule decides.
- If it has every row of the source, or a better one, nothing is written.

The proof of a copy is the same comparison: after it, a merge would change nothing.
"""

from typing import Literal, NamedTuple

import pyarrow as pa

from lakewriter.copying.pair import Pair
from lakewriter.copying.partition_rows import SourceRows, TargetRows, read_source, read_target
from lakewriter.copying.work import Item
from lakewriter.errors import LakeError
from lakewriter.lake.lake import difference
from lakewriter.lake.remote.object_cache import strong_e_tag
from lakewriter.lake.storage import StoreError
from lakewriter.partition import Partition

# "empty": the source has no such row. "remembered": both files are as they were when they
# were compared. "differs": the comparison found a difference, and nothing was written.
Outcome = Literal["copied", "merged", "same", "remembered", "differs", "empty", "failed"]


class Versions(NamedTuple):
    """The versions of a partition's own files that were compared, and their number of rows."""

    source: str
    target: str
    rows: int


class CopyResult(NamedTuple):
    """The result of copying one partition.

    Args:
        partition: the partition.
        outcome: what was done, or what a dry run would do.
        rows: number of wanted rows of the source.
        added, replaced, corrections: as in `Merged`; for "differs" the rows that the target
            lacks, and those that it has worse.
        disputed: number of the source's rows that differ from the target's better ones.
        bytes_written: size of the target's file, if it was written.
        unflushed: number of the rows that came from journals.
        not_closed: number of rows of foreign files that were left out as not closed.
        compared: whether the rows of both lakes were compared in this run.
        versions: the versions to remember, or None if other files count, too.
        errors: why rows were left behind.
        hint: a remedy.
        is_fault: whether a store or a disk refused, as it may for every partition.
    """

    partition: Partition
    outcome: Outcome
    rows: int = 0
    added: int = 0
    replaced: int = 0
    corrections: int = 0
    disputed: int = 0
    bytes_written: int = 0
    unflushed: int = 0
    not_closed: int = 0
    compared: bool = False
    versions: Versions | None = None
    errors: tuple[str, ...] = ()
    hint: str = ""
    is_fault: bool = False


def copy_partition(
    pair: Pair, item: Item, now_ms: int, remembered: Versions | None, *, change: bool
) -> CopyResult:
    """Copy the wanted rows of a partition, and compare them with the target.

    Args:
        now_ms: the present; a row of a foreign file that ends later is not closed.
        remembered: the versions of an earlier comparison without a difference, or None.
        change: whether the target may be written.

    Crash: the target's file is as before or as after, whole. On a disk a temporary file may
    be left, which the next copy of the partition removes.
    """
    try:
        if remembered is not None and item.is_plain and _is_unchanged(pair, item, remembered):
            return CopyResult(item.partition, "remembered", remembered.rows, versions=remembered)
        return _copy(pair, item, now_ms, change=change)
    except LakeError as error:
        is_fault = isinstance(error, StoreError)
        return CopyResult(item.partition, "failed", errors=(error.what,), hint=error.hint, is_fault=is_fault)
    except OSError as error:
        what = f"{error.filename or item.partition.path}: {error.strerror or error}"
        return CopyResult(item.partition, "failed", errors=(what,), is_fault=True)
    except pa.ArrowException as error:
        what = f"{item.partition}: {str(error).splitlines()[0]}"
        return CopyResult(item.partition, "failed", errors=(what,))


def _is_unchanged(pair: Pair, item: Item, remembered: Versions) -> bool:
    """Return whether both files have the remembered versions. A store has told them in its listing."""
    for lake, listed, known in zip(pair, item.listed, remembered[:2], strict=True):
        e_tag = strong_e_tag(listed)
        if e_tag and e_tag == strong_e_tag(known):
            continue
        if lake.storage.version(item.partition.file) != known:
            return False
    return True


def _copy(pair: Pair, item: Item, now_ms: int, *, change: bool) -> CopyResult:
    source = read_source(pair.source, item, now_ms)
    base = CopyResult(
        item.partition,
        "empty",
        source.rows.num_rows,
        unflushed=source.unflushed,
        not_closed=source.not_closed,
        errors=source.errors,
        hint="repair it, or move it out of the lake, then run again" if source.errors else "",
    )
    if not source.rows.num_rows:
        return base._replace(outcome="failed" if source.errors else "empty")
    target = read_target(pair.target, item)
    if target.own is not None and target.own.data == source.whole_file:
        return base._replace(outcome="same", compared=True, versions=_to_remember(item, source, target))
    found = difference(target.rows, source.rows)
    done = base._replace(
        added=found.missing,
        replaced=found.winners.num_rows - found.missing,
        disputed=found.disputed,
        compared=True,
    )
    if not found.winners.num_rows:
        return done._replace(outcome="same", versions=_to_remember(item, source, target))
    if not change:
        return done._replace(outcome="differs" if target.rows.num_rows else "copied", compared=False)
    return _written(pair, item, source, target, done)


def _written(pair: Pair, item: Item, source: SourceRows, target: TargetRows, done: CopyResult) -> CopyResult:
    """Merge the rows that the target lacks, or that win against its own, and compare again."""
    partition = item.partition
    if not pair.target.is_remote:
        # Before the write: a copy that is killed after it finds nothing to write the next time.
        pair.target.sweep(partition)
    is_new = target.own is None and not target.has_others
    if is_new and source.whole_file is not None and pair.target.put_copy(partition, source.whole_file):
        done = done._replace(outcome="copied")
    else:
        merged = pair.target.merge(partition, difference(target.rows, source.rows).winners)
        done = done._replace(
            outcome="copied" if is_new and merged.rows == merged.added else "merged",
            added=merged.added,
            replaced=merged.replaced,
            corrections=merged.corrections,
        )
    after = read_target(pair.target, item)
    written = 0 if after.own is None else len(after.own.data)
    done = done._replace(bytes_written=written, versions=_to_remember(item, source, after))
    if after.own is not None and after.own.data == source.whole_file:
        return done
    left = difference(after.rows, source.rows).winners.num_rows
    if left:
        what = f"{pair.target.name}/{partition.file}: {left} candles differ after the copy"
        return done._replace(
            outcome="failed", compared=False, versions=None, errors=(*done.errors, what), hint="run it again"
        )
    return done


def _to_remember(item: Item, source: SourceRows, target: TargetRows) -> Versions | None:
    if not item.is_plain or source.errors or target.own is None:
        return None
    return Versions(source.version, target.own.version, source.rows.num_rows)
