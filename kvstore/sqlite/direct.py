"""A SQLite store without an event loop: its coroutines never wait, on whatever thread they run.

A hop to a thread and back costs several times what SQLite takes for a small read or write, so sync
code does not make it: the very functions that `SQLiteStore` runs on its threads run here on the
caller's. A read has a connection to itself while it lasts; writers take turns at one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from kvstore.errors import InvalidArgumentError, StoreClosedError
from kvstore.filters import Filter
from kvstore.operations import Operation, Sweep
from kvstore.patterns import Pattern
from kvstore.sqlite import driver, forks, reading
from kvstore.sqlite.connection import connect, release, transaction
from kvstore.sqlite.diagnosis import explain
from kvstore.sqlite.indexing import begin_batch
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
    _lock: threading.Lock
    _writer_connection: driver.Connection
    _readers: list[driver.Connection]
    _idle: list[driver.Connection]  # those of `_readers` that nobody reads on now
    _swept_at: float

    @classmethod
    def like(cls, store: SQLiteStore) -> Self:
        """Return a twin with the options of a store that is not open."""
        twin = cls.__new__(cls)
        vars(twin).update(vars(store))
        twin._lifecycle = asyncio.Lock()
        twin._lock = threading.Lock()
        twin._readers = []
        twin._idle = []
        return twin

    # Lifecycle

    def open_now(self) -> None:
        """Open the store; the errors are those of `Store.open`."""
        file = self._choose_file()
        try:
            self._writer_connection = self._connect_writer(file)
        except BaseException:
            self._discard_temporary()
            raise
        self._swept_at = time.monotonic()
        self._is_usable = True
        forks.remember(self)

    def close_now(self) -> None:
        """Close the store, once the write that may be under way is done."""
        if not self._is_usable:
            return
        with self._lock:
            self._is_usable = False
            forks.forget(self)
            while self._idle:
                self._idle.pop().close()
            self._before_last_close()
            self._writer_connection.close()
            self._let_go()
            self._discard_temporary()

    def _held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        if self._lock.locked() or len(self._idle) != len(self._readers):
            return None
        return self._file, (*self._idle, self._writer_connection)

    def _disown(self) -> None:
        self._is_usable = False
        self._opened.close()

    def _require_open(self) -> None:
        if not self._is_usable:
            raise StoreClosedError(
                f"the KeyValueStore on {self.path} is closed, or was opened before this process "
                "was forked: open one in each process"
            )
        if time.monotonic() >= self._opened.next_look:
            self._opened.look()

    # Read

    def _read(
        self,
        read: Callable[Concatenate[driver.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read on a connection that no other thread uses meanwhile."""
        self._require_open()
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
            self._require_open()
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
        if isinstance(outcome, Exception):
            raise outcome
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
