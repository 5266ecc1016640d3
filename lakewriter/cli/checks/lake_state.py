"""The checks of the lake: format, writes, locks, dead recorders and free space."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from lakewriter.cli.checks.finding import Finding, Level
from lakewriter.errors import LakewriterError
from lakewriter.lake.condition import check_locks, check_writes, leftovers
from lakewriter.lake.format import FORMAT_NAME, FORMAT_VERSION, read_format
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.root import STATE_DIRECTORY, check_can_be_lake, check_is_lake, local_root

# Below these free bytes a flush of a large lake may fail.
FREE_BYTES_FAIL = 100_000_000
FREE_BYTES_WARN = 2_000_000_000

# A sync that takes longer delays each commit.
SYNC_S_MAX = 0.5


def check_lake(uri: str) -> list[Finding]:
    """Return the findings about a lake. A lake that does not exist is checked as far as its place."""
    if "://" in uri:
        return list(_check_remote(uri))
    try:
        root = local_root(uri)
        check_can_be_lake(root, uri)
        if not root.exists():
            return list(_check_place(uri, root))
        if any(root.iterdir()):
            check_is_lake(root, uri)
        found = read_format(root)
    except LakewriterError as error:
        return [Finding("lake", "fail", error.what, error.hint)]
    except OSError as error:
        return [Finding("lake", "fail", f"lake: {uri}: {error.strerror}", _permission_advice(uri))]
    version = found.format_version if found is not None else None
    what = f"{root}: " + (
        f"format {version}" if version else "no lake.json, as in a copy of the candles alone"
    )
    is_older = version is not None and version < FORMAT_VERSION
    advice = f"lakewriter compact --lake {shlex.quote(uri)} brings it to format {FORMAT_VERSION}"
    finding = Finding("lake", "ok", what, advice if is_older else "")
    state = root / STATE_DIRECTORY
    return [finding, *_check_disk(uri, state if state.is_dir() else root), *_check_recorders(uri, root)]


def _check_place(uri: str, root: Path) -> Iterator[Finding]:
    parent = next(each for each in root.parents if each.exists())
    yield Finding("lake", "ok", f"{root} does not exist yet; the recorder makes it")
    yield from _check_disk(uri, parent)


def _check_disk(uri: str, directory: Path) -> Iterator[Finding]:
    try:
        took_s = check_writes(directory)
    except OSError as error:
        yield Finding("writes", "fail", f"{directory}: {error.strerror}", _permission_advice(uri))
    else:
        slow = (
            "slow disk: each commit waits for it; name a --lake on another one" if took_s > SYNC_S_MAX else ""
        )
        yield Finding(
            "writes", "warn" if slow else "ok", f"a synced write takes {took_s * 1000:.0f} ms", slow
        )
        try:
            check_locks(directory)
        except (LakewriterError, OSError) as error:
            what = error.what if isinstance(error, LakewriterError) else f"{directory}: {error.strerror}"
            advice = "two writers can damage a partition; put the lake on a local disk"
            yield Finding("locks", "fail", what, advice)
        else:
            yield Finding("locks", "ok", "a lock excludes a second owner")
    yield from _check_space(directory)


def _check_space(directory: Path) -> Iterator[Finding]:
    try:
        usage = shutil.disk_usage(directory)
    except OSError as error:
        yield Finding("disk space", "fail", f"{directory}: {error.strerror}", "check the mount: df -h")
        return
    what = f"{usage.free / 1e9:,.1f} of {usage.total / 1e9:,.1f} GB free"
    level: Level = (
        "fail" if usage.free < FREE_BYTES_FAIL else "warn" if usage.free < FREE_BYTES_WARN else "ok"
    )
    advice = "" if level == "ok" else "free some space, or forget old candles: lakewriter forget --help"
    yield Finding("disk space", level, what, advice)


def _check_recorders(uri: str, root: Path) -> Iterator[Finding]:
    found = leftovers(root)
    alive = f"{len(found.living)} at work" if found.living else "none at work"
    if not found.dead:
        yield Finding("recorders", "ok", f"{alive}, no journal of a dead one")
        return
    what = f"{alive}; {len(found.dead)} dead left {found.dead_bytes:,} bytes of candles in journals"
    advice = f"lakewriter flush --lake {shlex.quote(uri)}; a recorder's start does the same"
    yield Finding("recorders", "warn", what, advice)


def _check_remote(uri: str) -> Iterator[Finding]:
    from lakewriter.lake.open import open_or_empty

    try:
        store = open_or_empty(uri)
        found = store.storage.read(FORMAT_NAME)
    except LakewriterError as error:
        yield Finding("lake", "fail", error.what, error.hint)
        return
    there = "readable" if found is not None else "does not exist yet; the recorder makes it"
    yield Finding("lake", "ok", f"{store.name}: {there}")
    yield _check_conditions(store)
    yield _check_cache()
    state = store.state_dir
    yield from _check_disk(str(state), next(each for each in (state, *state.parents) if each.exists()))
    if (state / STATE_DIRECTORY).is_dir():
        yield from _check_recorders(uri, state)


def _check_conditions(store: LakeStore) -> Finding:
    from lakewriter.lake.remote.object_store import ObjectStorage

    assert isinstance(store.storage, ObjectStorage)
    try:
        store.storage.check_conditions()
    except LakewriterError as error:
        return Finding("store", "warn", error.what, error.hint or "only commands that write need this")
    return Finding("store", "ok", "writable, and has conditional writes")


def _check_cache() -> Finding:
    from lakewriter.lake.cache_place import cache_place
    from lakewriter.lake.remote.object_cache import ObjectCache

    try:
        place = cache_place()
    except LakewriterError as error:
        return Finding("cache", "warn", error.what, error.hint)
    if place is None:
        return Finding("cache", "ok", "switched off")
    found = ObjectCache(place, "").report()
    if found.problem:
        advice = "queries fetch every object each time; name another --cache-dir"
        return Finding("cache", "warn", f"{found.directory}: {found.problem}", advice)
    mb, mb_max = found.usage.bytes / 1e6, found.bytes_max / 1e6
    return Finding(
        "cache",
        "ok",
        f"{found.directory}: {found.usage.files:,} objects, {mb:,.0f} of at most {mb_max:,.0f} MB",
    )


def _permission_advice(uri: str) -> str:
    return f"chown -R $USER {shlex.quote(uri)}, or name another --lake"
