"""The interface of an engine, which runs a task over a stream of items.

    with engine:
        for result in engine.map(task, items, chunk=50, advance=bar.advance):
            …

A task is a function of a module of this package, or a `functools.partial` of one. It takes
some items and returns one result for each, in their order. The task, the items and the
results are pickled.

An engine may run a task again over the same items, also while the first run still works. So
a task must be idempotent. Then `repeated` is True, and a sum over results is a lower bound:
no result tells of what a lost run did.
"""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

S = TypeVar("S")
T = TypeVar("T")

Task = Callable[[list[S]], list[T]]


def ignore(_count: int) -> None:
    """Ignore progress."""


class Engine(Protocol):
    """Runs a task over items. It is a context manager; its end stops all work."""

    @property
    def is_distributed(self) -> bool:
        """Whether tasks may run on other hosts. They do not see this host's memory, only the lake."""

    @property
    def repeated(self) -> bool:
        """Whether a task may have run more than once over the same items since the engine began."""

    def map(
        self,
        task: Task[S, T],
        items: Iterable[S],
        *,
        chunk: int,
        advance: Callable[[int], None] = ignore,
    ) -> Iterator[T]:
        """Yield the result of each item, in order. Items are taken as they are needed.

        Args:
            chunk: fewer items are not worth a way to another process.
            advance: is called with the number of items that are newly done.

        Raises:
            LakewriterError: if the engine fails. Errors of a task are raised as they are, or
                as a LakewriterError with their text.
        """

    def __enter__(self) -> Self:
        """Return the engine. Nothing is started before it is needed."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all work, and the processes that the engine started."""
