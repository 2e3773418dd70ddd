"""Connections: opened with their pragmas and functions, and the driver's errors made ours.

`WorkerConnection` is aiosqlite's connection with its thread, to which whole functions are posted:
one hop does any amount of work, where aiosqlite's own methods pay a hop for each statement.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import aiosqlite

from kvstore import codec
from kvstore.errors import (
    ReadOnlyError,
    StoreAccessError,
    StoreBusyError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    ValueTooLargeError,
)
from kvstore.patterns import compile_pattern
from kvstore.sqlite import codes, driver, statements
from kvstore.sqlite.filters import give_place, match_filter
from kvstore.sqlite.lineage import begin_log
from kvstore.sqlite.openfile import OpenFile
from kvstore.text import contains

__all__ = [
    "READ_TIMEOUT_S",
    "Access",
    "WorkerConnection",
    "claimed",
    "connect",
    "is_busy",
    "is_unclear",
    "limit",
    "release",
    "served_loop",
    "snapshot",
    "transaction",
    "translate",
    "translated",
]

T = TypeVar("T")
Access = Literal["ro", "rw", "rwc", "still", "left"]
_MODES: Mapping[Access, str] = {
    "ro": "mode=ro",
    "rw": "mode=rw",
    "rwc": "mode=rwc",
    "still": "mode=ro&immutable=1",
    "left": f"mode=ro&vfs={'win32' if os.name == 'nt' else 'unix'}-none",  # without locks
}

READ_TIMEOUT_S = 5.0  # reads wait for no writer, but for one that just writes the log's index
_BUSY_PAUSES_S = (0.0002, 0.004)  # SQLite's own growing pauses starve the unlucky
_MOST_STEPS = 1_000_000  # of SQLite's machine, of a statement on the loop's thread: some 20 ms
_CACHE_KIB = 8 * 1024  # pages a connection keeps; the rest is the operating system's cache


def connect(path: Path, access: Access, *, busy_timeout: float = 0.0) -> driver.Connection:
    """Open a connection.

    Args:
        path: the database file.
        access: `"ro"` reads, `"rw"` writes too, `"rwc"` also makes the file. `"still"` and
            `"left"` read a file that nobody else has open, without locks: see `readonly`.
        busy_timeout: how long SQLite itself waits for a lock, in seconds.

    Raises:
        StoreError: as `translated` has it.
    """
    with translated(path):
        connection = driver.connect(f"file:{quote(os.fsencode(path))}?{_MODES[access]}")
        try:
            if access == "left":
                connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            connection.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA trusted_schema = OFF")
            _add_functions(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def _add_functions(connection: driver.Connection) -> None:
    """Add what SQL alone would get wrong; the statements use these for rare rows only.

    What may hold a NUL comes as bytes: the driver cuts text arguments there.
    """

    def glob(pattern: bytes, key: bytes) -> bool:
        return compile_pattern(pattern.decode()).matches(key.decode())

    def holds(folded: bytes, key: bytes, value: str) -> bool:
        return contains(key.decode(), codec.decode(value.encode()), folded.decode())

    connection.create_function("kvstore_glob", 2, glob, deterministic=True)
    connection.create_function("kvstore_match", 2, match_filter, deterministic=True)
    connection.create_function("kvstore_place", 3, give_place, deterministic=True)
    connection.create_function("kvstore_contains", 3, holds, deterministic=True)


_thread = threading.local()


def served_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that the present thread works for, if it is a connection's."""
    loop: Callable[[], asyncio.AbstractEventLoop | None] | None = getattr(_thread, "loop", None)
    return None if loop is None else loop()


