"""An object store as a storage: keys below one prefix, and reads of whole objects.

It implements the interface of `storage` read-only. Only this module knows the error
texts of the stores.

One request reads all bytes of an object. So a read during a replacement gets the old
object or the new one. But Arrow first requests the length, without a version. If the
object is replaced in between, its bytes are cut off or padded to the old length. The
last bytes show this, and the read is retried.
"""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import pyarrow as pa
import pyarrow.fs as fs

from lakewriter.errors import LakeError, UnreadableError
from lakewriter.lake.prefetch import PENDING_MAX, prefetch
from lakewriter.lake.remote.location import Location
from lakewriter.lake.storage import FILE_BYTES_MAX, Listing, Replacement, StoredBytes

S = TypeVar("S")
T = TypeVar("T")

# A read fails if the object is replaced during this many attempts.
READ_LAPS_MAX = 10

# The last bytes of our files. No file of ours ends with zeros.
_PARQUET_END = b"PAR1"
_TEXT_END = b"\n"

# "… AWS Error ACCESS_DENIED during ListObjectsV2 operation: Access Denied"
_AWS = re.compile(r"AWS Error (\w+)(?: \(HTTP status (-?\d+)\))? during \w+ operation: (.*)", re.DOTALL)
_DETAIL = re.compile(r"(?:Message|Details): (.*)", re.DOTALL)
_REGION = re.compile(r"(?:expecting|located in) '([a-z0-9-]+)'")

_CREDENTIALS = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"

# Hints by a part of the error text.
_HINTS = (
    ("NETWORK_CONNECTION", "is the network up, and AWS_ENDPOINT_URL right?"),
    ("ACCESS_DENIED", _CREDENTIALS),
    ("INVALID_ACCESS_KEY_ID", _CREDENTIALS),
    ("SIGNATURE_DOES_NOT_MATCH", _CREDENTIALS),
    ("ExpiredToken", _CREDENTIALS),
    ("REQUEST_TIME_TOO_SKEWED", "set this machine's clock"),
    ("PermanentRedirect", "AWS_REGION, or ?region=…, has to be the bucket's"),
    ("AuthorizationHeaderMalformed", "AWS_REGION, or ?region=…, has to be the bucket's"),
    ("SLOW_DOWN", "try again later"),
    ("INTERNAL_FAILURE", "try again later"),
    ("HTTP status 50", "try again later"),
)


class Object(NamedTuple):
    """A key, relative to the lake's root, and its size in bytes."""

    name: str
    size: int


