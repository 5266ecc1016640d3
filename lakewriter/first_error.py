"""A context manager that replaces an exception group by one exception."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def first_error() -> Iterator[None]:
    """Raise the first exception of an exception group, instead of the group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
