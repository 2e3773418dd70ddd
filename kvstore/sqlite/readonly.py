"""Reads a file without writing anything, not even beside it.

SQLite's own read-only connection makes a log and its index beside a file in WAL mode, and fails
where it cannot. So how a file is opened depends on what lies beside it:

    plain  it has no write-ahead log: a backup, say. SQLite's locks do.
    live   somebody has it open: log and index are there, and SQLite uses them with its locks.
    left   nobody has, and a crash or a copy has left a filled log: it is read without locks, its
           index kept in memory (`locking_mode = EXCLUSIVE`; https://sqlite.org/wal.html#noshm).
    still  nobody has, and there is no log: it is read as one that never changes (`immutable`).

The last two are no longer true as soon as somebody opens the file for writing. So each read looks
before it, and again after it: where anything has changed, it is made anew in the new way. To tell
costs some microseconds.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar, TypeVarTuple

from kvstore.errors import StoreAccessError, StoreBusyError, StoreReplacedError
from kvstore.sqlite import driver
from kvstore.sqlite.connection import READ_TIMEOUT_S, Access, WorkerConnection, connect, translated
from kvstore.sqlite.guard import Hold, inode_of
from kvstore.sqlite.lineage import Written, stamp
from kvstore.sqlite.migrate import require_ready
from kvstore.sqlite.openfile import OpenFile

__all__ = ["ReadOnlyConnection", "ReadOnlyFile", "Source"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TRIES = 10  # of one read, while others open and close the file


class _Sight(NamedTuple):
    """How a file is to be opened, and by what it is told that this has changed."""

    access: Access
    file: Written = (0, 0)
    log: Written = (0, 0)


class ReadOnlyFile(OpenFile):
    """A file that is read, and never written; the connections to it come and go.

    Args:
        hold: of the file.
    """

    def __init__(self, hold: Hold) -> None:
        self.path = hold.path
        self.next_look = math.inf  # each read looks by itself
        self._hold = hold
        self._folder = self._log = self._claims = -1
        self._inode = hold.inode
        self._retired: list[driver.Connection] = []
        self._lock = threading.Lock()

    def look(self) -> None:
        """Make sure that the path still names the file that was opened."""
        self.state()

    def state(self) -> _Sight:
        """Return how the file is to be opened now.

        Raises:
            StoreReplacedError: it was removed or replaced.
            StoreAccessError: the file system does not answer.
        """
        try:
            if inode_of(self.path) != self._inode:
                raise StoreReplacedError(
                    f"{self.path} is no longer the file that was opened: it was removed, renamed "
                    "or replaced; open the store again"
                )
            if not self._hold.has_log:
                return _Sight("ro")
            has_index = Path(f"{self.path}-shm").exists()
            if has_index and _is_open(self._hold):
                return _Sight("ro", (1, 1))
            file, log = stamp(self.path)
            return _Sight("left" if log[0] else "still", file, log)
        except OSError as exc:
            raise StoreAccessError(f"{self.path} cannot be read: {exc.strerror}") from exc

    def connect(self, state: _Sight) -> driver.Connection:
        """Open a connection as a state wants it."""
        connection = connect(self.path, state.access, busy_timeout=READ_TIMEOUT_S)
        try:
            with translated(self.path):
                require_ready(connection, self.path)
        except BaseException:
            self.retire(connection, state)
            raise
        if state.file == (1, 1):
            self._hold.lock(READ_TIMEOUT_S)
        return connection

    def retire(self, connection: driver.Connection, state: _Sight) -> None:
        """Close a connection, now or when that takes no lock from others in this process.

        Of one without locks SQLite closes the descriptor at once, and with it go the locks that
        this process has on the file (https://sqlite.org/howtocorrupt.html, section 2.2).
        """
        if state.access == "ro":
            connection.close()
        else:
            with self._lock:
                self._retired.append(connection)

    def close(self) -> None:
        """Let go of the file; call it after the sources are closed."""
        with self._lock:
            retired, self._retired = self._retired, []
        self._hold.give_up()
        _abandoned.append((self._hold, retired))
        _tidy()


_abandoned: list[tuple[Hold, list[driver.Connection]]] = []


def _tidy() -> None:
    """Close what can be closed: where nobody has the file open, there is no lock to lose."""
    for at in range(len(_abandoned) - 1, -1, -1):
        hold, connections = _abandoned[at]
        if not connections or not _is_open(hold):
            del _abandoned[at]
            for connection in connections:
                connection.close()
            hold.end()


class Source:
    """Connections to a file that is read only, one at a time, for one thread at a time.

    Args:
        file: to read.
        prepare: called with each new connection, if given.
    """

    def __init__(
        self, file: ReadOnlyFile, prepare: Callable[[driver.Connection], None] | None
    ) -> None:
        self._file = file
        self._prepare = prepare
        self.connection: driver.Connection | None = None  # the present one
        self._state = _Sight("ro")

    def open(self) -> driver.Connection:
        """Return the present connection, or another one where the file is to be read otherwise.

        Raises:
            StoreError: the file cannot be opened.
        """
        state = self._file.state()
        if self.connection is not None and state == self._state:
            return self.connection
        self.close()
        connection = self._file.connect(state)
        try:
            if self._prepare is not None:
                self._prepare(connection)
        except BaseException:
            self._file.retire(connection, state)
            raise
        self.connection, self._state = connection, state
        return connection

    def run(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> T:
        """Run a read, and run it again if others have opened the file meanwhile.

        Raises:
            StoreBusyError: they did so each time.
        """
        for _ in range(_TRIES):
            connection = self.open()
            state = self._state
            try:
                result = read(connection, *args)
            except Exception:
                if self._file.state() == state:
                    raise
                continue  # what it met may be what others were doing
            if state.access == "ro" or self._file.state() == state:
                return result
        raise StoreBusyError(f"{self._file.path} is opened and closed all the time; retry")

    def close(self) -> None:
        """Close the present connection; the next read opens another one."""
        if self.connection is not None:
            self._file.retire(self.connection, self._state)
            self.connection = None

    def __del__(self) -> None:  # of a store that nobody has closed
        self.close()


class ReadOnlyConnection(WorkerConnection):
    """A source and the thread that reads from it."""

    def __init__(self, source: Source) -> None:
        # The thread is made for a connection of its own; this one is of no use.
        super().__init__(partial(driver.connect, "file::memory:"))
        self._source = source

    async def open(self) -> None:
        """Start the thread, and open the file in it."""
        await super().open()
        try:
            await asyncio.to_thread(self._source.open)
        except BaseException:
            await self.close()
            raise

    @property
    def raw(self) -> driver.Connection:
        """The connection that reads are made on."""
        assert self._source.connection is not None
        return self._source.connection

    def run(self, read: Callable[[driver.Connection], T]) -> T:
        """Run a read, on the thread."""
        return self._source.run(read)

    async def close(self) -> None:
        """End the thread."""
        await super().close()
        self._source.close()


def _is_open(hold: Hold) -> bool:
    """Whether somebody may have a file open, in this process or another one."""
    return hold.is_locked or hold.is_used is not False
