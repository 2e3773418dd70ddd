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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from mmap import mmap
from threading import Lock
from typing import Final, NamedTuple

__all__ = [
    "ABSENT",
    "HEADER_BYTES",
    "Address",
    "Entry",
    "Header",
    "ReadCache",
    "commits",
    "is_as_known",
]

HEADER_BYTES: Final = 48
_LAYOUT: Final = 3_007_000  # of the WAL index, since SQLite 3.7.0
_FEW: Final = 16  # items that one commit adds to the cache; of more, it only keeps those up to date
_OVERHEAD_BYTES: Final = 400  # of an entry, beside its key and data
_PREFIX = struct.Struct("=III")  # layout, padding, count of commits; in the machine's byte order
_PAGES = struct.Struct("=20xI")
_SUM = struct.Struct("=40xQ")  # the header's own checksum, of 64 bits, as one number
_SUMMED_BYTES: Final = 40  # of the header, before its checksum
_SUM_AT: Final = 5  # of the header's numbers of 64 bits
_TRIES: Final = 5

Address = tuple[str, str]  # path and key


class Entry(NamedTuple):
    """A row as it was read and verified; times in microseconds."""

    data: bytes
    version: int
    created_at: int
    updated_at: int
    expires_at: int | None


ABSENT: Final = Entry(b"", 0, 0, 0, None)
"""Known not to be there."""


Header = mmap | bytes  # the mapped WAL index, or a copy of its beginning


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
            return (
                commits(header) is not None
                and _checksum(header[:_SUMMED_BYTES]) == header[_SUMMED_BYTES:]
                and _PAGES.unpack_from(header) == (pages,)
            )
    return False


def _checksum(data: bytes) -> bytes:
    """Sum up a header as SQLite does, in the machine's byte order."""
    first = second = 0
    for one, other in struct.iter_unpack("=II", data):
        first = (first + one + second) % 2**32
        second = (second + other + first) % 2**32
    return struct.pack("=II", first, second)


class _State:
    """What was read while the header was the same."""

    __slots__ = ("entries", "header", "size", "sum")

    def __init__(self, header: bytes) -> None:
        self.header = header
        self.sum = _SUM.unpack_from(header)[0] if header else -1
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
        self._index = index
        # To compare one number instead of 48 bytes: the sum is over all the rest of the header,
        # and written with it.
        self._sums = memoryview(index)[:HEADER_BYTES].cast("Q")
        self._budget = budget
        self._state = _State(b"")
        self._lock = Lock()  # of changes; `find` needs none
        self.hits = 0

    def find(self, path: str, key: str) -> Entry | None:
        """Return the entry of an item, `ABSENT`, or `None`: it must be read."""
        state = self._state
        if self._sums[_SUM_AT] != state.sum:
            return None
        entry = state.entries.get((path, key))
        if entry is not None:
            self.hits += 1
        return entry

    def find_all(self, addresses: Sequence[Address]) -> list[Entry] | None:
        """Return the entries of items as they are at one moment, or `None`: read them."""
        state = self._state
        get = state.entries.get
        found = []
        for address in addresses:
            entry = get(address)
            if entry is None:
                return None
            found.append(entry)
        if self._sums[_SUM_AT] != state.sum:  # nor was it another one meanwhile
            return None
        self.hits += len(found)
        return found

    def header(self) -> bytes:
        """Return the header as it is now; take it before a read or a write, for the calls below."""
        return self._index[:HEADER_BYTES]

    def fill(self, before: bytes, read: Iterable[tuple[Address, Entry]]) -> None:
        """Keep what a read transaction has found that began after `before` was taken."""
        with self._lock:
            if self._index[:HEADER_BYTES] != before:
                return  # a commit came while it was read: which of the two it saw is not known
            if self._state.header != before:
                self._state = _State(before)
            self._keep(read)

    def follow(self, before: bytes, changed: Mapping[Address, Entry | None] | None) -> bytes | None:
        """Go along with a commit of our own, after it.

        Returns:
            The header as that commit left it; `None`: others may have committed since.

        Args:
            before: the header inside the write transaction, before its COMMIT.
            changed: all items that the commit wrote or deleted, as they now are; `None` for one
                of which that is not known; `None` alone: it is not known which they are.
        """
        with self._lock:
            state, now = self._state, self._index[:HEADER_BYTES]
            then = commits(before)
            if now == before:  # nobody has committed: we had nothing to write ...
                if changed:  # ... or else the header is not what it was taken for
                    self._budget, self._state = 0, _State(b"")
                    return None
                return now
            if then is None or commits(now) != (then + 1) % 2**32:
                return None
            if changed is not None and state.header == before:
                self._state = _State(now)
                self._state.entries, self._state.size = state.entries, state.size
                self._keep(self._worth_keeping(changed))
            return now

    def _worth_keeping(
        self, changed: Mapping[Address, Entry | None]
    ) -> Iterator[tuple[Address, Entry]]:
        """Take out what is not known any more; of many changes, keep those of known items."""
        entries, is_crowd = self._state.entries, len(changed) > _FEW
        for address, entry in changed.items():
            if entry is None:
                old = entries.pop(address, None)
                if old is not None:
                    self._state.size -= _weight(address, old)
            elif not is_crowd or address in entries:
                yield address, entry

    @property
    def size(self) -> int:
        """The bytes that the entries take, by estimate."""
        return self._state.size

    def _keep(self, found: Iterable[tuple[Address, Entry]]) -> None:
        state, entries = self._state, self._state.entries
        for address, entry in found:
            old = entries.pop(address, None)
            if old is not None:
                state.size -= _weight(address, old)
            weight = _weight(address, entry)
            if weight <= self._budget // 8:
                entries[address] = entry
                state.size += weight
        while state.size > self._budget:
            oldest = next(iter(entries))
            state.size -= _weight(oldest, entries.pop(oldest))


def _weight(address: Address, entry: Entry) -> int:
    return len(address[0]) + len(address[1]) + len(entry.data) + _OVERHEAD_BYTES


def commits(header: bytes) -> int | None:
    """Return the count of commits in a header; `None`: it is not laid out as we know it."""
    if len(header) < HEADER_BYTES:
        return None
    layout, _, count = _PREFIX.unpack_from(header)
    return int(count) if layout == _LAYOUT else None
