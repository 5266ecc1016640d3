"""A server of child processes that change a lake, for tests that stop them at any step.

It imports the modules once, and forks for each job. It reads a job from standard input
as `work root promises`, and prints the child's process id. The child starts after the
line `go`, and the server prints its exit. The child reports its promises by `writev`.
So the start and the log add no system call to those that a test counts.
"""

import ctypes
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from crash.remains import key_of, make_candle
from lakewriter.candle import Candle, to_table
from lakewriter.errors import LakeError
from lakewriter.lake import compact, forgotten
from lakewriter.lake import forget as forgetting
from lakewriter.lake.forget import Selection
from lakewriter.lake.forgotten import ForgetPurpose
from lakewriter.lake.journal import create_journal
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import LOCKS_DIRECTORY
from lakewriter.lake.storage import LocalStorage
from lakewriter.partition import by_partition
from lakewriter.series import Series
from support.compaction import plan_compaction, write_verified

PR_SET_PTRACER, PR_SET_PTRACER_ANY = 0x59616D61, -1

FIRST = [make_candle("BTCUSDT", 0), make_candle("ETHUSDT", 0)]
SECOND = [make_candle("BTCUSDT", 1, trade_num=5), make_candle("BTCUSDT", 1440)]
THIRD = [make_candle("BTCUSDT", 1, trade_num=6), make_candle("ETHUSDT", 2)]
LAST = [make_candle("BTCUSDT", 3), make_candle("ETHUSDT", 3)]
ALL = [*FIRST, *SECOND, *THIRD, *LAST]

# Two days of a symbol, of which one goes whole and one in part, and one of another symbol.
FORGETTABLE = [
    *(make_candle("BTCUSDT", minute) for minute in (0, 1, 2, 1440, 1441)),
    make_candle("ETHUSDT", 0),
]
SELECTION = Selection((Series("spot", "BTCUSDT", "1m"),), start_ms=FORGETTABLE[1].begin_ms)

Tell = Callable[[str, Iterable[Candle]], None]


def record(root: Path, tell: Tell) -> None:
    """Commit, flush, correct flushed rows, compact, and leave the last candles in the journal."""
    store = LakeStore.create(str(root), "test")
    journal = create_journal(root, "child")
    for group in (FIRST, SECOND):
        journal.commit(group)
        tell("committed", group)
    _flush(store, journal.roll(), [*FIRST, *SECOND], journal.drop, tell)
    journal.commit(THIRD)
    tell("committed", THIRD)
    _flush(store, journal.roll(), THIRD, journal.drop, tell)
    journal.close()
    plan = plan_compaction(store)
    outcomes = list(compact.compact_partitions(store, plan.work, time.time()))
    if errors := [outcome.error for outcome in outcomes if outcome.error]:
        raise LakeError(errors[0])
    write_verified(store, outcomes, everything=True)
    journal = create_journal(root, "child")
    journal.commit(LAST)
    tell("committed", LAST)


def commit(root: Path, tell: Tell) -> None:
    """Commit three groups."""
    journal = create_journal(LakeStore.create(str(root), "test").root, "child")
    for group in (FIRST, SECOND, THIRD):
        journal.commit(group)
        tell("committed", group)


def commit_stubbornly(root: Path, tell: Tell) -> None:
    """Commit three groups; continue after a refusal."""
    journal = create_journal(LakeStore.create(str(root), "test").root, "child")
    for group in (FIRST, SECOND, THIRD):
        try:
            journal.commit(group)
        except LakeError as error:
            tell(type(error).__name__, group)
        else:
            tell("committed", group)


def commit_short_of_space(root: Path, tell: Tell) -> None:
    """Commit three groups; the disk has room for only a part of the second."""
    journal = create_journal(LakeStore.create(str(root), "test").root, "child")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    for group, room_bytes in ((FIRST, hard), (SECOND, 500), (THIRD, hard)):
        if room_bytes != hard:
            room_bytes += journal.segment_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
        try:
            journal.commit(group)
        except LakeError:
            tell("refused", group)
        else:
            tell("committed", group)


