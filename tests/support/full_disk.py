"""A full disk, staged by the kernel's limit of file sizes."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(file_bytes_max: int) -> Iterator[None]:
    """Limit the size of each file; the kernel refuses writes beyond it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
