"""A cache of point reads that is coherent with every process that writes the file.

SQLite's WAL index, the `-shm` file, begins with a header of 48 bytes that each commit of each
process rewrites before it is acknowledged (https://sqlite.org/walformat.html, section 2.2). It
holds a count of commits, the length of the log and the log's running checksum, so two equal
headers mean one state of the database. To compare it, through a mapping, with the one at which an
entry was read takes a twentieth of a microsecond, where a SELECT takes four: what is equal is
answered from memory, and anything else is read anew.

- An entry is filled only if the header was the same before and after its read.
- A commit of our own keeps the entries of all that it did not write, when the count of commits
  says that no other one came between.
- There is nothing to invalidate and no message to lose: what cannot be proven is forgotten.

The header is no public interface of SQLite. So the cache proves itself when it is opened (a commit
must change the header as described), and is off wherever it cannot: another layout, no `-shm`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import repeat
from mmap import mmap
from threading import Lock
from typing import Final, NamedTuple, cast

from kvstore.codec import decode
from kvstore.namespace import address, check_key
from kvstore.types import UNKNOWN, Draft, Item, Namespace, Recalled

__all__ = [
    "ABSENT",
    "HEADER_BYTES",
    "NO_MARK",
    "Address",
    "Entry",
    "Header",
    "Mark",
    "ReadCache",
    "commits",
    "is_as_known",
    "make_entry",
]

HEADER_BYTES: Final = 48
_LAYOUT: Final = 3_007_000  # of the WAL index, since SQLite 3.7.0
_FEW: Final = 16  # items that one commit adds to the cache; of more, it only keeps those up to date
_OVERHEAD_BYTES: Final = 400  # of an entry, beside its key and data
_PREFIX = struct.Struct("=III")  # layout, padding, count of commits; in the machine's byte order
_PAGES = struct.Struct("=16xII")  # frames in the log, and pages of the file with them
_SUMMED_BYTES: Final = 40  # of the header, before its own checksum of 64 bits
_SUM_AT: Final = 5  # the checksum, among the header's numbers of 64 bits
_COUNT_AT: Final = 2  # the count of commits, among its numbers of 32 bits
_COUNT_OF_COPY_AT: Final = HEADER_BYTES // 4 + _COUNT_AT
_NO_SUM: Final = -1  # of no header
_TRIES: Final = 5

Address = tuple[str, str]  # path and key


class Entry(NamedTuple):
    """A row as it was read and verified; times in microseconds."""

    data: bytes
    version: int
    created_at: int
    updated_at: int
    expires_at: int | None

    def item(self, namespace: Namespace, key: str, now: Callable[[], int]) -> Item | None:
        """Return the item, unless it is not there now."""
        data, version, created_at, updated_at, expires_at = self
        if not data or (expires_at is not None and expires_at <= now()):
            return None
        draft = Draft()  # as `make_item` does
        draft.value = decode(data)
        return draft.item(namespace, key, version, created_at, updated_at, expires_at)


make_entry: Final = cast(
    "Callable[[tuple[bytes, int, int, int, int | None]], Entry]", partial(tuple.__new__, Entry)
)
"""As `Entry(...)` of a tuple, in half the time: where many are made."""

ABSENT: Final = Entry(b"", 0, 0, 0, None)
"""Known not to be there; the data of an item are never empty."""


_NOTHING: Final[dict[Address, Entry]] = {}

Header = mmap | bytes  # the mapped WAL index, or a copy of its beginning
# A header, by two of its numbers: the checksum, which is over all the rest of it and written with
# it, and the count of commits
Mark = tuple[int, int]
NO_MARK: Final[Mark] = (_NO_SUM, 0)


def is_as_known(index: Header, page_count: Callable[[], int]) -> bool:
    """Whether a mapped WAL index is laid out as this module takes it to be.

    Args:
        index: of a file that is open.
        page_count: returns the pages of the database in a read transaction of its own.
    """
    for _ in range(_TRIES):
        header, copy = index[:HEADER_BYTES], index[HEADER_BYTES : 2 * HEADER_BYTES]
        pages = page_count()
        if index[:HEADER_BYTES] == header == copy:  # nobody has committed meanwhile
            frames, pages_in_log = _PAGES.unpack_from(header)
            return (
                commits(header) is not None
                and _checksum(header[:_SUMMED_BYTES]) == header[_SUMMED_BYTES:]
                and (pages_in_log == pages or frames == pages_in_log == 0)  # or: it is new
            )
    return False


def _checksum(data: bytes) -> bytes:
    """Sum up a header as SQLite does, in the machine's byte order."""
    first = second = 0
    for one, other in struct.iter_unpack("=II", data):
        first = (first + one + second) % 2**32
        second = (second + other + first) % 2**32
    return struct.pack("=II", first, second)


class _Snapshot:
    """What was read while the header was the same."""

    __slots__ = ("entries", "size", "sum")

    def __init__(self, sum: int) -> None:
        self.sum = sum  # of the header
        self.entries: dict[Address, Entry] = {}
        self.size = 0


