"""An import hook that keeps Arrow from importing pandas."""

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
    """Prevent Arrow from importing pandas, which takes longer than most queries.

    Arrow imports pandas to recognize a Series when it makes its first array. The
    block passes no Series. If pandas is already imported, it stays imported.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
