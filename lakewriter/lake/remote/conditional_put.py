"""Replacement of objects that did not change: a PUT with a condition, and a read where its end is unclear.

Rule: an error of a conditional PUT proves nothing. The reply to a stored object may be
lost, and a retry of it then fails. A store may also refuse without a look at the key. So
after any error the key is read:

- It has our bytes, or our mark in its metadata: the PUT succeeded.
- It has the version that the caller read: nothing was stored, and the PUT is retried.
- It has another version: another writer was faster, and the caller merges again.

A mark is the id of the writer, with a nonce, and the number of the replacement. All its retries
share it.
A store that ignores conditions loses candles. One probe before the first write finds it.
"""

import contextlib
import itertools
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore

from lakewriter.errors import LakeError
from lakewriter.lake.remote.store_errors import is_missing_bucket, store_error
from lakewriter.lake.root import STATE_DIRECTORY
from lakewriter.lake.storage import ChangedError, Replacement

# The attempts of one replacement. Each has the client's own retries inside.
PUT_TRIES_MAX = 6
# After this time no further attempt begins: a stop waits for two of them.
PUT_S_MAX = 15.0
_WAIT_S = 0.05
_WAIT_S_MAX = 2.0

# The name of the mark in an object's metadata. Azure accepts letters only.
MARK = "writer"

# Refusals by which a store says that it stored nothing.
_REFUSALS = (PermissionDeniedError, UnauthenticatedError)


def version_of(meta: "obstore.ObjectMeta | obstore.PutResult") -> str:
    """Return an object's version: Google needs the second part, the others the first."""
    return f"{meta['e_tag'] or ''} {meta['version'] or ''}"


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0, min(_WAIT_S * 2**attempt, _WAIT_S_MAX)))  # noqa: S311 - jitter


def _if_version(version: str) -> Any:
    """Return the condition that an object has a version."""
    e_tag, _, generation = version.partition(" ")
    return {name: value for name, value in (("e_tag", e_tag), ("version", generation)) if value}


class ConditionalWriter:
    """Replaces objects of one bucket under conditions. Any worker thread may call it.

    Args:
        store: the bucket.
        uri: the lake's name in errors.
        prefix: the prefix of the lake's keys, with its last slash.
        writer: the id of this writer, in ASCII.
    """

    def __init__(self, store: ObjectStore, uri: str, prefix: str, writer: str) -> None:
        self._store = store
        self._uri = uri
        self._prefix = prefix
        self._writer = writer
        self._nonce = secrets.token_hex(8)
        self._replacements = itertools.count()
        self._probing = threading.Lock()
        self._honours_conditions = False

    def put(self, replacement: Replacement) -> str:
        """Replace an object, and return its new version. The call blocks.

        Raises:
            ChangedError: if the object has another version than expected.
            LakeError: if the store refuses or stays silent. The object then has the old or
                the new bytes: a lost PUT may still be stored under its condition.

        Crash: the object has the old or the new bytes, whole.
        """
        if not self._honours_conditions:
            self.probe()
        mark = f"{self._writer} {self._nonce}-{next(self._replacements)}"
        failed: Exception | None = None
        until_s = time.monotonic() + PUT_S_MAX
        for attempt in range(PUT_TRIES_MAX):
            if attempt:
                if time.monotonic() > until_s:
                    break
                _pause(attempt)
            try:
                return version_of(self._put_once(replacement, mark))
            except _REFUSALS as error:
                raise store_error(self._uri, replacement.name, error) from None
            except (BaseError, OSError) as error:
                if is_missing_bucket(error):
                    raise store_error(self._uri, replacement.name, error) from None
                failed = error
            stored = self._stored(replacement, mark)
            if stored is not None:
                return stored
        assert failed is not None
        raise store_error(self._uri, replacement.name, failed)

    def _put_once(self, replacement: Replacement, mark: str) -> "obstore.PutResult":
        expected = replacement.expected
        return obstore.put(
            self._store,
            self._prefix + replacement.name,
            replacement.data,
            mode="create" if expected is None else _if_version(expected),
            attributes={MARK: mark, "Content-Type": "application/octet-stream"},
        )

    def _stored(self, replacement: Replacement, mark: str) -> str | None:
        """Return the version of the object if it is ours, or None if it is the expected one.

        Raises:
            ChangedError: if it is another writer's.
            LakeError: if it cannot be read.
        """
        try:
            found = obstore.get(self._store, self._prefix + replacement.name)
            version = version_of(found.meta)
            if version == replacement.expected:
                return None
            theirs = found.attributes.get(MARK)
            # Equal bytes with another writer's mark are not ours: then the merge added nothing.
            if theirs == mark or (not theirs and bytes(found.bytes()) == replacement.data):
                return version
        except FileNotFoundError:
            if replacement.expected is None:
                return None
        except (BaseError, OSError) as error:
            raise store_error(self._uri, replacement.name, error) from None
        raise ChangedError(replacement.name)

    def probe(self) -> None:
        """Raise LakeError if the store ignores conditions. This takes seven requests, once.

        An error of the store decides nothing, so the probe is tried again with another key.
        """
        with self._probing:
            attempt = 0
            while not self._honours_conditions:
                key = f"{self._prefix}{STATE_DIRECTORY}/probe-{secrets.token_hex(8)}"
                try:
                    self._probe(key)
                    self._honours_conditions = True
                except (BaseError, OSError) as error:
                    attempt += 1
                    if attempt == PUT_TRIES_MAX or isinstance(error, _REFUSALS) or is_missing_bucket(error):
                        raise store_error(self._uri, "", error) from None
                    _pause(attempt)
                finally:
                    with contextlib.suppress(BaseError, OSError):
                        obstore.delete(self._store, key)

    def _probe(self, key: str) -> None:
        first = obstore.put(self._store, key, b"1", mode="create")
        self._check(lambda: obstore.put(self._store, key, b"2", mode="create"), key, b"1")
        was = _if_version(version_of(first))
        obstore.put(self._store, key, b"3", mode=was)
        self._check(lambda: obstore.put(self._store, key, b"4", mode=was), key, b"3")

    def _check(self, write: Callable[[], Any], key: str, expected: bytes) -> None:
        """Write under a condition that does not hold; raise LakeError if the store writes."""
        try:
            write()
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            if bytes(obstore.get(self._store, key).bytes()) == expected:
                return
        raise LakeError(
            f"lake: {self._uri}: the store ignores the conditions If-Match and If-None-Match",
            "record to a disk, or to a store that has conditional writes, such as S3, MinIO or SeaweedFS",
        )
