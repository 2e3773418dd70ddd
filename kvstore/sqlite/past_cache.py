"""`PastCache`: reads of the past, answered again as long as nobody has written the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvstore.namespace import address, check_key
from kvstore.past import Moment
from kvstore.sqlite import driver, past, reading
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite.read_cache import ABSENT, NO_MARK, Address, Entry, Mark, ReadCache
from kvstore.sqlite.rows import ANY_LENGTH
from kvstore.types import UNKNOWN, Namespace, Recalled

__all__ = ["PastCache"]

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
        cache: of reads, which knows whether somebody has written, and what is there now; `None`:
            there is none, and so nothing is known here.
    """

    def __init__(self, cache: ReadCache | None) -> None:
        self._cache = cache
        self._state = _State(NO_MARK)

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
        cache, state, version = self._cache, self._state, moment.version
        known = state.moments.get((version, moment.instant))
        if cache is None or known is None or cache.header() != state.mark or now() >= known.until:
            return None
        entry = known.found.get((path, key))
        if entry is None:
            entry = cache.find(path, key)
            if entry is ABSENT or entry is None or entry.version > version:
                return None
        return entry

    def read(
        self,
        connection: driver.Connection,
        moment: Moment,
        namespace: Namespace,
        path: str,
        key: str,
        now: int,
        longest: int = ANY_LENGTH,
    ) -> Entry | None:
        """Read what was at an address, or `ABSENT`, and keep it.

        Args:
            connection: to read over; it may give text as bytes.
            moment: which one.
            namespace: with the path and the key, the address.
            path: see above.
            key: see above.
            now: the present instant.
            longest: the most bytes of a value; of a longer one `None` is returned.
        """
        mark = NO_MARK if self._cache is None else self._cache.header()
        state, when = self._state, (moment.version, moment.instant)
        known = state.moments.get(when) if state.mark == mark else None
        rows = connection.execute(sql.GET_ENTRY_AT, (path, key, *when, longest)).fetchall()
        until = None if known is None else known.until
        if until is None or until <= now:
            until = past.require(connection, moment, now)
        if rows and rows[0][0] is None:
            return None
        entry = reading.entry_of(namespace, path, key, rows[0]) if rows else ABSENT
        if self._cache is not None and self._cache.header() == mark:
            self._keep(mark, when, until, (path, key), entry)
        return entry

    def _keep(
        self, mark: Mark, when: tuple[int, int], until: int, address: Address, entry: Entry
    ) -> None:
        """Keep what was read at a header, and until when its moment is kept."""
        state = self._state
        if mark != state.mark or state.size > _MOST_BYTES:
            state = self._state = _State(mark)
        known = state.moments.setdefault(when, _Moment(until))
        known.until = until
        known.found[address] = entry
        state.size += _ENTRY_BYTES + sum(map(len, address)) + len(entry.data)
