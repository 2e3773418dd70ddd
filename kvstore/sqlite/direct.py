"""A backend over a SQLite file for code without an event loop: its coroutines never wait.

A hop to a thread and back costs several times what SQLite takes for a small read or write, so sync
code does not make it: the very functions that `SQLiteBackend` runs on its threads run here on the
caller's. A read has a connection to itself while it lasts; writers take turns at one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

from kvstore.errors import InvalidArgumentError, StoreBusyError, StoreClosedError, WrongLoopError
from kvstore.operations import Mutate, Operation, Sweep
from kvstore.past import Moment
from kvstore.report import Meter
from kvstore.sqlite import backup, driver, large, reading
from kvstore.sqlite.connection import READ_TIMEOUT_S, claimed, connect, release, transaction
from kvstore.sqlite.diagnosis import explain
from kvstore.sqlite.engine.limits import SYNC_CHECKPOINT_PAGES
from kvstore.sqlite.file import FileBackend, FileOptions
from kvstore.sqlite.past_cache import PastCache
from kvstore.sqlite.plain_puts import is_bare_put
from kvstore.sqlite.read_cache import ReadCache
from kvstore.sqlite.readonly import Source
from kvstore.sqlite.rows import ANY_LENGTH
from kvstore.sqlite.series import Series
from kvstore.types import UNKNOWN, Item, Namespace, Recalled
from kvstore.waiting import ThreadBell
from kvstore.watching import trim_of

__all__ = ["DirectBackend", "run_directly"]

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

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


class DirectBackend(FileBackend):
    """Rows in a SQLite file, for sync code: any thread may use it, inside a loop or not."""

    needs_loop = False
    new_lock: Callable[[], Any] = threading.RLock  # a simulation has locks of its own

    def __init__(self, options: FileOptions) -> None:
        super().__init__(options)
        self.bell = ThreadBell()
        self.idle: list[_Reader | Source] = []  # those of `_readers` that nobody reads on now
        self._readers: list[_Reader | Source] = []
        self._writer: driver.Connection
        self._cache: ReadCache | None = None
        self._past_cache = PastCache(None)
        self._series: Series
        self._lock = type(self).new_lock()
        self._is_usable = False
        self._is_writing = False  # by the thread that has the lock
        self._is_ending = False  # closed in the middle of a write, to be closed after it
        self._swept_at = 0.0

    # Lifecycle

    async def open(self) -> None:
        file = self.choose_file()
        if self.settings.read_only:
            self.opened = self.look_into(file)
            self.when_dropped(_abandon, self._readers, self.opened.close)
            self._is_usable = True
            try:
                self._read(lambda connection: None)
            except BaseException:
                self._finish()
                raise
            return
        try:
            self._writer = self.connect_writer(file)
        except BaseException:
            self.discard_temporary()
            raise
        self._swept_at = time.monotonic()
        if self.opened.pages_to_copy is not None:  # else SQLite makes checkpoints, in a COMMIT
            self._writer.execute("PRAGMA wal_autocheckpoint = 0")
        self._cache = self.open_read_cache(self._writer)
        self._past_cache = PastCache(self._cache)
        self.recall = None if self._cache is None else self._recall
        self._series = Series(self._writer, self.opened, None, self._cache)
        self._is_usable = True
        self.when_dropped(_abandon, self._readers, self.ending(self._writer))

    async def close(self) -> None:
        """Close, once the write that may be under way is done.

        A signal handler or a finalizer may call this in the middle of a write of its own thread,
        which then closes the store at its end.
        """
        with self._lock:
            if self._is_writing:
                self._is_ending = True
            else:
                self._finish()

    def _finish(self) -> None:
        self._is_usable = self._is_ending = False
        self.finalizer.detach()
        while self.idle:
            self.idle.pop().close()
        if self.settings.read_only:
            self.opened.close()
            return
        self.recall = self._cache = None
        self._past_cache = PastCache(None)
        self._series.end()
        with self.last_close():
            self._writer.close()

    def held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        if self._is_writing or len(self.idle) != len(self._readers):
            return None
        connections = [each.connection for each in self.idle if each.connection is not None]
        return self.file, connections if self.settings.read_only else [*connections, self._writer]

    def _require_usable(self) -> None:
        if not self._is_usable:  # closed by another thread, meanwhile
            raise StoreClosedError(f"the KeyValueStore on {self.file} is closed")

    # Read

    def _read(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> T:
        """Run a read on a connection that no other thread uses meanwhile."""
        self._require_usable()
        try:
            reader = self.idle.pop()
        except IndexError:
            reader = self._new_reader()
            self._readers.append(reader)
        try:
            return reader.run(read, *args)
        except BaseException as exc:
            release(exc)
            if not isinstance(exc, driver.Error):
                raise
            raise explain(exc, self.opened, reader.connection) from exc
        finally:
            if self._is_usable and len(self.idle) < _IDLE_READERS:
                self.idle.append(reader)
            else:
                self._readers.remove(reader)
                reader.close()

    def _new_reader(self) -> _Reader | Source:
        if self.settings.read_only:
            return self.source()
        self.opened.look()
        return _Reader(connect(self.file, "ro", busy_timeout=READ_TIMEOUT_S))

    async def point(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> T:
        return self._read(read, *args)

    scan = point

    async def by_itself(self, meter: Meter, read: Callable[[driver.Connection], T]) -> T:
        return self._read(read)

    def _recall(self, namespace: Sequence[str], key: str) -> Recalled:
        cache = self._cache
        self.look()
        return UNKNOWN if cache is None else cache.recall(namespace, key, self.now)

    def peek(self, namespace: Namespace, path: str, key: str) -> list[Item]:
        cache = self._cache
        if cache is None:
            return self._read(reading.get_one, namespace, path, key, self.now())
        before = cache.header()
        entry = self._read(reading.get_entry, namespace, path, key)
        cache.fill(before, (((path, key), entry),))
        return reading.live_item(namespace, key, entry, self.now)

    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        cache = self._cache
        items = None if cache is None else cache.recall_all(namespace, path, keys, self.now)
        if items is None:
            return self._read(reading.get_many, namespace, path, keys, self.now())
        return items

    async def extend(self, path: str | None) -> None:
        if path is not None and not self.settings.read_only:
            with suppress(StoreClosedError, WrongLoopError):  # the read has had its answer
                self._on_writer(large.extend, self._writer, path, self.opened)

    def past_peek(self, moment: Moment, namespace: Namespace, path: str, key: str) -> list[Item]:
        cache = self._past_cache
        entry = cache.find(moment, path, key, self.now)
        if entry is None:
            entry = self._read(cache.read, moment, namespace, path, key, self.now())
            assert entry is not None  # as any length is read
        return reading.live_item(namespace, key, entry, lambda: moment.instant)

    # Write

    async def apply(self, ops: Sequence[Operation]) -> list[Any]:
        outcome = self._on_writer(self._write, ops)
        if isinstance(outcome, Exception):
            raise outcome
        self.counters.committed(1)
        return outcome

    def _on_writer(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        """Do something on the writer's connection; other threads wait, this one must not come back.

        The lock lets its own thread in again, so that nothing waits for itself.
        """
        with self._lock:
            self._require_usable()
            if self._is_writing:
                raise WrongLoopError(
                    f"this thread is in the middle of a write to {self.file}, interrupted by a "
                    "signal handler or a finalizer that writes there, too; have that take a note, "
                    "and do it after the write or in another thread"
                )
            try:
                self._is_writing = True
                return work(*args)
            except driver.Error as exc:
                raise explain(exc, self.opened, None) from exc
            finally:
                self._is_writing = False
                if self._is_ending:
                    self._finish()

    def _write(self, ops: Sequence[Operation]) -> list[Any] | Exception:
        units: list[Sequence[Operation]] = [ops]
        outcome: list[Any] | Exception | None = None
        if self._is_sweep_due():
            units.append((Sweep(_SWEEP_SLICE), trim_of(self, _SWEEP_SLICE)))
        elif len(ops) == 1:
            outcome = self._write_alone(ops[0])
        if outcome is None:
            outcome = self._commit(units)
        if (self.opened.pages_to_copy or 0) >= SYNC_CHECKPOINT_PAGES:
            self._checkpoint()
        return outcome

    def _write_alone(self, op: Operation) -> list[Any] | None:
        """Commit a plain put, or a change of a plain item, by itself; `None`: it is neither."""
        now, timeout = self.now(), self.options.busy_timeout
        answers: list[Any] | None = None
        if is_bare_put(op):
            item = self._series.put_alone(op, now, timeout, ANY_LENGTH)
            answers = None if item is None else [item]
        elif isinstance(op, Mutate):
            done = self._series.change_alone(op, now, timeout, ANY_LENGTH)
            answers = None if done is None else [done[0]]
        if answers is not None and self._series.is_watched:
            self.bell.ring()
        return answers

    def _commit(self, units: list[Sequence[Operation]]) -> list[Any] | Exception:
        """Apply units in one transaction; return the outcome of the first."""
        timeout, cursor = self.options.busy_timeout, self._series.cursor
        with transaction(self._writer, timeout, self.opened, cursor):
            batch = self._series.begin(self.now())
            outcome = batch.apply(units)[0]
            batch.finish()
        self._series.committed(batch)
        if batch.is_news:
            self.bell.ring()
        return outcome

    def _checkpoint(self) -> None:
        """Copy the log into the file; where that cannot be now, the next write tries again."""
        with suppress(driver.Error, StoreBusyError), claimed(self.opened, 0.0, to_copy=True):
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _is_sweep_due(self) -> bool:
        """Whether the rows of expired items should go along with the present write."""
        now = time.monotonic()
        if (
            self.settings.sweep_interval is None
            or now - self._swept_at < self.settings.sweep_interval
        ):
            return False
        self._swept_at = now
        return True

    # Upkeep

    async def vacuum(self) -> int:
        return self._on_writer(backup.vacuum, self._writer, self.opened, self.options.busy_timeout)

    # Waiting

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - by design

    async def aside(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)


class _Reader:
    """A connection to read on, as `Source` is where the store is read only."""

    def __init__(self, connection: driver.Connection) -> None:
        self.connection = connection

    def run(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> T:
        """Run a read."""
        return read(self.connection, *args)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def _abandon(readers: Iterable[_Reader | Source], end: Callable[[], None]) -> None:
    """Close what a store had open that nobody has any more."""
    for reader in readers:
        reader.close()
    end()
