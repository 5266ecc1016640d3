"""An import hook that keeps Arrow from importing pandas.

Arrow imports pandas to recognize a Series when it makes its first array. That takes longer
than most queries, and 50 MB of memory.
"""

import contextlib
import sys
from collections.abc import Iterator


class _NoPandas:
    """An import hook that hides pandas."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


@contextlib.contextmanager
def without_pandas() -> Iterator[None]:
    """Prevent Arrow from importing pandas in this block, which passes no Series.

    If pandas is already imported, it stays imported.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # `show_pandas` removed it
            sys.meta_path.remove(finder)


def hide_pandas() -> None:
    """Prevent Arrow from importing pandas in this process."""
    sys.meta_path.insert(0, _NoPandas())


def show_pandas() -> None:
    """Let pandas be imported again."""
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, _NoPandas)]
