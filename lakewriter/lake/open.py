"""Opening of a lake on a disk or on an object store: to read, to change, or to create it."""

import importlib.util
import os
import shlex
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from lakewriter.errors import LakeError
from lakewriter.lake.cache_place import CachePlace, cache_place
from lakewriter.lake.format import FORMAT_NAME, check_format, write_stored_format
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.parquet import import_parquet
from lakewriter.lake.published import claim_state
from lakewriter.lake.root import LOCKS_DIRECTORY, HomelessError, check_file_names
from lakewriter.lake.storage import Listing, LocalStorage, StoreAwayError
from lakewriter.lake.warn_once import warn_once
from lakewriter.partition import LEVELS


def open_to_read(
    uri: str,
    *,
    keep_listings: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_size: str | int | None = None,
    may_be_away: bool = False,
) -> LakeStore:
    """Open an existing lake in a directory or on an object store.

    Args:
        cache_dir, cache_size: the cache of a store's objects, as in `cache_place`.
        keep_listings: whether to cache the listings of a local disk, and the decoded
            journals; for many reads.
        may_be_away: whether to open a lake unchecked if its object store is away.

    Raises:
        UsageError: if the URI is invalid.
        LakeError: if the URI names no lake, or the lake has a newer format.
    """
    if "://" in uri:
        store = _open_remote(uri, cache=_place_or_none(cache_dir, cache_size), may_be_away=may_be_away)
    else:
        store = LakeStore.open(uri)
    if keep_listings:
        store.keep_unflushed()
        if isinstance(store.storage, LocalStorage):
            store.storage.keep_listings()
    return store


def open_to_change(uri: str) -> LakeStore:
    """Open an existing lake in a directory or on an object store, to change it.

    Raises:
        UsageError: if the URI is invalid.
        LakeError: if the URI names no lake, or the lake has a newer format.
    """
    if "://" not in uri:
        return LakeStore.open(uri)
    store = _open_remote(uri)
    claim_state(store.state_dir, store.name)
    return store


def open_or_empty(uri: str) -> LakeStore:
    """Open a lake to read. A lake that does not exist is empty, and is not created.

    Raises:
        UsageError: if the URI is invalid.
        LakeError: if the lake has a newer format, or the store refuses.
    """
    return _open_remote(uri, may_be_absent=True) if "://" in uri else LakeStore.open_or_empty(uri)


@lru_cache(1)
def open_in_worker(uri: str) -> LakeStore:
    """Open a lake in a worker process, for the command that opened it to change it.

    The command has claimed the state directory, on its own host. The worker keeps the lake open
    for its next task.

    Args:
        uri: `LakeStore.uri`.

    Raises:
        LakeError: if this host does not see the lake.
    """
    if "://" in uri:
        return _open_remote(uri)
    try:
        return LakeStore.open(uri)
    except LakeError as error:
        raise LakeError(
            error.what, "every worker must see the lake: on an object store, or at the same path"
        ) from None


def create_lake(uri: str, created_by: str) -> LakeStore:
    """Open a lake in a directory or on an object store, and create what it lacks.

    Raises:
        UsageError: if the URI is invalid.
        LakeError: if the lake cannot be created, or has a newer format.

    Crash: the next call creates what is missing.
    """
    if "://" not in uri:
        return LakeStore.create(uri, created_by)
    store = _open_remote(uri, may_be_absent=True)
    import_parquet()
    write_stored_format(store.storage, store.name, created_by)
    claim_state(store.state_dir, store.name)
    return store


def _place_or_none(
    directory: str | os.PathLike[str] | None = None, size: str | int | None = None
) -> CachePlace | None:
    """Return the place of the cache. Log why there is none: without a cache all answers are the same."""
    try:
        return cache_place(directory, size)
    except HomelessError as error:
        warn_once(f"{error.what}, so nothing is cached; {error.hint}")
        return None


def _open_remote(
    uri: str, *, may_be_absent: bool = False, may_be_away: bool = False, cache: CachePlace | None = None
) -> LakeStore:
    """Open a lake on an object store.

    Args:
        cache: the place of the cache of objects; None is no cache.
        may_be_absent: whether the lake may be missing; its bucket must exist.
        may_be_away: whether the store may be away. Then nothing is checked.

    Raises:
        UsageError: if the URI is invalid.
        LakeError: if the URI names no lake, the lake has a newer format, or the store refuses.
    """
    check_file_names()
    if importlib.util.find_spec("obstore") is None:
        raise LakeError(
            f"lake: {uri.partition('?')[0].rpartition('@')[2]}: object stores need obstore",
            "pip install 'lakewriter[object-store]'",
        )
    # The package is of an extra.
    from lakewriter.lake.remote.catalogue import RemoteCatalogue  # noqa: PLC0415
    from lakewriter.lake.remote.location import locate  # noqa: PLC0415
    from lakewriter.lake.remote.object_cache import ObjectCache  # noqa: PLC0415
    from lakewriter.lake.remote.object_store import ObjectStorage  # noqa: PLC0415

    location = locate(uri)
    storage = ObjectStorage(location, None if cache is None else ObjectCache(cache, location.identity))
    reads: list[Callable[[], Any]] = [lambda: storage.entries(""), lambda: storage.read(FORMAT_NAME)]
    # The listing comes first: if the store refuses, its error is the clearer one.
    try:
        below, content = storage.in_parallel(lambda read: read(), reads)
    except StoreAwayError:
        if not may_be_away:
            raise
        below, content, may_be_absent = Listing([], []), None, True
    if content is not None:
        check_format(content.data, f"{location.uri}/{FORMAT_NAME}", location.uri)
    elif not may_be_absent and not any(name.startswith(f"{LEVELS[0]}=") for name in below.directories):
        raise LakeError(
            f"lake: {location.uri} does not exist",
            f"lakewriter record spot:BTCUSDT:1m --lake {shlex.quote(uri)} makes one",
        )
    return LakeStore(
        location.uri,
        storage,
        RemoteCatalogue(storage),
        location.state_dir,
        state=LocalStorage(location.state_dir, location.state_dir / LOCKS_DIRECTORY),
        endpoint=location.endpoint,
        region=location.region,
        uri=uri,
    )