class WorkerConnection(aiosqlite.Connection):
    """A connection and the thread that works on it."""

    def __init__(self, connector: Callable[[], driver.Connection]) -> None:
        super().__init__(_Once(connector), iter_chunk_size=64)
        # A store that nobody closed must not keep the interpreter from ending.
        self._thread.daemon = True

    async def open(self) -> None:
        """Start the thread and connect.

        Raises:
            Exception: what the connector raised; the thread has ended then.
        """
        try:
            await self
            loop = asyncio.get_running_loop()
            self.post(lambda: setattr(_thread, "loop", weakref.ref(loop)))
        except BaseException:
            # aiosqlite tells its thread to stop, and does not wait for it.
            await asyncio.shield(asyncio.to_thread(self._thread.join))
            raise

    @property
    def raw(self) -> driver.Connection:
        """The driver's connection; only one thread may use it at a time."""
        return self._conn

    def __del__(self) -> None:
        """Close what nobody has any more.

        aiosqlite would warn, once for each connection, and ask for a loop that may not be there.
        """
        if self._connection is not None:
            self.abandon()

    def abandon(self, last: Callable[[], None] | None = None) -> None:
        """Have the thread finish what it has to do, then close and end; nobody waits for it.

        Args:
            last: to be called by the thread before that.
        """

        def end() -> None:
            try:
                if last is not None:
                    last()
            finally:
                self.stop()

        self._tx.put_nowait((None, _Once(end)))

    def join(self) -> None:
        """Wait for the thread to end, on another one."""
        self._thread.join()

    def run(self, read: Callable[[driver.Connection], T]) -> T:
        """Run a read, on the thread."""
        return read(self._conn)

    def post(self, work: Callable[[], None]) -> None:
        """Have the thread run `work`, which reports for itself and raises nothing."""
        self._tx.put_nowait((None, _Once(work)))


class _Once:
    """A function that lets go of itself when called.

    aiosqlite's thread remembers the last function it ran, and would keep a forgotten store alive.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._functions = [function]

    def __call__(self) -> Any:
        return self._functions.pop()()


def _begin(
    connection: driver.Connection,
    timeout: float,
    file: OpenFile | None,
    cursor: driver.Cursor | None,
) -> bool:
    """Begin a write transaction, as `transaction` has it; whether it had to wait.

    Short random pauses share the lock more fairly than SQLite's busy handler, whose pauses grow.
    """
    if connection.in_transaction:  # a ROLLBACK that failed, on a broken disk
        connection.execute("ROLLBACK")
    execute = connection.execute if cursor is None else cursor.execute
    deadline = 0.0
    while True:
        try:
            if file is None or file.claim():
                execute("BEGIN IMMEDIATE")
                return deadline != 0.0
            busy: Exception = _kept_locked(file)
        except BaseException as exc:
            if file is not None:
                file.release()
            if not (isinstance(exc, driver.Error) and is_busy(exc)):
                raise
            busy = exc
        deadline = deadline or time.monotonic() + timeout
        if time.monotonic() >= deadline:
            raise busy
        if file is not None and isinstance(busy, driver.Error):
            _have_index_rebuilt(connection)
        _pause()


def _kept_locked(file: OpenFile) -> StoreBusyError:
    return StoreBusyError(f"{file.path} is kept locked by another process; retry")


def _have_index_rebuilt(connection: driver.Connection) -> None:
    """Have SQLite rebuild the index if a process died while it wrote there.

    It cannot while we claim the file: that keeps others from doing so.
    """
    with suppress(driver.Error):
        connection.execute("PRAGMA schema_version").fetchall()


def _pause() -> None:
    time.sleep(random.uniform(*_BUSY_PAUSES_S))


class transaction:  # noqa: N801 - to be read as a word of the language
    """Run a block in one write transaction; gives whether it had to wait for the lock.

    Args:
        connection: with write access.
        timeout: how long to wait for other processes, in seconds.
        file: to be claimed until the end of the transaction; `None`: no other store has it open.
        cursor: of the connection, at rest; `None`: one is made.

    Raises:
        driver.Error: with `SQLITE_BUSY` after `timeout` seconds.
        StoreBusyError: the same, and SQLite does not know of it.
        StoreReplacedError: before the commit, that the path no longer names the file.
    """

    __slots__ = ("_base", "_before", "_connection", "_cursor", "_file", "_timeout")

    def __init__(
        self,
        connection: driver.Connection,
        timeout: float,
        file: OpenFile | None = None,
        cursor: driver.Cursor | None = None,
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._file = file
        self._cursor = cursor
        self._base: int | None = None  # the version that a new log begins with

    def __enter__(self) -> bool:
        connection, file = self._connection, self._file
        waited = _begin(connection, self._timeout, file, self._cursor)
        try:
            if file is not None and file.begins_log():
                (self._base,) = connection.execute(statements.GET_VERSION).fetchone() or (None,)
                self._before = connection.total_changes
        except BaseException:
            self._end()
            raise
        return waited

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, file = self._connection, self._file
        try:
            if kind is None:
                if self._base is not None and connection.total_changes != self._before:
                    begin_log(connection, self._base)
                if file is not None:
                    file.check()
                (self._cursor or connection).execute("COMMIT")
        finally:
            self._end()

    def _end(self) -> None:
        """Undo what is not committed, and let others write, whatever becomes of that."""
        try:
            if self._connection.in_transaction:  # a full disk rolls back by itself
                self._connection.execute("ROLLBACK")
        finally:
            if self._file is not None:
                self._file.release()


@contextmanager
def claimed(file: OpenFile, timeout: float, *, to_copy: bool = False) -> Iterator[None]:
    """Claim a file for a statement that is a write transaction or a checkpoint by itself.

    Args:
        file: which.
        timeout: how long to wait for others, in seconds.
        to_copy: whether it is a checkpoint.

    Raises:
        StoreBusyError: another process kept it for longer than that.
    """
    deadline = time.monotonic() + timeout
    while not file.claim(to_copy=to_copy):
        if time.monotonic() >= deadline:
            raise _kept_locked(file)
        _pause()
    try:
        yield
    finally:
        file.release()


@contextmanager
def snapshot(connection: driver.Connection) -> Iterator[None]:
    """Have all reads of a block see one state of the file; inside a transaction they do anyway."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def limit(connection: driver.Connection) -> None:
    """Have statements on this thread end after many steps, with SQLITE_INTERRUPT.

    For the event loop's own thread, which must never wait: what a statement takes long for, another
    thread does. Other threads' statements are not limited.
    """
    here = threading.get_ident()
    connection.set_progress_handler(lambda: threading.get_ident() == here, _MOST_STEPS)


