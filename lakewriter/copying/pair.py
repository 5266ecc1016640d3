"""The two lakes of a copy: they are opened, and checked to be two.

Only this module decides which lakes may be copied into which.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lakewriter.errors import LakeError, UsageError
from lakewriter.lake.lake import LakeStore
from lakewriter.lake.open import create_lake, open_or_empty, open_to_read
from lakewriter.lake.published import lake_of_state
from lakewriter.lake.root import STATE_DIRECTORY, STATE_VARIABLE
from lakewriter.lake.storage import StoreError
from lakewriter.market import MARKETS
from lakewriter.partition import LEVELS

_OTHER = "name another SOURCE or TARGET"
_NEAR = "--lake "


class Pair(NamedTuple):
    """The lake that is read, and the lake that gets its candles."""

    source: LakeStore
    target: LakeStore


def open_pair(source_uri: str, target_uri: str) -> Pair:
    """Open two lakes to read. The target may be absent.

    Raises:
        UsageError: if the source is no lake, the target is something else than a lake, one
            has a newer format, or they are not two lakes side by side.
        StoreError: if a store refuses or does not answer.
    """
    with _wrong_lake():
        of_source, of_target = _state_directories(source_uri, target_uri)
        with of_source():
            source = open_to_read(source_uri)
        _check_state(source)
        with of_target():
            target = open_or_empty(target_uri)
        _check_two(source, target)
        _check_can_be_target(target)
    return Pair(source, target)


def open_to_copy(source_uri: str, target_uri: str, pair: Pair, created_by: str) -> Pair:
    """Open the target of a pair to change it, and create what it lacks.

    Args:
        source_uri, target_uri: the arguments of `open_pair`.
        created_by: the program that creates the target.

    Raises:
        UsageError: if the target cannot be created, or its state is of another lake.
        StoreError: if the store refuses or does not answer.
    """
    with _wrong_lake():
        _, of_target = _state_directories(source_uri, target_uri)
        with of_target():
            return pair._replace(target=create_lake(target_uri, created_by))


@contextlib.contextmanager
def _wrong_lake() -> Iterator[None]:
    """Raise the lake's error in the block as a wrong argument."""
    try:
        yield
    except StoreError:
        raise
    except LakeError as error:
        # A hint of other commands may name an option that `copy` does not have.
        near = error.hint.removeprefix(_NEAR)
        hint = (
            f"{near} is a lake"
            if near != error.hint
            else _OTHER
            if _NEAR.strip() in error.hint
            else error.hint
        )
        raise UsageError(error.what, hint) from None


_Context = Callable[[], contextlib.AbstractContextManager[None]]


def _state_directories(source_uri: str, target_uri: str) -> tuple[_Context, _Context]:
    """Return the contexts in which each lake finds its own state directory.

    A chosen directory belongs to one lake. If both are on object stores, it belongs to the
    one that it names, or else to the target.
    """
    chosen = os.environ.get(STATE_VARIABLE, "")
    if not (chosen and "://" in source_uri and "://" in target_uri):
        return contextlib.nullcontext, contextlib.nullcontext
    owner = lake_of_state(Path(chosen).expanduser().absolute())
    is_of_source = owner is not None and owner == _name(source_uri)
    return (contextlib.nullcontext, _default) if is_of_source else (_default, contextlib.nullcontext)


@contextlib.contextmanager
def _default() -> Iterator[None]:
    chosen = os.environ.pop(STATE_VARIABLE)
    try:
        yield
    finally:
        os.environ[STATE_VARIABLE] = chosen


def _name(uri: str) -> str:
    """Return the name of a lake on an object store: its URI without parameters and secrets."""
    scheme, _, rest = uri.partition("?")[0].partition("://")
    authority, *below = rest.split("/")
    return f"{scheme.lower()}://{'/'.join([authority.rpartition('@')[2], *filter(None, below)])}"


def _check_state(source: LakeStore) -> None:
    """Raise UsageError if the source's state directory has the journals of another lake."""
    owner = lake_of_state(source.state_dir) if source.is_remote else None
    if owner is not None and owner != source.name:
        raise UsageError(
            f"state: {source.state_dir} belongs to the lake {owner}", "give each lake its own --state-dir"
        )


def _check_two(source: LakeStore, target: LakeStore) -> None:
    """Raise UsageError if the lakes are one, or one lies inside of the other."""
    one, other = _place(source), _place(target)
    if one[0] != other[0]:
        return
    if one == other or (not source.is_remote and _is_same_directory(source.root, target.root)):
        raise UsageError(f"copy: {source.name} and {target.name} are one lake", _OTHER)
    for outer, inner, place in ((source, target, one), (target, source, other)):
        inside = other if place is one else one
        if inside[1][: len(place[1])] == place[1]:
            raise UsageError(f"copy: {inner.name} lies inside of {outer.name}", _OTHER)


def _place(lake: LakeStore) -> tuple[str, tuple[str, ...]]:
    """Return where a lake is: the disk or a store's endpoint, and the parts of its path."""
    if not lake.is_remote:
        return "", lake.root.parts
    scheme, _, path = lake.name.partition("://")
    return f"{scheme} {lake.endpoint}", tuple(path.split("/"))


def _is_same_directory(one: Path, other: Path) -> bool:
    """Return whether two paths are one directory, as with a bind mount or a disk that ignores case."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _check_can_be_target(target: LakeStore) -> None:
    """Raise UsageError if the target has something, but is no lake: it is probably misspelt."""
    if not target.is_remote and not target.root.exists():
        return
    found = target.storage.entries("")
    ours = {STATE_DIRECTORY, *(f"{LEVELS[0]}={market}" for market in MARKETS)}
    if (found.files or found.directories) and ours.isdisjoint(found.directories):
        raise UsageError(
            f"copy: {target.name} is neither empty nor a lake", "name an empty place, or a lake, as TARGET"
        )
