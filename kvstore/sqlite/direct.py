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
from typing import Any, Concatenate, ParamSpec, TypeVar

from kvstore.backend import NamespaceQuery, Page, Selection, Span
from kvstore.errors import InvalidArgumentError, StoreBusyError, StoreClosedError, WrongLoopError
from kvstore.feed import ChangePage, ThreadBell
from kvstore.filters import Filter
from kvstore.jobs import JobState, QueueSize, SequenceRecord
from kvstore.operations import Operation, Record, Sweep
from kvstore.past import Moment
from kvstore.patterns import Pattern
from kvstore.report import Meter, Report, Stats
from kvstore.sequences import EntryPage
from kvstore.sqlite import backup, changes, checking, driver, large, past, reading, sequences
from kvstore.sqlite.connection import claimed, connect, release, transaction
from kvstore.sqlite.diagnosis import explain
from kvstore.sqlite.engine.limits import SYNC_CHECKPOINT_PAGES
from kvstore.sqlite.file import READ_TIMEOUT_S, FileBackend, FileOptions
from kvstore.sqlite.past_cache import PastCache, read_entry
from kvstore.sqlite.plain_puts import is_bare_put
from kvstore.sqlite.read_cache import ReadCache
from kvstore.sqlite.readonly import Source
from kvstore.sqlite.rows import ANY_LENGTH
from kvstore.sqlite.series import Series
from kvstore.types import UNKNOWN, Change, Item, Namespace, Recalled
from kvstore.watching import trim_of

__all__ = ["DirectBackend", "run_directly"]