def release(exc: BaseException) -> None:
    """Let go of what a read that failed has in hand.

    While somebody keeps the exception, it keeps the frames of the read alive, an unfinished
    statement among their variables, and with that the connection would see the past for ever.
    """
    traceback.clear_frames(exc.__traceback__)


def is_busy(exc: driver.Error) -> bool:
    """Whether another connection holds the lock."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (codes.SQLITE_BUSY, codes.SQLITE_LOCKED)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise the driver's errors as ours: the one seam between them."""
    try:
        yield
    except driver.Error as exc:
        raise translate(exc, path) from exc
    except UnicodeDecodeError as exc:  # SQLite's own message, which quotes what is damaged
        raise StoreCorruptError(f"{path} {_DAMAGED}") from exc


_NO_ROOM = (
    "cannot be written: no room on the disk, or a quota or file-size limit is reached; "
    "make room and try again"
)
_EXTENDED: dict[int, tuple[type[StoreError], str]] = {
    codes.SQLITE_IOERR: (StoreFullError, _NO_ROOM),  # what a COMMIT says of a file-size limit
    codes.SQLITE_IOERR_WRITE: (StoreFullError, _NO_ROOM),
    codes.SQLITE_IOERR_SHMSIZE: (StoreFullError, "cannot grow: no room on the disk; make room"),
    codes.SQLITE_IOERR_SHORT_READ: (StoreCorruptError, "is damaged: it ends too early"),
    codes.SQLITE_IOERR_CORRUPTFS: (StoreCorruptError, "is damaged, by the file system's word"),
}
_REFUSED = "is in order as far as is known, and SQLite refused a statement; please report this"
_LONGEST_PATH = 504  # bytes; SQLite's own limit is 512, and names of its side files are longer
_FILES_OF_A_CONNECTION = 4  # the file, its log, the log's index, and a journal
_DAMAGED = "is damaged, or no kvstore file; restore it from a backup"
_PRIMARY: dict[int, tuple[type[StoreError], str]] = {
    codes.SQLITE_BUSY: (
        StoreBusyError,
        "is kept locked by another process; retry, or raise busy_timeout",
    ),
    codes.SQLITE_LOCKED: (StoreBusyError, "is kept locked by another connection; retry"),
    codes.SQLITE_PROTOCOL: (StoreBusyError, "is kept locked by another process; retry"),
    codes.SQLITE_FULL: (StoreFullError, "cannot grow: the disk is full; make room and try again"),
    codes.SQLITE_CORRUPT: (StoreCorruptError, _DAMAGED),
    codes.SQLITE_NOTADB: (StoreCorruptError, "is not a database, or is damaged"),
    codes.SQLITE_FORMAT: (StoreCorruptError, _DAMAGED),
    codes.SQLITE_IOERR: (
        StoreAccessError,
        "cannot be read or written: the system reports an I/O error",
    ),
    codes.SQLITE_READONLY: (ReadOnlyError, "is read-only; check its permissions"),
    codes.SQLITE_PERM: (StoreAccessError, "may not be used; check its permissions"),
    codes.SQLITE_AUTH: (StoreAccessError, "may not be used; check its permissions"),
    codes.SQLITE_TOOBIG: (ValueTooLargeError, "takes no value that long"),
    codes.SQLITE_NOMEM: (StoreError, "cannot be used: out of memory"),
    codes.SQLITE_MISUSE: (StoreClosedError, "is closed"),
}


