"""`PastCache`: reads of the past, answered again as long as nobody has written the file."""

from __future__ import annotations

from collections.abc import Sequence

from kvstore.operations import Record
from kvstore.past import Moment
from kvstore.sqlite.read_cache import NO_MARK, Mark, ReadCache

__all__ = ["PastCache"]

_MOST_BYTES = 4 * 2**20
_ENTRY_BYTES = 500  # of an entry beside its value, roughly

_Place = tuple[Moment, str, str]


class PastCache:
    """What was at some places at some moments.

    Args:
        cache: of reads, which knows whether somebody has written.
    """

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._header = NO_MARK  # at which all the rest was read
        self._until: dict[Moment, int] = {}  # the instant from which on a moment is not kept
        self._found: dict[_Place, Record | None] = {}
        self._size = 0

    def header(self) -> Mark:
        """Return what is to be taken before a read, for `fill`."""
        return self._cache.header()

    def find(self, moment: Moment, path: str, keys: Sequence[str], now: int) -> list[Record] | None:
        """Return the items among some keys that were there, or `None`: they are to be read."""
        if self._cache.header() != self._header or now >= self._until.get(moment, now):
            return None
        rows = []
        for key in keys:
            row = self._found.get((moment, path, key), self)
            if row is self:
                return None
            if row is not None:
                rows.append(row)
        return rows  # type: ignore[return-value]

    def fill(
        self,
        before: Mark,
        moment: Moment,
        until: int,
        path: str,
        keys: Sequence[str],
        rows: Sequence[Record],
    ) -> None:
        """Keep what was read since a header, and until when its moment is kept."""
        if self._cache.header() != before:
            return
        if before != self._header or self._size > _MOST_BYTES:
            self._header, self._size = before, 0
            self._until.clear()
            self._found.clear()
        self._until[moment] = until
        found = {row.key: row for row in rows}
        for key in keys:
            self._found[moment, path, key] = found.get(key)
        self._size += sum(_ENTRY_BYTES + len(row.data) for row in rows) + _ENTRY_BYTES * len(keys)
