"""The record of the last compaction: when it ended, and what it did. Nothing depends on it.

Its place is `_lakewriter/last_compaction.json`.
"""

import msgspec

from lakewriter.lake.durable import write_durably
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import STATE_DIRECTORY

RECORD_NAME = f"{STATE_DIRECTORY}/last_compaction.json"

# A larger file is not ours.
_RECORD_BYTES_MAX = 65_536


class CompactionRecord(msgspec.Struct, frozen=True):
    """The last compaction.

    Args:
        ended_at_ms: the time of its end, by the clock of its host.
        seconds: its duration.
        partitions: partitions that it looked at.
        rewritten: partitions whose file was replaced.
        rows: rows in these partitions.
        duplicates_removed: removed duplicate rows.
        files_removed: removed foreign and temporary files.
        failed: partitions with a file that could not be folded.
        bytes_before, bytes_after: bytes of the partitions' files.
        whole_lake: whether it looked at all partitions of the lake.
    """

    ended_at_ms: int
    seconds: float
    partitions: int
    rewritten: int
    rows: int
    duplicates_removed: int
    files_removed: int
    failed: int
    bytes_before: int
    bytes_after: int
    whole_lake: bool


def write_compaction_record(store: LakeStore, record: CompactionRecord) -> None:
    """Replace the record of the last compaction.

    Raises:
        OSError: if the disk refuses.

    Crash: the old record or the new one is there, whole.
    """
    path = store.state_dir / RECORD_NAME
    path.parent.mkdir(exist_ok=True)
    write_durably(path, msgspec.json.encode(record))


def read_compaction_record(store: LakeStore) -> CompactionRecord | None:
    """Return the record of the last compaction; None if it is absent, unreadable, or of another version."""
    found = store.state.read(RECORD_NAME)
    if found is None or len(found.data) > _RECORD_BYTES_MAX:
        return None
    try:
        return msgspec.json.decode(found.data, type=CompactionRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
