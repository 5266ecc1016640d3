"""Short tracebacks of expected errors, because a notebook shows every frame with its code.

A wrong column name took 133 lines there. Other exceptions keep their frames: they are
bugs of lakewriter.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lakewriter.errors import LakewriterError

P = ParamSpec("P")
T = TypeVar("T")


def short_traceback(function: Callable[P, T]) -> Callable[P, T]:
    """Return a public function whose LakewriterErrors have no frames of the package but one.

    IPython and pytest hide that frame too.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except LakewriterError as error:
            raise error.with_traceback(None) from None

    return call