class ObjectStorage:
    """The keys below one prefix.

    Args:
        location: the location of the lake's root.
    """

    is_remote = True

    def __init__(self, location: Location) -> None:
        self._uri = location.uri
        self._bucket = location.bucket
        self._path = location.path
        self._filesystem = location.filesystem

    @property
    def root(self) -> Path:
        """Raise LakeError: an object store has no local directory."""
        self._refuse()

    def in_parallel(self, read: Callable[[S], T], things: Iterable[S]) -> Iterator[T]:
        """Yield the result of `read` for each thing, in order, with many reads pending."""
        return prefetch(read, things, PENDING_MAX)

    @contextlib.contextmanager
    def local_copy(self, directories: Sequence[str], suffix: str) -> Iterator[Path]:
        """Yield a temporary directory with the current files."""
        listings = self.in_parallel(self.entries, directories)
        names = [
            f"{directory}/{file}"
            for directory, listing in zip(directories, listings, strict=True)
            for file in listing.files
            if file.endswith(suffix) and not file.startswith(".")
        ]
        with tempfile.TemporaryDirectory(prefix="lakewriter-") as root:
            for name, found in zip(names, self.in_parallel(self.read, names), strict=True):
                if found is not None:
                    path = Path(root, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(found.data)
            yield Path(root)

    def entries(self, directory: str) -> Listing:
        """Return the names in a directory, by one request. An absent directory has no names."""
        directories: list[str] = []
        files: list[str] = []
        for info in self._list(directory, recursive=False):
            (files if info.type == fs.FileType.File else directories).append(info.base_name)
        return Listing(sorted(directories), sorted(files))

    def tree(self, directory: str) -> list[Object]:
        """Return every key below a directory, sorted. Each thousand keys take one request."""
        return sorted(
            Object(info.path[len(self._path) + 1 :], info.size)
            for info in self._list(directory, recursive=True)
            if info.type == fs.FileType.File
        )

    def bucket_exists(self) -> bool:
        """Return whether the bucket exists. The listing of a missing bucket is empty."""
        with self._asking(""):
            return bool(self._filesystem.get_file_info(self._bucket).type != fs.FileType.NotFound)

    def read(self, name: str) -> StoredBytes | None:
        """Return a name's bytes and version, or None if the name does not exist.

        A read takes two requests.

        Raises:
            LakeError: if the store refuses, or has another version at every attempt.
        """
        for _ in range(READ_LAPS_MAX):
            found = self._read(name)
            if found is None or found.data.endswith(_PARQUET_END if name.endswith(".parquet") else _TEXT_END):
                return found
            if self.version(name) == found.version:
                return found  # the object's own last bytes are these
        raise LakeError(f"lake: {self._uri}/{name}: changed during every attempt to read it", "try again")

    def _read(self, name: str) -> StoredBytes | None:
        with self._asking(name):
            try:
                with self._filesystem.open_input_file(f"{self._path}/{name}") as file:
                    # If the object is shorter now, Arrow does not notice, and the rest of the
                    # buffer stays as it was. So the buffer has only zeros before.
                    if file.size() > FILE_BYTES_MAX:
                        raise UnreadableError(
                            f"lake: {self._uri}/{name}: larger than {FILE_BYTES_MAX:,} bytes"
                        )
                    data = bytearray(file.size())
                    if data:
                        file.readinto(data)
                    return StoredBytes(bytes(data), _version(file))
            except FileNotFoundError:
                return None

    def version(self, name: str) -> str | None:
        """Return a name's version, or None if the name does not exist. This takes one request."""
        with self._asking(name):
            try:
                with self._filesystem.open_input_file(f"{self._path}/{name}") as file:
                    return _version(file)
            except FileNotFoundError:
                return None

    def replace(self, name: str, data: bytes, expected: str | None) -> str:  # noqa: ARG002
        """Raise LakeError: object stores are read-only."""
        self._refuse()

    def replace_all(self, replacements: Sequence[Replacement]) -> list[str | None]:  # noqa: ARG002
        """Raise LakeError: object stores are read-only."""
        self._refuse()

    def delete(self, name: str) -> None:  # noqa: ARG002
        """Raise LakeError: object stores are read-only."""
        self._refuse()

    def prune(self, directory: str) -> None:
        """Return at once: an object store has no directories."""

    def exclusive(self, *directories: str) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        """Return an empty context: an object store has no locks."""
        return contextlib.nullcontext()

    def sweep(self, directory: str, now_s: float, *, dry_run: bool = False) -> list[str]:  # noqa: ARG002
        """Return an empty list: an object store has no temporary files."""
        return []

    def _refuse(self) -> NoReturn:
        raise LakeError(
            f"lake: {self._uri}: lakewriter only reads object stores so far",
            "give a local directory with --lake",
        )

    def _list(self, directory: str, *, recursive: bool) -> list[Any]:
        path = f"{self._path}/{directory}" if directory else self._path
        with self._asking(directory):
            selector = fs.FileSelector(path, recursive=recursive, allow_not_found=True)
            found: list[Any] = self._filesystem.get_file_info(selector)
            return found

    @contextlib.contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Raise a LakeError with one line of text for an error of the store."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise self._failed(name, str(error)) from None

    def _failed(self, name: str, text: str) -> LakeError:
        where = f"{self._uri}/{name}" if name else self._uri
        hint = next((hint for word, hint in _HINTS if word in text), "")
        if region := _REGION.search(text):
            hint = f"AWS_REGION={region[1]}, or {self._uri}?region={region[1]}"
        found = _AWS.search(text)
        if found is None:
            return LakeError(f"lake: {where}: {_one_line(text)}", hint)
        word, status, rest = found.groups()
        detail = _DETAIL.search(rest)
        reason = _one_line(detail[1] if detail else rest)
        if "No response body" in reason or not reason:
            reason = f"HTTP status {status}" if status else word.lower().replace("_", " ")
        return LakeError(f"lake: {where}: {reason}", hint)


def _one_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].rstrip(".")


def _version(file: Any) -> str:
    metadata: dict[str, bytes] = {key.lower(): value for key, value in (file.metadata() or {}).items()}
    etag, modified = metadata.get("etag", b"").decode(), metadata.get("last-modified", b"").decode()
    return etag or f"{modified}-{file.size():x}"
