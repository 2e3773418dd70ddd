"""`PastCache`: reads of the past, answered again as long as nobody has written the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvstore.namespace import address, check_key
from kvstore.past import Moment
from kvstore.sqlite import driver, past
from kvstore.sqlite.read_cache import ABSENT, NO_MARK, Address, Entry, Mark, ReadCache
from kvstore.sqlite.rows import ANY_LENGTH
from kvstore.types import UNKNOWN, Namespace, Recalled

__all__ = ["PastCache", "read_entry"]

_MOST_BYTES = 4 * 2**20
_ENTRY_BYTES = 500  # of an entry beside its value, roughly


class _Moment:
    """What is known of a moment: until when it is kept, and what was at some addresses."""

    __slots__ = ("found", "until")

    def __init__(self, until: int) -> None:
        self.until = until
        self.found: dict[Address, Entry] = {}


class _State:
    """What was read while nobody wrote."""

    __slots__ = ("mark", "moments", "size")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.moments: dict[tuple[int, int], _Moment] = {}  # by version and instant
        self.size = 0


class PastCache:
    """What was at some places at some moments; any thread may use it.

    Args:
        cache: of reads, which knows whether somebody has written, and what is there now.
    """

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._state = _State(NO_MARK)

    def header(self) -> Mark:
        """Return what is to be taken before a read, for the calls below."""
        return self._cache.header()

    def until(self, mark: Mark, moment: Moment) -> int | None:
        """Return until when a moment is kept, if that is known of a header."""
        state = self._state
        known = state.moments.get((moment.version, moment.instant))
        return None if known is None or state.mark != mark else known.until

    def recall(
        self, moment: Moment, namespace: Sequence[str], key: str, now: Callable[[], int]
    ) -> Recalled:
        """Return what was at an address that a caller gave, if that is known."""
        labels, path = address(namespace)
        if type(key) is not str:
            key = check_key(key)
        entry = self.find(moment, path, key, now)
        return UNKNOWN if entry is None else entry.item(labels, key, lambda: moment.instant)

    def find(self, moment: Moment, path: str, key: str, now: Callable[[], int]) -> Entry | None:
        """Return what was at a place, `ABSENT`, or `None`: it must be read.

        What is there now was there then, too, if it has not been written since.
        """
        state, version = self._state, moment.version
        known = state.moments.get((version, moment.instant))
        if known is None or self._cache.header() != state.mark or now() >= known.until:
            return None
        entry = known.found.get((path, key))
        if entry is None:
            entry = self._cache.find(path, key)
            if entry is ABSENT or entry is None or entry.version > version:
                return None
        return entry

    def fill(
        self, before: Mark, moment: Moment, until: int, path: str, key: str, entry: Entry
    ) -> None:
        """Keep what was read since a header, and until when its moment is kept."""
        if self._cache.header() != before:
            return
        state = self._state
        if before != state.mark or state.size > _MOST_BYTES:
            state = self._state = _State(before)
        known = state.moments.setdefault((moment.version, moment.instant), _Moment(until))
        known.until = until
        known.found[path, key] = entry
        state.size += _ENTRY_BYTES + len(path) + len(key) + len(entry.data)


def read_entry(
    connection: driver.Connection,
    cache: PastCache | None,
    moment: Moment,
    namespace: Namespace,
    path: str,
    key: str,
    now: int,
    longest: int = ANY_LENGTH,
) -> Entry | None:
    """Read what was at an address, and keep it; `None`: its value is longer than that."""
    before = NO_MARK if cache is None else cache.header()
    until = None if cache is None else cache.until(before, moment)
    found = past.get_entry(connection, namespace, path, key, moment, now, until, longest)
    if found is None:
        return None
    entry, until = found
    if cache is not None:
        cache.fill(before, moment, until, path, key, entry)
    return entry