def translate(exc: driver.Error, path: Path) -> StoreError:
    """Return our error for one of the driver's, by its code and never by its text.

    Damage is what SQLite calls so. Where its word leaves open whose fault it is (`is_unclear`),
    `kvstore.sqlite.diagnosis` looks at the file.
    """
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    if code is None:  # raised by the driver itself, and not by SQLite
        if isinstance(exc, driver.ProgrammingError):
            return StoreClosedError(f"the connection to {path} is closed")
        return StoreError(f"{path}: the driver failed ({type(exc).__name__})")
    name = getattr(exc, "sqlite_errorname", code)
    if code & 0xFF == codes.SQLITE_CANTOPEN:
        return StoreAccessError(f"{path} cannot be opened: {_why_not_opened(path)} ({name})")
    kind, what = _EXTENDED.get(code) or _PRIMARY.get(code & 0xFF) or (StoreError, _REFUSED)
    return kind(f"{path} {what} ({name})")


def is_unclear(exc: driver.Error) -> bool:
    """Whether an error may come of a damaged row as well as of a statement of ours.

    SQLITE_ERROR is said of JSON that does not parse, of a table that is missing and of a statement
    that makes no sense; the driver gives no code where a text is not UTF-8.
    """
    code = getattr(exc, "sqlite_errorcode", None)
    if code is None:
        return not isinstance(exc, driver.ProgrammingError)
    return bool(code & 0xFF == codes.SQLITE_ERROR)


def _why_not_opened(path: Path) -> str:
    """Say what keeps SQLite from opening a file; its own word for it is always the same."""
    if not _has_descriptors():
        return "no more files can be open at once; close some, or raise the limit (ulimit -n)"
    length = len(os.fsencode(path))
    if os.name == "posix" and length > _LONGEST_PATH:
        return (
            f"SQLite takes no path longer than {_LONGEST_PATH} bytes, and this one has {length}; "
            "use a shorter one"
        )
    return "check that its directory exists and may be written"


def _has_descriptors() -> bool:
    """Whether so many more files can be open as a connection needs."""
    taken: list[int] = []
    try:
        for _ in range(_FILES_OF_A_CONNECTION):
            # Not the file itself: to close it would let go of all its locks.
            taken.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - one at a time: they are to be closed
    except OSError as exc:
        return exc.errno not in (errno.EMFILE, errno.ENFILE)
    finally:
        for handle in taken:
            os.close(handle)
    return True
