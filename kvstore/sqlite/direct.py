"""A SQLite store without an event loop: its coroutines never wait, on whatever thread they run.

A hop to a thread and back costs several times what SQLite takes for a small read or write, so sync
code does not make it: the very functions that `SQLiteStore` runs on its threads run here on the
caller's. A read has a connection to itself while it lasts; writers take turns at one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from kvstore.errors import InvalidArgumentError, StoreClosedError, WrongLoopError
from kvstore.filters import Filter
from kvstore.operations import Operation, Sweep
from kvstore.patterns import Pattern
from kvstore.sqlite import driver, forks, reading
from kvstore.sqlite.connection import connect, release, transaction
from kvstore.sqlite.diagnosis import explain
from kvstore.sqlite.indexing import begin_batch
from kvstore.sqlite.readonly import Source
from kvstore.sqlite.store import SQLiteStore
from kvstore.store import NamespaceQuery, Page, Selection, pause_s
from kvstore.types import Item, Namespace

__all__ = ["DirectSQLiteStore", "run_directly"]

P = ParamSpec("P")
T = TypeVar("T")

_READ_TIMEOUT_S = 5.0  # reads wait for no writer, but for a recovery after a crash
_IDLE_READERS = 8  # connections kept for the next readers
_SWEEP_SLICE = 500  # expired rows deleted behind a write, at most


def run_directly(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, here and now.

    Raises:
        InvalidArgumentError: it does wait, for an async function that the caller gave.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise InvalidArgumentError(
        "sync code takes plain functions, which await nothing; AsyncKeyValueStore takes async ones"
    )


class DirectSQLiteStore(SQLiteStore):
    """The twin of a `SQLiteStore`, for sync code: any thread may use it, inside a loop or not."""

    _is_usable = False
    _opens_itself = False  # with the first call: a copy, or in a forked child
    _lock: threading.RLock
    _is_writing: bool  # by the thread that has the lock
    _is_ending: bool  # closed in the middle of a write, to be closed after it
    _writer_connection: driver.Connection
    _readers: list[driver.Connection]
    _idle: list[driver.Connection]  # those of `_readers` that nobody reads on now
    _swept_at: float

    @classmethod
    def like(cls, store: SQLiteStore) -> Self:
        """Return a twin with the options of a store that is not open."""
        twin = cls.__new__(cls)
        vars(twin).update(vars(store))
        twin._begin()
        return twin

    def _begin(self) -> None:
        """Have no connection, and nobody at work."""
        self._lock = threading.RLock()
        self._is_writing = False
        self._is_ending = False
        self._readers = []
        self._idle = []
        self._sources: list[Source] = []  # the same two of a store that is read-only
        self._idle_sources: list[Source] = []

    def _recipe(self) -> Any:
        _, *arguments = super()._recipe()
        return SQLiteStore, *arguments

    # Lifecycle

    def open_now(self) -> None:
        """Open the store; the errors are those of `Store.open`."""
        file = self._choose_file()
        if self._read_only:
            self._opened = self._look_into(file)
            self._when_dropped(self._opened.close)
            self._is_usable = True
            try:
                self._read(lambda connection: None)
            except BaseException:
                self.close_now()
                raise
            forks.remember(self)
            return
        try:
            self._writer_connection = self._connect_writer(file)
        except BaseException:
            self._discard_temporary()
            raise
        self._swept_at = time.monotonic()
        self._is_usable = True
        forks.remember(self)
        self._when_dropped(_abandon, self._readers, self._ending(self._writer_connection))

    def close_now(self) -> None:
        """Close the store, once the write that may be under way is done.

        A signal handler or a finalizer may call this in the middle of a write of its own thread,
        which then closes the store at its end.
        """
        with self._lock:
            self._is_ending = self._is_writing
            if self._is_writing:
                return
            self._opens_itself = False
            if not self._is_usable:
                return
            self._is_usable = False
            forks.forget(self)
            self._finalizer.detach()
            while self._idle:
                self._idle.pop().close()
            if self._read_only:
                while self._idle_sources:
                    self._idle_sources.pop().close()
                self._opened.close()
                return
            self._before_last_close()
            self._writer_connection.close()
            self._let_go()
            self._discard_temporary()

    def _held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        if self._read_only:
            if len(self._idle_sources) != len(self._sources):
                return None
            return self._file, [each.connection for each in self._sources if each.connection]
        if self._is_writing or len(self._idle) != len(self._readers):
            return None
        return self._file, (*self._idle, self._writer_connection)

    def _disown(self) -> None:
        self._begin()
        self._is_usable = False
        self._finalizer.detach()
        self._opened.close()
        self._opens_itself = True
        self._is_left_behind = self._temporary is not None
        self._temporary = None

    def open_later(self) -> None:
        """Open the store with the first call."""
        self._opens_itself = True

    def _require_open(self) -> None:
        if not self._is_usable:
            self._open_at_last()
        if time.monotonic() >= self._opened.next_look:
            self._opened.look()

    def _open_at_last(self) -> None:
        with self._lock:
            if self._is_usable:
                return  # another thread was faster
            if not self._opens_itself:
                raise StoreClosedError(f"the KeyValueStore on {self.path} is closed")
            self._require_here()
            self.open_now()

    # Read

    def _read(
        self,
        read: Callable[Concatenate[driver.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read on a connection that no other thread uses meanwhile."""
        self._require_open()
        if self._read_only:
            return self._read_only_once(lambda connection: read(connection, *args, **kwargs))
        try:
            connection = self._idle.pop()
        except IndexError:
            self._opened.look()
            connection = connect(self._file, "ro", busy_timeout=_READ_TIMEOUT_S)
            self._readers.append(connection)
        try:
            return read(connection, *args, **kwargs)
        except driver.Error as exc:
            release(exc)
            raise explain(exc, self._opened, connection) from exc
        except BaseException as exc:
            release(exc)
            raise
        finally:
            if self._is_usable and len(self._idle) < _IDLE_READERS:
                self._idle.append(connection)
            else:
                self._readers.remove(connection)
                connection.close()

    def _read_only_once(self, read: Callable[[driver.Connection], T]) -> T:
        try:
            source = self._idle_sources.pop()
        except IndexError:
            source = self._source()
            self._sources.append(source)
        try:
            return source.run(read)
        except driver.Error as exc:
            release(exc)
            assert source.connection is not None
            raise explain(exc, self._opened, source.connection) from exc
        except BaseException as exc:
            release(exc)
            raise
        finally:
            if self._is_usable and len(self._idle_sources) < _IDLE_READERS:
                self._idle_sources.append(source)
            else:
                self._sources.remove(source)
                source.close()

    def _peek(self, namespace: Namespace, path: str, key: str) -> list[Item]:
        return self._read(reading.get_one, namespace, path, key, self._now())

    async def _get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        return self._read(reading.get_many, namespace, path, keys, self._now())

    async def _select(self, path: str, selection: Selection) -> list[Item]:
        return self._read(reading.select, path, selection, self._now())

    async def _list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        return self._read(reading.list_namespaces, asked, limit, offset, self._now())

    async def _keys(
        self, path: str, pattern: Pattern, subtree: bool, limit: int | None
    ) -> list[str]:
        return self._read(reading.keys, path, pattern, subtree, limit, self._now())

    async def _count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        return self._read(reading.count, path, pattern, subtree, self._now())

    async def _page(
        self,
        path: str,
        pattern: Pattern,
        filter: Filter,
        subtree: bool,
        after: tuple[str, str] | None,
        limit: int,
    ) -> Page:
        now = self._now()
        return self._read(reading.page, path, pattern, filter, subtree, after, limit, now)

    # Write

    async def _apply(self, ops: Sequence[Operation]) -> list[Any]:
        with self._lock:
            self._require_turn()
            try:
                self._is_writing = True
                outcome: list[Any] | Exception = self._write(ops)
            finally:
                self._is_writing = False
                if self._is_ending:
                    self.close_now()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _require_turn(self) -> None:
        """Raise if this thread, which has the lock, is in the middle of a write; see `close_now`.

        The lock lets its own thread in again, so that nothing waits for itself.
        """
        self._require_open()
        if self._is_writing:
            raise WrongLoopError(
                f"this thread is in the middle of a write to {self.path}, interrupted by a signal "
                "handler or a finalizer that writes there, too; have that take a note, and do it "
                "after the write or in another thread"
            )

    def _write(self, ops: Sequence[Operation]) -> Any:
        connection = self._writer_connection
        units: list[Sequence[Operation]] = [ops]
        if self._is_sweep_due():
            units.append((Sweep(_SWEEP_SLICE),))
        try:
            with transaction(connection, self._busy_timeout, self._opened):
                batch = begin_batch(connection, self._now(), None, None)
                outcome = batch.apply(units)[0]
                batch.finish()
            batch.committed()
        except driver.Error as exc:
            raise explain(exc, self._opened, None) from exc
        return outcome

    def _is_sweep_due(self) -> bool:
        """Whether the rows of expired items should go along with the present write."""
        now = time.monotonic()
        if self._sweep_interval is None or now - self._swept_at < self._sweep_interval:
            return False
        self._swept_at = now
        return True

    async def _pause(self, attempt: int) -> None:
        time.sleep(pause_s(attempt))  # noqa: ASYNC251 - by design


def _abandon(readers: Iterable[driver.Connection], end: Callable[[], None]) -> None:
    """Close what a store had open that nobody has any more."""
    for reader in readers:
        reader.close()
    end()
