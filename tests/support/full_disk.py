"""A disk that is full, as the kernel tells it."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(file_bytes_max: int) -> Iterator[None]:
    """Let the kernel refuse to grow any file beyond this many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