class ReadCache:
    """Entries by address, each as it was at one header.

    Any thread may use it: an entry always stays with the header that it was read at.

    Args:
        index: the mapped WAL index; never unmapped while the cache is used.
        budget: bytes that keys, data and their overhead may take; what is over it drops the
            oldest entries.

    Attributes:
        hits: how many reads it has answered.
    """

    def __init__(self, index: Header, budget: int) -> None:
        both = memoryview(index)[: 2 * HEADER_BYTES]
        self._sums, self._counts = both.cast("Q"), both.cast("I")
        self._budget = budget
        self._snapshot = _Snapshot(_NO_SUM)
        self._lock = Lock()  # of changes; `find` needs none
        self.hits = 0

    def find(self, path: str, key: str) -> Entry | None:
        """Return the entry of an item, `ABSENT`, or `None`: it must be read."""
        state = self._snapshot
        if self._sums[_SUM_AT] != state.sum:
            return None
        entry = state.entries.get((path, key))
        if entry is not None:
            self.hits += 1
        return entry

    def look(self, addresses: Iterable[Address]) -> list[Entry | None]:
        """Return what is known of items, for a write, and so no hits."""
        state = self._snapshot
        known = state.entries if self._sums[_SUM_AT] == state.sum else _NOTHING
        return list(map(known.get, addresses))

    def recall(self, namespace: Sequence[str], key: str, now: Callable[[], int]) -> Recalled:
        """Return the live item at an address that a caller gave, if its entry is known."""
        state = self._snapshot
        if self._sums[_SUM_AT] != state.sum:
            return UNKNOWN
        labels, path = address(namespace)
        if type(key) is not str:
            key = check_key(key)
        entry = state.entries.get((path, key))
        if entry is None:
            return UNKNOWN
        self.hits += 1
        return entry.item(labels, key, now)

    def recall_all(
        self,
        namespace: Namespace,
        path: str,
        keys: Sequence[str],
        now: Callable[[], int],
        longest: int | None = None,
    ) -> list[Item] | None:
        """Return the live items among some, as they are at one moment, or `None`: read them.

        Args:
            namespace: the labels of `path`.
            path: where all of them are.
            keys: which.
            now: gives the present instant.
            longest: bytes that their values may have together; `None`: any number.
        """
        state = self._snapshot
        begun = state.sum
        found = list(map(state.entries.get, zip(repeat(path), keys)))
        if not all(found) or self._sums[_SUM_AT] != begun:
            return None  # or a commit came meanwhile, which `follow` may have gone along with
        entries = cast("list[Entry]", found)
        if longest is not None and sum([len(entry.data) for entry in entries]) > longest:
            return None
        self.hits += len(entries)
        items = [entry.item(namespace, key, now) for key, entry in zip(keys, entries, strict=True)]
        return [item for item in items if item is not None]

    def header(self) -> Mark:
        """Return the header as it is now; take it before a read or a write, for the calls below."""
        return self._sums[_SUM_AT], self._counts[_COUNT_AT]

    def fill(self, before: Mark, read: Iterable[tuple[Address, Entry]]) -> None:
        """Keep what a read transaction has found that began after `before` was taken."""
        with self._lock:
            sum = before[0]
            if self._sums[_SUM_AT] != sum:
                return  # a commit came while it was read: which of the two it saw is not known
            if self._snapshot.sum != sum:
                self._snapshot = _Snapshot(sum)
            self._keep(read)

    def follow(self, before: Mark, changed: Mapping[Address, Entry | None] | None) -> Mark | None:
        """Go along with a commit of our own, after it.

        Returns:
            The header as that commit left it; `None`: others may have committed since.

        Args:
            before: the header inside the write transaction, before its COMMIT.
            changed: all items that the commit wrote or deleted, as they now are; `None` for one
                of which that is not known; `None` alone: it is not known which they are.
        """
        with self._lock:
            state, now = self._snapshot, self._sums[_SUM_AT]
            if now == before[0]:  # nobody has committed: we had nothing to write ...
                if changed:  # ... or else the header is not what it was taken for
                    self._budget, self._snapshot = 0, _Snapshot(_NO_SUM)
                    return None
                return before
            # Whoever commits writes the copy first. So as long as that is ours, the sum was, too.
            count = self._counts[_COUNT_OF_COPY_AT]
            if count != (before[1] + 1) % 2**32:
                return None
            if changed is None:
                return now, count
            if state.sum not in (before[0], now):  # of another state, or of none
                self._snapshot = state = _Snapshot(before[0])
            # Until `sum` is set, nothing is found: the header is another one.
            self._keep(changed.items(), is_crowd=len(changed) > _FEW)
            state.sum = now
            return now, count

    @property
    def size(self) -> int:
        """The bytes that the entries take, by estimate."""
        return self._snapshot.size

    def _keep(
        self, found: Iterable[tuple[Address, Entry | None]], *, is_crowd: bool = False
    ) -> None:
        """Keep entries, and take out what is not known any more; of a crowd, those of known items.

        What was written last is the last to be dropped.
        """
        state, entries, longest = self._snapshot, self._snapshot.entries, self._budget // 8
        more = 0
        for place, entry in found:
            old = entries.pop(place, None)
            if old is not None and entry is not None and len(entry.data) <= len(old.data):
                entries[place] = entry
                more += len(entry.data) - len(old.data)
                continue
            path, key = place
            weight = len(path) + len(key) + _OVERHEAD_BYTES
            if old is not None:
                more -= weight + len(old.data)
            elif is_crowd:
                continue
            if entry is not None and (weight := weight + len(entry.data)) <= longest:
                entries[place] = entry
                more += weight
        state.size += more
        while state.size > self._budget:
            (path, key), old = next(iter(entries.items()))
            del entries[path, key]
            state.size -= len(path) + len(key) + _OVERHEAD_BYTES + len(old.data)


def commits(header: bytes) -> int | None:
    """Return the count of commits in a header; `None`: it is not laid out as we know it."""
    if len(header) < HEADER_BYTES:
        return None
    layout, _, count = _PREFIX.unpack_from(header)
    return int(count) if layout == _LAYOUT else None
