"""The publication of a host's ledgers to a lake on an object store.

    state directory                              lake
    _lakewriter/gaps/<recorder>.ndjson           <recorder>@<host>.ndjson
    _lakewriter/instruments/<market>.ndjson      <market>@<host>.ndjson
    _lakewriter/subscriptions/periods.ndjson     periods@<host>.ndjson
    _lakewriter/forgotten/log.ndjson             log@<host>.ndjson

The state directory has the truth; a store that is away delays its publication only. Each
published object has one host, so hosts never overwrite each other. Readers read all of
them. Of their own host they read the state directory, which is newer. A lake on a disk is
its own state directory, and publishes nothing.
"""

import contextlib
import re
import secrets
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lakewriter.errors import LakeError
from lakewriter.lake.durable import make_directories, write_durably
from lakewriter.lake.lake import LEDGER_DIRECTORIES, LEDGER_SUFFIX, LakeStore
from lakewriter.lake.root import LOCKS_DIRECTORY, STATE_DIRECTORY
from lakewriter.lake.row_file import HOST_MARK
from lakewriter.lake.storage import ChangedError
from lakewriter.regular_file import read_regular

# Which lake the state directory belongs to, and what was published.
_STATE_FILE = f"{STATE_DIRECTORY}/published.json"
_LOCK = f"{STATE_DIRECTORY}/published"

# The pause between publications to an object store. Each takes some requests.
PUBLISH_EVERY_S = 30.0

# As for a gap ledger, the largest of them.
FILE_BYTES_MAX = 256 * 1024 * 1024

# An attempt fails if a PUT of a process that was stopped arrives late.
_TRIES_MAX = 5


class _State(msgspec.Struct):
    """The content of the state file.

    Args:
        lake: the lake's name.
        host: the name of this state directory in published names.
        published: the checksum of each published object, by its name in the lake.
    """

    lake: str
    host: str
    published: dict[str, int]


def claim_state(state_dir: Path, lake: str) -> None:
    """Make a state directory that of one lake.

    Raises:
        LakeError: if it belongs to another lake, or the disk refuses.

    Crash: the directory belongs to the lake or to none.
    """
    found = _read(state_dir)
    if found is None:
        try:
            make_directories(Path(state_dir.anchor), state_dir / LOCKS_DIRECTORY)
            host = re.sub("[^A-Za-z0-9-]", "-", socket.gethostname())[:40]
            _write(state_dir, _State(lake, f"{host}-{secrets.token_hex(4)}", {}))
        except OSError as error:
            what = f"state: {error.filename or state_dir}: {error.strerror}"
            raise LakeError(what, "give a writable directory with --state-dir") from None
    elif found.lake != lake:
        raise LakeError(
            f"state: {state_dir} belongs to the lake {found.lake}", "give each lake its own --state-dir"
        )


def lake_of_state(state_dir: Path) -> str | None:
    """Return the name of the lake that a state directory belongs to, or None if it belongs to none.

    Raises:
        LakeError: if its state file is damaged.
    """
    found = _read(state_dir)
    return None if found is None else found.lake


def publish(store: LakeStore) -> int:
    """Publish the ledgers that changed since the last call; return their number. The call blocks.

    Raises:
        LakeError: if the store refuses. The next call publishes again.
        OSError: if the disk refuses.

    Crash: some of them are published; the next call publishes all of them again. A ledger
    whose entries were taken over is removed last.
    """
    if not store.is_remote:
        return 0
    with store.state.exclusive(_LOCK):
        state = _read(store.state_dir)
        if state is None:
            raise LakeError(f"state: {store.state_dir / _STATE_FILE} is gone", "restart the command")
        files = _ledger_files(store, state.host)
        changed = {name: data for name, data in files.items() if state.published.get(name) != _sum(data)}
        gone = state.published.keys() - files.keys()
        if not changed and not gone:
            return 0
        for name, _ in zip(
            changed,
            store.storage.in_parallel(lambda name: put_own(store, name, changed[name]), changed),
            strict=True,
        ):
            state.published[name] = _sum(changed[name])
        for name in sorted(gone):
            store.storage.delete(name)
            del state.published[name]
        _write(store.state_dir, state)
        return len(changed) + len(gone)


@contextlib.contextmanager
def current_ledgers(store: LakeStore, *, whole: bool = False) -> Iterator[Path]:
    """Return a context with a local directory that has the ledgers of all hosts in `_lakewriter`.

    Those of this host are the present ones of the state directory.

    Args:
        whole: as for `LakeStore.ledgers`.

    Raises:
        LakeError: if the store refuses, or the state directory is damaged.
        OSError: if the disk refuses.
    """
    with store.ledgers(whole=whole) as root:
        state = _read(store.state_dir) if store.is_remote else None
        if state is not None and state.lake == store.name:
            files = _ledger_files(store, state.host)
            for name in state.published.keys() - files.keys():
                (root / name).unlink(missing_ok=True)
            for name, data in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(data)
        yield root


def host_name(store: LakeStore) -> str:
    """Return the name of this host in published names; "" if the state directory is not the lake's.

    Raises:
        LakeError: if the state directory is damaged.
    """
    state = _read(store.state_dir)
    return state.host if state is not None and state.lake == store.name else ""


def _ledger_files(store: LakeStore, host: str) -> dict[str, bytes]:
    """Return the whole lines of each ledger in the state directory, by its name in the lake."""
    files = {}
    for directory in LEDGER_DIRECTORIES:
        for name in store.state.entries(directory).files:
            if not name.endswith(LEDGER_SUFFIX) or name.startswith(".") or HOST_MARK in name:
                continue
            try:
                data = read_regular(store.state_dir / directory / name, FILE_BYTES_MAX)
            except FileNotFoundError:
                continue  # another recorder took the ledger over
            published = f"{name.removesuffix(LEDGER_SUFFIX)}{HOST_MARK}{host}{LEDGER_SUFFIX}"
            # The recorder may be writing the last line.
            files[f"{directory}/{published}"] = data[: data.rfind(b"\n") + 1]
    return files


def put_own(store: LakeStore, name: str, data: bytes) -> None:
    """Replace an object that only this host writes.

    Raises:
        LakeError: if the store refuses, or another process replaces the object at every attempt.
    """
    for _ in range(_TRIES_MAX):
        try:
            store.storage.replace(name, data, store.storage.version(name))
        except ChangedError:
            continue
        return
    raise LakeError(
        f"{store.name}/{name}: another process publishes it", "give each host its own --state-dir"
    )


def _sum(data: bytes) -> int:
    return zlib.crc32(data) | len(data) << 32


def _read(state_dir: Path) -> _State | None:
    """Return the state, or None if there is none.

    Raises:
        LakeError: if the file is damaged.
    """
    path = state_dir / _STATE_FILE
    try:
        return msgspec.json.decode(read_regular(path, FILE_BYTES_MAX), type=_State)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LakeError(f"state: {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LakeError(
            f"state: {path} is not valid: {error}", "move it away; the ledgers are published again"
        ) from None


def _write(state_dir: Path, state: _State) -> None:
    write_durably(state_dir / _STATE_FILE, msgspec.json.encode(state) + b"\n")
