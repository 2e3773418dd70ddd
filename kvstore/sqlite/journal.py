"""`Journal`: what this process has changed in the index, for its caches."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import itemgetter
from typing import NamedTuple

__all__ = ["Journal", "VectorChange"]

JOURNAL_VECTORS = 20_000  # changes that are kept


class VectorChange(NamedTuple):
    """A vector that was written (`None`: deleted)."""

    path: str
    rowid: int
    vector: bytes | None


class Journal:
    """The latest changes of vectors by this process, for its caches.

    Attributes:
        is_read: whether there is a cache that reads it.
    """

    def __init__(self) -> None:
        self.is_read = False
        self._records: deque[tuple[int, list[VectorChange]]] = deque()
        self._length = 0

    def publish(self, version: int, changes: list[VectorChange]) -> None:
        """Add what a committed transaction has changed."""
        self._records.append((version, changes))
        self._length += len(changes)
        while self._length > JOURNAL_VECTORS:
            self._length -= len(self._records.popleft()[1])

    def between(self, after: int, until: int) -> list[list[VectorChange]]:
        """Return the changes of each transaction with `after < version <= until`, in order."""
        records = list(self._records)  # another thread may be adding to them
        begin, end = (bisect_right(records, at, key=itemgetter(0)) for at in (after, until))
        return [changes for _, changes in records[begin:end]]
