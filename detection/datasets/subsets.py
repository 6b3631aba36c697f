"""Choose a subset of images by hash, independent of any library's random numbers."""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

_SEED = "lowbit-bench detection 1"  # fixed: another text would draw other images


def draw(names: Iterable[Name], count: int) -> set[Name]:
    """Return the `count` names with the smallest SHA-256; a larger draw contains a smaller one.

    Example:
        >>> draw(range(5), 2) <= draw(range(5), 3)
        True
    """
    return set(sorted(names, key=_key)[:count])


def first(names: Sequence[Name], count: int | None, *, source: str) -> list[Name]:
    """Return `count` drawn names in their original order; all of them for None.

    Raises:
        ValueError: there are fewer.
    """
    if count is None:
        return list(names)
    if count > len(names):
        raise ValueError(
            f"{source} has {len(names)} images, but {count} were requested; nothing was loaded. Use "
            "fewer, or omit the number (null) for all."
        )
    chosen = draw(names, count)
    return [name for name in names if name in chosen]


def _key(name: Hashable) -> bytes:
    return hashlib.sha256(f"{_SEED}:{name}".encode()).digest()