def merge(root: Path, tell: Tell) -> None:
    """Merge three groups into one lake, without a journal."""
    store = LakeStore.create(str(root), "test")
    for group in (FIRST, SECOND, THIRD):
        _flush(store, [], group, lambda segments: None, tell)


def merge_many(root: Path, tell: Tell) -> None:
    """Merge three groups into one lake, the partitions of a group together, with syncing threads."""
    _merge_together(LakeStore.create(str(root), "test"), tell)


def merge_many_alone(root: Path, tell: Tell) -> None:
    """Merge the same groups without threads, so that one process makes each call."""
    store = LakeStore.create(str(root), "test")
    store.storage = LocalStorage(root, root / LOCKS_DIRECTORY, sync_threads=1)
    _merge_together(store, tell)


KEPT = [each for each in FORGETTABLE if not SELECTION.selects(each)]


def forget(root: Path, tell: Tell) -> None:
    """Forget the selected candles of an existing lake, on record: a part of one day, and another whole day."""
    store = LakeStore.open(str(root))
    items = list(forgetting.partitions_to_forget(store, SELECTION))
    planned = forgetting.removed_by_series(
        forgetting.forget_partition(store, item, SELECTION, dry_run=True) for item in items
    )
    purpose = ForgetPurpose("child", "test", (), 1)
    command = forgotten.record_start(store, planned, purpose)
    outcomes = [forgetting.forget_partition(store, item, SELECTION) for item in items]
    if errors := [outcome.error for outcome in outcomes if outcome.error]:
        raise LakeError(errors[0])
    forgotten.record_finish(store, command, forgetting.removed_by_series(outcomes), purpose, 2)
    tell("forgot", [each for each in FORGETTABLE if SELECTION.selects(each)])


def _merge_together(store: LakeStore, tell: Tell) -> None:
    for group in ([*FIRST, *SECOND], THIRD, LAST):
        partitions = by_partition(group)
        items = [(partition, to_table(candles)) for partition, candles in partitions.items()]
        for result in store.merge_many(items):
            if isinstance(result, Exception):
                raise result
        tell("merged", group)


def _flush(
    store: LakeStore,
    segments: list[Path],
    group: list[Candle],
    drop: Callable[[list[Path]], None],
    tell: Tell,
) -> None:
    for partition, candles in by_partition(group).items():
        store.merge(partition, to_table(candles))
        tell("merged", candles)
    drop(segments)


WORKS = {
    work.__name__: work
    for work in (
        record,
        commit,
        commit_stubbornly,
        commit_short_of_space,
        merge,
        merge_many,
        merge_many_alone,
        forget,
    )
}


def _serve() -> None:
    with tempfile.TemporaryDirectory() as warm:  # what is imported at first use is imported here
        record(Path(warm), lambda what, candles: None)
        merge_many_alone(Path(warm), lambda what, candles: None)
        forget(Path(warm), lambda what, candles: None)
    while line := sys.stdin.readline():
        work, root, promises = line.split()
        # Opened here, where no call is traced: the child fails in its work alone.
        log = os.open(promises, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        ready, go = os.pipe()
        child = os.fork()
        if child == 0:
            _work(WORKS[work], Path(root), log, ready)
        os.close(log)
        print(child, flush=True)
        sys.stdin.readline()
        os.write(go, b"!")
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        os.close(ready)
        os.close(go)


def _work(work: Callable[[Path, Tell], None], root: Path, log: int, ready: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)

    def tell(what: str, candles: Iterable[Candle]) -> None:
        os.writev(log, [what.encode(), *(" {}:{}".format(*key_of(each)).encode() for each in candles), b"\n"])

    os.read(ready, 1)
    try:
        work(root, tell)
    except (LakeError, OSError) as error:
        os.writev(log, [f"failed {type(error).__name__}: {error}\n".encode()])
        os._exit(1)
    os.writev(log, [b"ended\n"])
    os._exit(0)


if __name__ == "__main__":
    _serve()