P = ParamSpec("P")
T = TypeVar("T")

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
        self.idle: list[driver.Connection] = []  # those of `_readers` that nobody reads on now
        self._readers: list[driver.Connection] = []
        self._sources: list[Source] = []  # the same two of a store that is read-only
        self._idle_sources: list[Source] = []
        self._writer: driver.Connection
        self._cache: ReadCache | None = None
        self._past_cache: PastCache | None = None
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
            self.when_dropped(self.opened.close)
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
        self._past_cache = None if self._cache is None else PastCache(self._cache)
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
            while self._idle_sources:
                self._idle_sources.pop().close()
            self.opened.close()
            return
        self.recall = self._cache = self._past_cache = None
        self._series.end()
        self.before_last_close()
        self._writer.close()
        self.let_go()
        self.discard_temporary()

    def held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        if self.settings.read_only:
            if len(self._idle_sources) != len(self._sources):
                return None
            return self.file, [each.connection for each in self._sources if each.connection]
        if self._is_writing or len(self.idle) != len(self._readers):
            return None
        return self.file, (*self.idle, self._writer)

    def _require_usable(self) -> None:
        if not self._is_usable:  # closed by another thread, meanwhile
            raise StoreClosedError(f"the KeyValueStore on {self.file} is closed")

    # Read

    def _read(
        self,
        read: Callable[Concatenate[driver.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read on a connection that no other thread uses meanwhile."""
        self._require_usable()
        if self.settings.read_only:
            return self._read_only_once(lambda connection: read(connection, *args, **kwargs))
        try:
            connection = self.idle.pop()
        except IndexError:
            self.opened.look()
            connection = connect(self.file, "ro", busy_timeout=READ_TIMEOUT_S)
            self._readers.append(connection)
        try:
            return read(connection, *args, **kwargs)
        except driver.Error as exc:
            release(exc)
            raise explain(exc, self.opened, connection) from exc
        except BaseException as exc:
            release(exc)
            raise
        finally:
            if self._is_usable and len(self.idle) < _IDLE_READERS:
                self.idle.append(connection)
            else:
                self._readers.remove(connection)
                connection.close()

    def _read_only_once(self, read: Callable[[driver.Connection], T]) -> T:
        try:
            source = self._idle_sources.pop()
        except IndexError:
            source = self.source()
            self._sources.append(source)
        try:
            return source.run(read)
        except driver.Error as exc:
            release(exc)
            assert source.connection is not None
            raise explain(exc, self.opened, source.connection) from exc
        except BaseException as exc:
            release(exc)
            raise
        finally:
            if self._is_usable and len(self._idle_sources) < _IDLE_READERS:
                self._idle_sources.append(source)
            else:
                self._sources.remove(source)
                source.close()

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

    async def select(self, path: str, selection: Selection) -> list[Item]:
        found = self._read(reading.select, path, selection, self.now(), self.asked)
        self._extend(self.asked.take())
        return found

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        return self._read(reading.list_namespaces, asked, limit, offset, self.now())

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        return self._read(reading.keys, span, limit, self.now())

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        found = self._read(reading.count, path, pattern, subtree, self.now(), self.asked)
        self._extend(self.asked.take())
        return found

    def _extend(self, path: str | None) -> None:
        """Have the order of a large namespace kept, a slice of it."""
        if path is not None and not self.settings.read_only:
            with suppress(StoreClosedError, WrongLoopError):  # the read has had its answer
                self._on_writer(large.extend, self._writer, path, self.opened)

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        return self._read(reading.page, span, filter, limit, self.now())

    async def entries(self, path: str, after: int | None, limit: int) -> EntryPage:
        return self._read(sequences.entries, path, after, limit, self.now())

    async def length(self, path: str) -> int:
        return self._read(sequences.length, path, self.now())

    async def queue_size(self, path: str) -> QueueSize:
        return self._read(sequences.queue_size, path, self.now())

    async def dead_jobs(self, path: str, limit: int) -> list[tuple[Item, JobState]]:
        return self._read(sequences.dead_jobs, path, limit, self.now())

    async def sequences(self, path: str, *, with_jobs: bool = True) -> list[SequenceRecord]:
        return self._read(sequences.records, path, with_jobs)

    async def is_ripe(self, path: str) -> bool:
        return self._read(sequences.is_ripe, path, self.now())

    # Write

    async def apply(self, ops: Sequence[Operation]) -> list[Any]:
        outcome = self._on_writer(self._write, ops)
        if isinstance(outcome, Exception):
            raise outcome
        self.counters.committed(1)
        return outcome

    def _on_writer(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
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
                return work(*args, **kwargs)
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
        elif len(ops) == 1 and is_bare_put(op := ops[0]):
            timeout = self.options.busy_timeout
            item = self._series.put_alone(op, self.now(), timeout, ANY_LENGTH)
            if item is not None:
                outcome = [item]
                if self._series.is_watched:
                    self.bell.ring()
        if outcome is None:
            outcome = self._commit(units)
        if (self.opened.pages_to_copy or 0) >= SYNC_CHECKPOINT_PAGES:
            self._checkpoint()
        return outcome

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

    async def records(
        self, path: str, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return self._read(reading.records, path, after, limit, self.now())

    async def read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        return self._read(changes.read_changes, after, path, pattern, subtree, self.now())

    async def moment(
        self, version: int | None, instant: int | None, root: str | None = None
    ) -> Moment:
        return self._read(past.find_moment, version, instant, self.now())

    def past_peek(self, moment: Moment, namespace: Namespace, path: str, key: str) -> list[Item]:
        cache = self._past_cache
        entry = None if cache is None else cache.find(moment, path, key, self.now)
        if entry is None:
            place = moment, namespace, path, key
            entry = self._read(read_entry, cache, *place, self.now())
            assert entry is not None  # as any length is read
        return reading.live_item(namespace, key, entry, lambda: moment.instant)

    async def past_many(self, moment: Moment, path: str, keys: Sequence[str]) -> list[Record]:
        return self._read(past.get_many, moment, path, keys, self.now())

    async def past_page(
        self, moment: Moment, span: Span, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return self._read(past.page, moment, span, limit, self.now())

    async def history(self, path: str, key: str, limit: int | None) -> list[Change]:
        return self._read(past.history, path, key, limit)

    async def backup(self, path: Path, meter: Meter) -> None:
        self._read(backup.backup, self.file, path, meter)

    async def check(self, meter: Meter) -> Report:
        return self._read(checking.check, self.file, meter)

    async def stats(self) -> Stats:
        meter = Meter(None, has_loop=False)
        return self._read(checking.stats, self.file, self.now(), meter)

    async def vacuum(self) -> int:
        return self._on_writer(backup.vacuum, self._writer, self.opened, self.options.busy_timeout)

    # Waiting

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - by design

    async def aside(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)


def _abandon(readers: Iterable[driver.Connection], end: Callable[[], None]) -> None:
    """Close what a store had open that nobody has any more."""
    for reader in readers:
        reader.close()
    end()
