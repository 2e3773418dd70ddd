"""The file that a store has open: is it still the one that its path names, and whose turn is it.

SQLite does not notice that a file, or its log, was removed, renamed or replaced under it, and goes
on writing to what nobody will ever read (https://sqlite.org/howtocorrupt.html, section 4). So each
transaction asks before it commits, and each read from time to time. Nearly always, one call of the
system answers: as long as no name in the directory has changed, none of ours has. What happens
further up (a file system that is unmounted, a directory that is renamed) takes nothing away, and is
noticed by the next look.

Nor can SQLite keep its locks in a transaction when another library in the process closes the file
(see `guard`). So a transaction also claims the log by a lock that no other descriptor can drop. It
is on those bytes of the index that SQLite locks to make a checkpoint, and to rebuild an index that
it finds half written. Whatever becomes of SQLite's own locks, then:

- Two of kvstore's processes never write at once.
- Nobody starts the log over under a transaction, or rebuilds its index to what it was before: not
  the other library, which finds no lock of its own process in its way, nor another process.

A checkpoint of ours claims the second byte alone, as SQLite itself must lock the first.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from mmap import mmap
from pathlib import Path
from time import monotonic, time_ns
from typing import NamedTuple, NoReturn

from kvstore.errors import StoreAccessError, StoreBusyError, StoreReplacedError
from kvstore.sqlite import locks
from kvstore.sqlite.guard import IS_POSIX, Hold, Inode, count_open, inode_of

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

__all__ = ["OpenFile"]

LOOK_S = 0.25  # who reads or writes looks at least this often
_SETTLED_NS = 50_000_000  # a change may have the same time as another within a kernel's tick
_INDEX_HEADER = struct.Struct("=14xHI12x8s")  # page size, frames, salts; walformat.html, 2.3
_INDEX_HEADER_BYTES = 48
# Where an index has, in its numbers of 4 bytes, how many frames the log has, and how many of them
# are copied into the file; and in those of 8 bytes, its header's checksum
_FRAMES_AT, _COPIED_AT, _SUM_AT = 16 // 4, 96 // 4, 40 // 8
_NUMBERS_BYTES = 104
# Bytes of an index (wal.c): that of checkpoints, and that of rebuilding it
_CHECKPOINT_BYTE, _RECOVERY_BYTE = 121, 122
_CLAIM = locks.pack(locks.WRITE_LOCK, (_CHECKPOINT_BYTE, 2))
_CLAIM_TO_COPY = locks.pack(locks.WRITE_LOCK, (_RECOVERY_BYTE, 1))
_UNCLAIM = locks.pack(locks.UNLOCK, (_CHECKPOINT_BYTE, 2))
_FRAME_HEADER_BYTES, _LOG_HEADER_BYTES = 24, 32


class _Claim(NamedTuple):
    """Calls of the system that claim a log; what is in the way is an `OSError`."""

    take: Callable[[], object]
    take_to_copy: Callable[[], object]
    give_back: Callable[[], object]


def _nothing() -> None:
    """Claim nothing: the file is not open, or nobody could take the log away."""


_NO_CLAIM = _Claim(_nothing, _nothing, _nothing)


class OpenFile:
    """A file of which connections are open.

    Args:
        hold: of the file, and locked.

    Raises:
        StoreReplacedError: the file was removed or replaced while it was being opened.
        StoreAccessError: the file system does not answer.
    """

    def __init__(self, hold: Hold) -> None:
        self.path = hold.path
        self.next_look = 0.0  # by `time.monotonic`
        self._hold = hold
        self._log_path = Path(f"{hold.path}-wal")
        self._index_path = Path(f"{hold.path}-shm")
        self._folder = self._log = self._claims = -1
        self._claim = _NO_CLAIM
        self._index: mmap | None = None
        self._numbers: memoryview | None = None  # of the index, 4 bytes each
        self._sums: memoryview | None = None  # the same, 8 bytes each
        self._sum: int | None = None  # of the index's header, in a transaction
        self._unchanged_since = -1  # the directory's time of change, if it can be trusted
        if not IS_POSIX:  # there, nobody can remove a file that is open
            return
        try:
            self._folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            self._log = os.open(self._log_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._is_gone()
        except OSError as exc:
            raise StoreAccessError(f"{self.path} cannot be opened: {exc.strerror}") from exc
        self._log_inode = _inode(self._log)
        self._index_inode = hold.index_inode
        self._index = hold.map_index()
        if self._index is not None:
            numbers = memoryview(self._index)[:_NUMBERS_BYTES]
            self._numbers, self._sums = numbers.cast("I"), numbers.cast("Q")
        self._claims = hold.lend_index()
        self._claim = self._how_to_claim()
        self.look()
        if count_open(self._log_inode) < 2:  # SQLite has another one open
            self._is_gone("its log was replaced")
        if not hold.shares_index:
            self._is_gone("its log's index was replaced")

    def check(self) -> None:
        """Make sure, before a commit, that what is written now can be found again.

        Raises:
            StoreReplacedError: it could not.
            StoreBusyError: somebody else has written during the transaction.
        """
        if IS_POSIX and (
            os.fstat(self._folder).st_ctime_ns != self._unchanged_since
            or monotonic() >= self.next_look
        ):
            self.look()
        sum = self._sum
        if sum is not None and self._sums is not None and self._sums[_SUM_AT] != sum:
            raise StoreBusyError(
                f"another program wrote to {self.path} during a transaction, which SQLite cannot "
                "have locked any more: another library in this process has closed the file. "
                "Nothing of the transaction is written; retry"
            )

    def look(self) -> None:
        """Look at everything: the directory, the file, its header, its log.

        Raises:
            StoreReplacedError: it is not what was opened.
            StoreAccessError: the file system does not answer.
        """
        self.next_look = monotonic() + LOOK_S
        if not IS_POSIX:
            return
        now = time_ns()
        try:
            changed = os.fstat(self._folder).st_ctime_ns  # before the rest: what follows is newer
            file = inode_of(self.path)
            log = inode_of(self._log_path)
            index = inode_of(self._index_path)
            ours = self._hold.inode, self._log_inode, self._index_inode
            if (file, log, index if self._index_inode else None) != ours:
                self._tell(file, log, index)
            if not self._hold.has_log:
                self._is_gone("another file was copied over it")
            if not self._log_is_whole():
                self._is_gone("its log was cut off")
        except OSError as exc:
            raise StoreAccessError(f"{self.path} cannot be reached: {exc.strerror}") from exc
        self._unchanged_since = changed if now - changed > _SETTLED_NS else -1

    def _tell(self, file: Inode | None, log: Inode | None, index: Inode | None) -> NoReturn:
        if file is None and not self.path.parent.is_dir():
            self._is_gone("its directory is gone")
        if file is None:
            self._is_gone("it was removed or renamed")
        if file != self._hold.inode:
            self._is_gone("it was replaced by another file")
        what, now, name = "its log", log, self._log_path.name
        if log == self._log_inode:  # others would make another index, and not see what is in ours
            what, now, name = "its log's index", index, self._index_path.name
        self._is_gone(f"{what} {name} was {'removed' if now is None else 'replaced'}")

    def _is_gone(self, what: str = "it was removed or renamed") -> NoReturn:
        raise StoreReplacedError(
            f"{self.path} is no longer the file that was opened: {what}. Nothing more is read or "
            "written; close the store, and see to the file before you open it again"
        )

    def _log_is_whole(self) -> bool:
        """Whether the log holds what its index speaks of."""
        index = self._index
        if index is None:
            return True
        while True:
            header = index[:_INDEX_HEADER_BYTES]
            page_bytes, frames, salts = _INDEX_HEADER.unpack_from(header)
            frame_bytes = (65_536 if page_bytes == 1 else page_bytes) + _FRAME_HEADER_BYTES
            log_header = os.pread(self._log, _LOG_HEADER_BYTES, 0)
            log_bytes = os.fstat(self._log).st_size
            if index[:_INDEX_HEADER_BYTES] == header:  # else somebody has written meanwhile
                break
        return not frames or (
            log_header[16:24] == salts and log_bytes >= _LOG_HEADER_BYTES + frames * frame_bytes
        )

    def begins_log(self) -> bool:
        """Take note that a transaction has begun; whether the file holds all that is in the log."""
        numbers, sums = self._numbers, self._sums
        if numbers is None or sums is None:
            return False
        if numbers[_FRAMES_AT] == numbers[_COPIED_AT]:
            self._sum = None  # a transaction may start the log over by itself
            return True
        self._sum = sums[_SUM_AT]
        return False

    @property
    def pages_to_copy(self) -> int | None:
        """How many pages of the log are not yet copied into the file; `None`: nobody knows."""
        numbers = self._numbers
        return None if numbers is None else numbers[_FRAMES_AT] - numbers[_COPIED_AT]

    @property
    def owns_log(self) -> bool:
        """Whether log and index of those names are the file's own, which SQLite may remove."""
        if not IS_POSIX:
            return True
        with suppress(OSError):
            return inode_of(self._log_path) in (None, self._log_inode) and (
                inode_of(self._index_path) in (None, self._index_inode)
            )
        return False

    def claim(self, *, to_copy: bool = False) -> bool:
        """Claim the log for a transaction that is about to begin; whether nobody else writes.

        Before, and not after: what SQLite then finds to be the latest state is, and stays so.

        Args:
            to_copy: claim it for a checkpoint.
        """
        claim = self._claim
        try:
            claim.take_to_copy() if to_copy else claim.take()
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without such locks
            pass
        return True

    def release(self) -> None:
        """Give the log back, after the transaction's end."""
        try:
            self._claim.give_back()
        except OSError:  # a file system without such locks
            return

    def _how_to_claim(self) -> _Claim:
        """Return the calls themselves: two of them come with each transaction."""
        if self._claims >= 0:
            calls = (_CLAIM, _CLAIM_TO_COPY, _UNCLAIM)
            return _Claim(*(locks.call_for(self._claims, each) for each in calls))
        take = partial(flock, self._log, LOCK_EX | LOCK_NB)
        return _Claim(take, take, partial(flock, self._log, LOCK_UN))

    def close(self) -> None:
        """Let go; in a forked child, this takes nothing from the parent."""
        for descriptor in (self._folder, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        if self._claims >= 0:
            self._hold.take_back(self._claims)
        self._folder = self._log = self._claims = -1
        self._claim = _NO_CLAIM
        self._index = self._numbers = self._sums = None

    def __del__(self) -> None:
        self.close()


def _inode(descriptor: int) -> Inode:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
