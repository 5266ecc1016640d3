"""Unwrap the error of a group of tasks."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def first_error() -> Iterator[None]:
    """Raise only the first error of a group of tasks."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
