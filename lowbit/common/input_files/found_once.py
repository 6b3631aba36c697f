"""What is found out about input files once for a plan or a job, which so see one state of them."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

_found: ContextVar[dict[Hashable, object] | None] = ContextVar("found", default=None)


@contextmanager
def finding_once() -> Iterator[None]:
    """Keep what `once` finds until the block ends, in this thread; a block inside it shares that.

    Example:
        >>> with finding_once():
        ...     [once("size", lambda: 3), once("size", lambda: 4)]
        [3, 3]
        >>> once("size", lambda: 4)
        4
    """
    found = _found.get()
    token = _found.set({} if found is None else found)
    try:
        yield
    finally:
        _found.reset(token)


def once(key: Hashable, find: Callable[[], T]) -> T:
    """Return what `find` returns, or returned before in a block of `finding_once`.

    Errors are not kept: what is missing is looked for again.
    """
    found = _found.get()
    if found is None:
        return find()
    if key not in found:
        found[key] = find()
    return found[key]
