"""Keeps the locks of an open file, whatever else its process does with that file.

POSIX locks belong to a process and a file: closing *any* descriptor of a file drops all that the
process holds on it, also those of another library in the process, and SQLite cannot help it
(https://sqlite.org/howtocorrupt.html, sections 2.2 and 2.2.1). The next SQLite that closes the file
then believes to be the last one, and deletes the log under everybody else. Two rules prevent that,
and this module is their one home:

- **No descriptor is closed by hand while a connection in this process may have the file open.**
  Whoever looks into a database file does so through a `Hold`. Its descriptors are closed once
  `/dev/fd` tells that nobody else in the process has the file open.
- **While a store is open, its process holds locks that no `close` can drop**: those of open file
  descriptions (`F_OFD_SETLK`; Linux and macOS), on the bytes by which SQLite tells that a database
  and its index (`-shm`) are in use. They are given up just before the last connection closes, so
  that SQLite can empty and remove the log itself.

Another library's close also drops the locks of a transaction that is under way; against that, each
has a claim of its own (see `openfile`).
Windows has no such locks and needs none: there, a lock belongs to its descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Self

from kvstore.sqlite.locks import (
    CAN_LOCK,
    NO_SUCH_LOCKS,
    READ_LOCK,
    UNLOCK,
    WRITE_LOCK,
    Span,
    is_free,
    pack,
    set_lock,
)

__all__ = ["CAN_LOCK", "IS_POSIX", "Hold", "Inode", "count_open", "inode_of"]

Inode = tuple[int, int]  # of a file: its device and its number there

IS_POSIX = os.name == "posix"

# Bytes that SQLite locks and never reads (os.h and wal.c in https://sqlite.org/src).
_SHARED: Span = (0x40000002, 510)  # of a database; each connection in WAL mode locks them to read
_DEAD_MAN: Span = (128, 1)  # of an index; each process that has it open locks it to read

_INDEX_BYTES = 4096  # of an index that are mapped: its header; SQLite makes 32 KiB at least
_RETRY_S = 0.001
_MOST_DESCRIPTORS = 1 << 16


class Hold:
    """One user's part in the guard of a file: a store's, while it is open.

    It begins with the first call that finds the file there; calls raise `OSError` where it cannot
    be read.

    Attributes:
        path: of the file, with all links resolved.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard: _Guard | None = None

    def is_there(self) -> bool:
        """Whether there is a file."""
        if not IS_POSIX:
            return self.path.exists()
        if self._guard is None:
            with _registry.lock:
                self._guard = _registry.enter(self.path)
        return self._guard is not None

    def create(self, mode: int) -> None:
        """Make an empty file with these permissions, unless it is there; SQLite's others follow it.

        Args:
            mode: permission bits, whatever the umask is.
        """
        with suppress(FileExistsError), _registry.lock:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(self.path, flags, mode & 0o600)
            if IS_POSIX:
                self._guard = _registry.adopt(descriptor)
            else:
                os.close(descriptor)
            self.path.chmod(mode)

    @property
    def inode(self) -> Inode | None:
        """Which file is held."""
        return inode_of(self.path) if self._guard is None else self._guard.inode

    @property
    def index_inode(self) -> Inode | None:
        """Which index is held, once the file is locked with it."""
        return None if self._guard is None else self._guard.index_inode

    @property
    def shares_index(self) -> bool:
        """Whether the index that is held is the one that SQLite has open in this process."""
        return self._guard is None or self._guard.index_openers != 0

    def read(self, length: int) -> bytes:
        """Return the first bytes of the file; none if it is not there."""
        if not self.is_there():
            return b""
        if self._guard is not None:
            return self._guard.read(length)
        with self.path.open("rb") as file:
            return file.read(length)

    @property
    def has_log(self) -> bool:
        """Whether the file says of itself that it is in WAL mode."""
        return (
            self.read(20)[18:] == b"\2\2"
        )  # https://sqlite.org/fileformat2.html#file_format_version_numbers

    def lock(self, timeout: float, *, with_index: bool = True) -> bool:
        """Lock the file and its index against being taken for unused; whether that worked.

        Where the system has no such locks that is no failure; `is_locked` tells.

        Args:
            timeout: how long to wait for somebody who is just closing the file, in seconds.
            with_index: `False`: leave the index alone, because no connection of this process has
                it open yet. SQLite takes an index that is locked for sound, whatever a crash did.
        """
        deadline = time.monotonic() + timeout
        while True:
            if self.is_there():
                if self._guard is None:
                    return True
                with _registry.lock:
                    if self._guard.lock(self.path, with_index):
                        self._guard.lockers.add(id(self))
                        return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_RETRY_S)

    @property
    def is_locked(self) -> bool:
        """Whether locks are held that no `close` can drop."""
        return self._guard is not None and self._guard.is_locked

    @property
    def is_used(self) -> bool | None:
        """Whether a connection has the file open, of whatever library or process.

        `None`: this system cannot tell.
        """
        return self._guard.is_used() if self.is_there() and self._guard is not None else None

    def lock_out(self) -> bool:
        """Keep all others from opening the file, until `end`; whether nobody has it open."""
        if not self.is_there() or self._guard is None:
            return True
        with _registry.lock:
            return self._guard.lock_out(id(self))

    def map_index(self) -> mmap | None:
        """Return a view of the index's first bytes, valid until `end`; `None`: there is none.

        A mapping has a descriptor of its own, to which the rule applies, too: do not close it.
        """
        if self._guard is None:
            return None
        with _registry.lock:
            return self._guard.map_index()

    def lend_index(self) -> int:
        """Return a descriptor of the index, for locks that this hold alone takes.

        -1: there is none, or this system has no such locks. Give it back, and do not close it.
        """
        if self._guard is None:
            return -1
        with _registry.lock:
            return self._guard.lend_index(self.path)

    def take_back(self, descriptor: int) -> None:
        """Take back what was lent, unlocked."""
        if self._guard is not None:
            self._guard.take_back(descriptor)

    def give_up(self) -> None:
        """Unlock, unless somebody else needs it; call it before the last connection closes."""
        if self._guard is not None:
            with _registry.lock:
                self._guard.give_up(id(self))

    def end(self) -> None:
        """Let go of the file; call it after the last connection has closed."""
        guard, self._guard = self._guard, None
        if guard is not None:
            with _registry.lock:
                _registry.leave(guard, id(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __del__(self) -> None:  # of a store that nobody has closed
        guard: _Guard | None = getattr(self, "_guard", None)
        if guard is not None:
            _registry.drop(guard, id(self))


class _Guard:
    """The descriptors of a file and the locks on them, shared by all holds of it."""

    def __init__(self, file: int, inode: Inode) -> None:
        self.inode = inode
        self.holds = 0
        self.lockers: set[int] = set()  # those holds that need the locks
        self.is_locked = False
        self._is_closed = False  # also in a forked child
        self._locks_out: int | None = None  # the hold that keeps all others out
        self._files = [file]
        self._indexes: list[tuple[int, Inode]] = []  # descriptors; the last is of the present one
        self._maps: list[tuple[mmap, Inode]] = []  # of indexes; the last one's
        self._lendable: list[tuple[int, Inode]] = []  # descriptors of indexes, for one hold each
        self._idle: list[tuple[int, Inode]] = []  # those of them that nobody has now

    def add(self, descriptor: int) -> None:
        """Keep one more descriptor of the file: it must not be closed, either."""
        self._files.append(descriptor)

    def read(self, length: int) -> bytes:
        return b"" if self._is_closed else os.pread(self._files[0], length, 0)

    def lock(self, path: Path, with_index: bool) -> bool:
        if self._is_closed:
            return True
        if self._locks_out is not None:
            return False
        if with_index and not self._find_index(path):
            return False
        try:
            if CAN_LOCK and not set_lock(self._files[0], pack(READ_LOCK, _SHARED)):
                return False
            if with_index and CAN_LOCK:
                self.is_locked = set_lock(self._indexes[-1][0], pack(READ_LOCK, _DEAD_MAN))
                return self.is_locked
        except OSError as exc:
            if exc.errno not in NO_SUCH_LOCKS:
                raise
        return True

    def _find_index(self, path: Path) -> bool:
        """Open the index that lies beside the file now."""
        inode = inode_of(index := Path(f"{path}-shm"))
        if inode is None:
            return False
        if not self._indexes or self._indexes[-1][1] != inode:
            descriptor = _open(index)
            self._indexes.append((descriptor, _inode(os.fstat(descriptor))))
        return True

    def is_used(self) -> bool | None:
        if self._is_closed or not CAN_LOCK:
            return None
        try:
            return not is_free(self._files[0], _SHARED)
        except OSError:
            return None

    def lock_out(self, locker: int) -> bool:
        if self.lockers or self._is_closed or self._locks_out is not None:
            return False
        try:
            if CAN_LOCK and not set_lock(self._files[0], pack(WRITE_LOCK, _SHARED)):
                return False
        except OSError as exc:
            if exc.errno not in NO_SUCH_LOCKS:
                raise
        self._locks_out = locker
        return True

    def map_index(self) -> mmap | None:
        if self._is_closed or not self._indexes:
            return None
        descriptor, inode = self._indexes[-1]
        if not self._maps or self._maps[-1][1] != inode:
            self._maps.append((mmap(descriptor, _INDEX_BYTES, access=ACCESS_READ), inode))
        return self._maps[-1][0]

    def lend_index(self, path: Path) -> int:
        if not self.is_locked or self._is_closed:
            return -1
        inode = self.index_inode
        for at, (descriptor, of) in enumerate(self._idle):
            if of == inode:
                del self._idle[at]
                return descriptor
        descriptor = _open(Path(f"{path}-shm"))
        self._lendable.append((descriptor, _inode(os.fstat(descriptor))))
        return descriptor

    def take_back(self, descriptor: int) -> None:
        self._idle += [each for each in self._lendable if each[0] == descriptor]

    def leave(self, locker: int) -> None:
        """Take note that a hold has ended."""
        self.holds -= 1
        self.lockers.discard(locker)
        if self._locks_out == locker:
            self.unlock()

    def give_up(self, locker: int) -> None:
        self.lockers.discard(locker)
        if not self.lockers and not self._is_closed and not self._has_strangers():
            self.unlock()

    def unlock(self) -> None:
        self.is_locked = False
        self._locks_out = None
        if CAN_LOCK and not self._is_closed:
            with suppress(OSError):
                set_lock(self._files[0], pack(UNLOCK, _SHARED))
                for descriptor, _ in self._indexes:
                    set_lock(descriptor, pack(UNLOCK, _DEAD_MAN))

    @property
    def index_inode(self) -> Inode | None:
        return self._indexes[-1][1] if self._indexes else None

    @property
    def index_openers(self) -> int:
        """How many have the index open in this process, but for the guard itself; -1: no index."""
        inode = self.index_inode
        return -1 if inode is None else count_open(inode) - self._own()[inode]

    def _has_strangers(self) -> bool:
        """Whether another SQLite library in this process has the file open beside ours.

        A library opens an index once, for all of its connections.
        """
        return self.index_openers > 1

    def _own(self) -> Counter[Inode]:
        """Count the descriptors that are the guard's own."""
        own = Counter(inode for _, inode in self._indexes)
        own[self.inode] += len(self._files)
        own.update(inode for _, inode in (*self._maps, *self._lendable))
        return own

    def is_alone(self, counts: Counter[Inode]) -> bool:
        """Whether nobody else in this process has the file or its index open."""
        return all(counts[inode] <= number for inode, number in self._own().items())

    def close(self, *, in_child: bool = False) -> None:
        if not in_child:  # where the locks are the parent's
            self.unlock()
        self._is_closed = True
        for view, _ in self._maps:
            with suppress(BufferError):  # somebody still looks at it
                view.close()
        self._maps.clear()
        for descriptor in (*self._files, *(each for each, _ in self._indexes + self._lendable)):
            os.close(descriptor)


class _Registry:
    """The guards of this process: one for each file that is open, or that was looked into."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._guards: dict[Inode, _Guard] = {}
        self._dropped: list[tuple[_Guard, int]] = []  # holds that the collector has found
        self._is_tidying = False

    def enter(self, path: Path) -> _Guard | None:
        """Give a share of the guard of the file that a path names now."""
        inode = inode_of(path)
        if inode is None:
            return None
        guard = self._guards.get(inode)
        if guard is None:
            return self.adopt(_open(path))
        guard.holds += 1
        return guard

    def adopt(self, descriptor: int) -> _Guard:
        """Give a share of the guard of a file that was just opened."""
        inode = _inode(os.fstat(descriptor))
        guard = self._guards.get(inode)
        if guard is None:
            guard = self._guards[inode] = _Guard(descriptor, inode)
        else:  # it was renamed meanwhile
            guard.add(descriptor)
        guard.holds += 1
        return guard

    def leave(self, guard: _Guard, locker: int) -> None:
        """Take a share back."""
        guard.leave(locker)
        self._tidy()

    def drop(self, guard: _Guard, locker: int) -> None:
        """Take a share back that the collector has found, in whatever thread it came."""
        self._dropped.append((guard, locker))
        if self.lock.acquire(blocking=False):
            try:
                self._tidy()
            finally:
                self.lock.release()

    def _tidy(self) -> None:
        """Close the descriptors that nobody holds, where nobody else has the file open."""
        if self._is_tidying:  # the collector came meanwhile
            return
        self._is_tidying = True
        try:
            while self._dropped:
                guard, locker = self._dropped.pop()
                guard.leave(locker)
            idle = [guard for guard in self._guards.values() if guard.holds <= 0]
            counts = _open_inodes() if idle else Counter()
            for guard in idle:
                if guard.is_alone(counts):
                    del self._guards[guard.inode]
                    guard.close()
        finally:
            self._is_tidying = False

    def forked(self) -> None:
        """In a child: close what it inherited, which drops no lock: a child has none."""
        for guard in self._guards.values():
            guard.close(in_child=True)
        self.__init__()  # type: ignore[misc]


_registry = _Registry()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_registry.forked)


def inode_of(path: Path) -> Inode | None:
    """Return which file a path names, `None` if there is none.

    Raises:
        OSError: that cannot be found out.
    """
    try:
        return _inode(path.stat())
    except FileNotFoundError:
        return None


def count_open(inode: Inode) -> int:
    """Return how many descriptors of a file this process has."""
    return _open_inodes()[inode]


def _inode(found: os.stat_result) -> Inode:
    return found.st_dev, found.st_ino


def _open(path: Path) -> int:
    """Open a file to look into it and to lock it."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags)
    except OSError as exc:
        if exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | flags)


def _open_inodes() -> Counter[Inode]:
    """Count, for each file, the descriptors that this process has of it."""
    numbers: Iterable[int]
    try:
        numbers = [int(each.name) for each in Path("/dev/fd").iterdir()]
    except (OSError, ValueError):
        numbers = range(min(os.sysconf("SC_OPEN_MAX"), _MOST_DESCRIPTORS))
    counts: Counter[Inode] = Counter()
    for number in numbers:
        with suppress(OSError):
            counts[_inode(os.fstat(number))] += 1
    return counts
