"""All states that a crash could leave, as far as SQLite can tell them apart.

There are far too many to open each: of forty writes that are not synced, every subset may be on
the disk. But SQLite reads but a part of it (https://sqlite.org/fileformat2.html, section 4):

- Of a log, what comes before the first frame that is not whole, up to the last commit. So of all
  the ways in which writes to it get lost, only the first loss counts, and how that write was torn.
- Of a database, no page that the log holds; but for those from which the store tells, without the
  log, whose log it is (`kvstore.sqlite.lineage`).

States that are alike in this are one class, of which one is opened. A test holds the classes of
short traces against those of all their states.
"""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from tests.faults.crash_states import SECTOR, Event, File, States

__all__ = ["AllStates", "raw_pages", "view_of"]

DATABASE, LOG = "store.db", "store.db-wal"
_HEADER = struct.Struct(">8I")  # magic, version, bytes of a page, checkpoints, two salts, two sums
_FRAME = struct.Struct(">6I")  # page, pages of the database after a commit, salts, sums
_MAGIC = 0x377F0682  # and one more where the sums are over big-endian numbers
PAGE = 4096  # bytes of a page, as all stores have them
_MOST_IN_FULL = 10  # unsynced writes of which all subsets are built


class _Log(NamedTuple):
    """What SQLite reads of a log: up to the last commit."""

    sums: tuple[int, int] = (0, 0)  # over all of it
    frames: int = 0
    pages: int = 0  # of the database
    held: frozenset[int] = frozenset()  # the numbers of the pages that it holds


@lru_cache(maxsize=8_000)
def _summed(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    first, second = sums
    for one, other in struct.iter_unpack(f"{order}II", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


def read_log(log: bytes) -> _Log:
    """Read a log as SQLite does."""
    if len(log) < _HEADER.size:
        return _Log()
    magic, _, page_bytes, _, *salts, first, second = _HEADER.unpack_from(log)
    order = ">" if magic & 1 else "<"
    sums = _summed(log[:24], (0, 0), order)
    if magic & ~1 != _MAGIC or sums != (first, second):
        return _Log()
    found, held = _Log(sums), set()
    at, frames = _HEADER.size, 0
    while at + _FRAME.size + page_bytes <= len(log):
        page, pages, *frame_salts, first, second = _FRAME.unpack_from(log, at)
        sums = _summed(log[at : at + 8], sums, order)
        sums = _summed(log[at + _FRAME.size : at + _FRAME.size + page_bytes], sums, order)
        if not page or frame_salts != salts or sums != (first, second):
            break
        at += _FRAME.size + page_bytes
        frames += 1
        held.add(page)
        if pages:
            found = _Log(sums, frames, pages, frozenset(held))
    return found


def view_of(state: Mapping[str, bytes], raw: frozenset[int]) -> bytes:
    """Return what SQLite and the store can see of a state, as a digest.

    Args:
        state: files, by name.
        raw: the pages of the database that are also read without the log.
    """
    digest = hashlib.blake2b(repr(sorted(state)).encode(), digest_size=16)
    others = {name: data for name, data in state.items() if name not in (DATABASE, LOG) and data}
    database, log = state.get(DATABASE, b""), state.get(LOG, b"")
    found = read_log(log)
    digest.update(repr((bool(database), bool(log), found[:3])).encode())
    for name in sorted(others):  # such as a journal, from which SQLite restores anything
        digest.update(b"%s\0%d\0" % (name.encode(), len(others[name])) + others[name])
    held = frozenset[int]() if others else found.held - raw
    for at in range(0, len(database), PAGE):
        if at // PAGE + 1 not in held:
            digest.update(b"%d\0" % at + database[at : at + PAGE])
    return digest.digest()


def raw_pages(events: Iterable[Event]) -> frozenset[int]:
    """Return the pages of a trace's database that are also read without the log.

    They are the first one, and the one in which the store keeps its numbers.
    """
    last = States(0, 1)
    found = {1}
    for event in events:
        last.take(event)
        if event.kind == "S" and event.name == DATABASE:
            found |= _page_of_numbers(bytes(last.names[DATABASE].certain))
    return frozenset(found)


def _page_of_numbers(database: bytes) -> set[int]:
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=".db") as file:
        file.write(database)
        file.flush()
        connection = sqlite3.connect(f"file:{file.name}?mode=ro&immutable=1", uri=True)
        try:
            rows = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'meta'")
            return {row[0] for row in rows}
        finally:
            connection.close()


class AllStates(States):
    """One state of each class, at each point of a trace.

    Args:
        raw: the pages of the database that are also read without the log.

    Attributes:
        stand_for: how many states the classes stand for, torn writes aside.
        sampled: at how many points there were too many after all, and some were chosen.
    """

    def __init__(self, seed: int, raw: frozenset[int]) -> None:
        super().__init__(seed, 64)
        self._raw = raw
        self.stand_for = 0
        self.sampled = 0
        self._of_log: list[tuple[Event, ...]] = [()]  # what may be kept of its unsynced writes ...
        self._known_logs: set[_Log] = set()  # ... each of which comes to another log
        self._is_log_simple = True  # no unsynced write is over another one

    @property
    def remark(self) -> str:
        chosen = f", but chosen ones at {self.sampled} points" if self.sampled else ""
        return f" for all {Decimal(self.stand_for):.1e}{chosen}"

    def digest(self, state: dict[str, bytes]) -> bytes:
        return view_of(state, self._raw)

    def take(self, event: Event) -> None:
        super().take(event)
        if event.name == LOG:
            self._follow_log()

    def _follow_log(self) -> None:
        """Keep the ways in which the log's unsynced writes may be lost."""
        file = self.names.get(LOG)
        pending = () if file is None else tuple(file.pending)
        if not pending:
            self._of_log, self._known_logs, self._is_log_simple = [()], set(), True
            return
        assert file is not None
        *before, newest = pending
        self._is_log_simple &= newest.kind == "W" and not any(
            each.kind == "T"
            or max(each.offset, newest.offset)
            < min(each.offset + len(each.data), newest.offset + len(newest.data))
            for each in before
        )
        ways = [pending, *((*before, torn) for torn in self._all_torn(newest))]
        if before:
            ways.append((*before[:-1], newest))
        for way in ways:
            log = read_log(file.after(way))
            if log not in self._known_logs:
                self._known_logs.add(log)
                self._of_log.append(way)

    def _all_torn(self, event: Event) -> Iterator[Event]:
        first = (event.offset // SECTOR + 1) * SECTOR
        for border in range(first - event.offset, len(event.data), SECTOR):
            yield Event("W", event.name, event.offset, event.data[:border])
            yield Event("W", event.name, event.offset + border, event.data[border:])

    def possible(self) -> Iterator[dict[str, bytes]]:
        for names in self.possible_names():
            self.stand_for += 2 ** sum(len(file.pending) for file in names.values())
            contents = [map(file.after, self._ways(name, file)) for name, file in names.items()]
            for chosen in itertools.product(*contents):
                yield dict(zip(names, chosen, strict=True))

    def _ways(self, name: str, file: File) -> list[tuple[Event, ...]]:
        """Return what may be kept of the unsynced writes of a file."""
        pending = file.pending
        if name == LOG and file is self.names.get(LOG) and self._is_log_simple:
            return self._of_log
        if name == DATABASE and len(pending) > 4 and self._is_covered(pending):
            return self._ways_of_database(pending)
        if len(pending) <= _MOST_IN_FULL:
            flags = itertools.product((False, True), repeat=len(pending))
            return [tuple(itertools.compress(pending, each)) for each in flags]
        self.sampled += 1
        return [tuple(pending), *(tuple(self.some(pending, number)) for number in range(1, 65))]

    def _is_covered(self, pending: list[Event]) -> bool:
        """Whether nobody reads what is written: the log holds it, or it is behind the end."""
        file = self.names.get(LOG)
        if file is None or file.pending:
            return False
        log = read_log(bytes(file.certain))
        return all(
            _page(event) in log.held if event.kind == "W" else event.offset >= log.pages * PAGE
            for event in pending
        )

    def _ways_of_database(self, pending: list[Event]) -> list[tuple[Event, ...]]:
        """Return ways to keep writes that nobody reads, but for a few of them."""
        read = [event for event in pending if _page(event) in self._raw]
        others = [event for event in pending if event not in read]
        ways = [
            (*some, *itertools.compress(read, flags))
            for some in ([], others, others[:-1], others[-1:])
            for flags in itertools.product((False, True), repeat=len(read))
        ]
        for event in {*read, pending[-1]}:
            ways += [(*others, torn) for torn in self._all_torn(event)]
        return ways


def _page(event: Event) -> int:
    return event.offset // PAGE + 1
