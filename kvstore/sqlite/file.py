"""The file of a store: which one it is, how connections to it are made, and its reads."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, TypeVarTuple

from kvstore.backend import Backend, NamespaceQuery, Page, Selection, Settings, Span
from kvstore.embedding import Embedder
from kvstore.errors import StoreAccessError, StoreBusyError, StoreReplacedError
from kvstore.feed import ChangePage
from kvstore.files import file_errors, resolved, same_file
from kvstore.filters import Filter
from kvstore.jobs import JobState, QueueSize, SequenceRecord
from kvstore.operations import Record
from kvstore.past import Moment
from kvstore.patterns import Pattern
from kvstore.report import Meter, Metrics, Report, Stats
from kvstore.sequences import EntryPage
from kvstore.sqlite import (
    backup,
    changes,
    checking,
    driver,
    forks,
    past,
    reading,
    sequences,
    statements,
)
from kvstore.sqlite.connection import READ_TIMEOUT_S, connect, is_busy, translated
from kvstore.sqlite.declared import prepare
from kvstore.sqlite.filters import CAN_DECLARE
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.index_file import Setup, load_vectors, prepare_index
from kvstore.sqlite.large import Asked
from kvstore.sqlite.migrate import check_file, migrate
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.read_cache import ReadCache, is_as_known
from kvstore.sqlite.readonly import ReadOnlyFile, Source
from kvstore.types import Change, IndexConfig, Item, Namespace

__all__ = ["IN_MEMORY", "Durability", "FileBackend", "FileOptions"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
Durability = Literal["normal", "full"]

IN_MEMORY = ":memory:"


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Which file, and how it is kept; see `SQLiteStore`."""

    path: Path
    durability: Durability = "normal"
    busy_timeout: float = 5.0
    file_mode: int | None = None
    read_cache_bytes: int = 16 * 2**20


class FileBackend(Backend):
    """What the backends over a SQLite file have in common: the file, its connections, its reads.

    Where a read runs, its subclass says.

    Attributes:
        options: which file, and how it is kept.
        file: its absolute path, once it is open.
        opened: the file as it was opened, while it is open.
        setup: of a store that has a search index.
        asked: the large namespaces that were looked through.
    """

    has_sequences = True
    can_order = True
    opened: OpenFile
    finalizer: Any
    _hold: Hold

    keeps_history = True

    def __init__(self, options: FileOptions) -> None:
        super().__init__()
        self.options = options
        self.file = options.path
        self.setup: Setup | None = None
        self.asked = Asked()
        self._temporary: str | None = None
        self._read_cache: weakref.ref[ReadCache] | None = None  # it keeps the file mapped

    def attach(
        self, settings: Settings, index: IndexConfig | None, embedder: Embedder | None
    ) -> None:
        super().attach(settings, index, embedder)
        self.takes_columns = index is None
        if index is not None and index.ranks:
            self.setup = Setup.of(index, embedder, serves_part=settings.reindex)

    @abstractmethod
    def held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        """Return the file and the open connections; `None` if one is at work just now."""

    def cross_fork(self, is_open: bool) -> bool:
        is_temporary = self._temporary is not None
        if is_open:
            self.finalizer.detach()
            forks.inherit(self.held(), vars(self).copy())
            self.opened.close()
        self._make_anew()
        return is_temporary

    @property
    def own_file(self) -> Path | None:
        return self.file

    def is_same(self, other: Backend) -> bool:
        return isinstance(other, FileBackend) and same_file(self.file, other.file)

    def look(self) -> None:
        if time.monotonic() >= self.opened.next_look:
            self.opened.look()

    def choose_file(self) -> Path:
        """Settle which file this store is, just before it opens it."""
        if str(self.options.path) == IN_MEMORY:
            with file_errors("a temporary directory"):
                self._temporary = tempfile.mkdtemp(prefix="kvstore-")
            self.file = Path(self._temporary, "memory.db")
        else:
            self.file = resolved(self.options.path)
        forks.release_inherited(self.file)
        return self.file

    def open_read_cache(self, connection: driver.Connection) -> ReadCache | None:
        """Return a cache for the open file; `None` where it is off, or cannot be relied on."""
        self._read_cache = None
        budget = self.options.read_cache_bytes
        index = self._hold.map_index() if budget else None
        if index is None:
            return None

        def page_count() -> int:
            return int(connection.execute("PRAGMA page_count").fetchall()[0][0])

        with translated(self.file):
            # Others may just rebuild an index that a killed process has left half written.
            connection.execute(f"PRAGMA busy_timeout = {int(READ_TIMEOUT_S * 1000)}")
            is_known = is_as_known(index, page_count)
            connection.execute("PRAGMA busy_timeout = 0")
        if not is_known:
            return None
        cache = ReadCache(index, budget)
        self._read_cache = weakref.ref(cache)
        return cache

    def metrics(self) -> Metrics:
        cache = None if self._read_cache is None else self._read_cache()
        return replace(super().metrics(), cache_hits=0 if cache is None else cache.hits)

    def when_dropped(self, close: Callable[..., None], *args: Any) -> None:
        """Have the store closed when nobody has it any more.

        Nothing is lost then: whoever waits for a write has the store.
        """
        self.finalizer = weakref.finalize(self, close, *args)
        self.finalizer.atexit = False

    def ending(self, last: driver.Connection) -> Callable[[], None]:
        """Return what closes the last connection, and lets go of the file."""
        return partial(_end, last, self._hold, self.opened, self._temporary)

    def look_into(self, path: Path) -> ReadOnlyFile:
        """Refuse what cannot be read; give the file that is to be read only."""
        hold = Hold(path)
        try:
            check_file(path, hold, read_only=True)
            return ReadOnlyFile(hold)
        except BaseException:
            hold.end()
            raise

    def source(self) -> Source:
        assert isinstance(self.opened, ReadOnlyFile)
        has_model = self.setup is not None and self.setup.model is not None
        return Source(self.opened, load_vectors if has_model else None)

    def connect_writer(self, path: Path) -> driver.Connection:
        """Open the first connection, and have the file guarded from here on."""
        tries = 3
        while True:
            tries -= 1
            try:
                return self._connect_once(path)
            except StoreReplacedError:  # just between two steps
                if not tries:
                    raise

    def _connect_once(self, path: Path) -> driver.Connection:
        self._hold = hold = Hold(path)
        try:
            with file_errors(path):
                check_file(path, hold)
                if self.options.file_mode is not None:
                    hold.create(self.options.file_mode)
                if hold.has_log and not Path(f"{path}-journal").exists():
                    hold.lock(0.0, with_index=False)  # other files are yet to be locked by SQLite
                return self._connect_first(path, hold)
        except BaseException:
            hold.end()
            raise

    def _connect_first(self, path: Path, hold: Hold) -> driver.Connection:
        timeout = max(1.0, self.options.busy_timeout)
        connection = connect(path, "rwc", busy_timeout=timeout)
        opened: OpenFile | None = None
        try:
            with translated(path):
                self._use_wal(connection, path)
                connection.execute(f"PRAGMA synchronous = {self.options.durability.upper()}")
                connection.execute(statements.LIMIT_LOG)
            migrate(connection, path, self.options.busy_timeout)
            if not hold.lock(timeout):
                raise StoreBusyError(f"{path} is kept locked by another process; retry")
            self.opened = opened = OpenFile(hold)
            if self.setup is not None:
                with translated(path):
                    self._load_vectors(connection)
                    prepare_index(connection, self.setup, self.options.busy_timeout, self.opened)
            with translated(path):
                if self.index is not None and self.index.filters and CAN_DECLARE:
                    prepare(connection, self.index.filters, self.options.busy_timeout, self.opened)
                # From here on `transaction` does the waiting, and never on the event loop's thread.
                connection.execute("PRAGMA busy_timeout = 0")
        except BaseException as exc:
            if not isinstance(exc, StoreReplacedError):  # else the log may be another file's
                hold.give_up()
            connection.close()
            if opened is not None:
                opened.close()
            raise
        return connection

    def connect_reader(self, path: Path, *, is_mapped: bool = False) -> driver.Connection:
        """Return a connection for reading, which knows vectors if the store does."""
        connection = connect(path, "ro", busy_timeout=READ_TIMEOUT_S)
        try:
            with translated(path):
                self._load_vectors(connection)
                if is_mapped and self.embedder is not None:  # a search by meaning reads much
                    connection.execute(statements.MAP_FILE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _load_vectors(self, connection: driver.Connection) -> None:
        if self.setup is not None and self.setup.model is not None:
            load_vectors(connection)

    def _use_wal(self, connection: driver.Connection, path: Path) -> None:
        """Switch the file to WAL; SQLite does not wait for another process that does so, too."""
        deadline = time.monotonic() + max(1.0, self.options.busy_timeout)
        while True:
            try:
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except driver.Error as exc:
                if not is_busy(exc) or time.monotonic() > deadline:
                    raise
                time.sleep(0.002)
                continue
            if mode != "wal":
                raise StoreAccessError(
                    f"{path} cannot use a write-ahead log (its journal mode stays {mode}); "
                    "keep it on a local disk"
                )
            return

    @contextmanager
    def last_close(self) -> Iterator[None]:
        """Have the last connection closed inside the block, and let go of the file after it."""
        with _last_close(self._hold, self.opened, self._temporary):
            yield
        self._temporary = None

    def discard_temporary(self) -> None:
        """Delete the file, if it is one for the time being."""
        _discard(self._temporary)
        self._temporary = None

    # Reads

    @abstractmethod
    def point(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> Awaitable[T]:
        """Run a short read."""

    @abstractmethod
    def scan(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> Awaitable[T]:
        """Run a read that may take its time, and for which no short one waits."""

    @abstractmethod
    async def by_itself(self, meter: Meter, read: Callable[[driver.Connection], T]) -> T:
        """Run a read of the whole file, for which no other waits."""

    @abstractmethod
    async def extend(self, path: str | None) -> None:
        """Have the order of a large namespace kept, a slice of it; `None`: of none."""

    async def select(self, path: str, selection: Selection) -> list[Item]:
        found = await self.scan(reading.select, path, selection, self.now(), self.asked)
        await self.extend(self.asked.take())
        return found

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        return await self.scan(reading.list_namespaces, asked, limit, offset, self.now())

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        return await self.scan(reading.keys, span, limit, self.now())

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        found = await self.scan(reading.count, path, pattern, subtree, self.now(), self.asked)
        await self.extend(self.asked.take())
        return found

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        return await self.scan(reading.page, span, filter, limit, self.now())

    async def records(
        self, path: str, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return await self.scan(reading.records, path, after, limit, self.now())

    # Logs and queues

    async def entries(self, path: str, after: int | None, limit: int) -> EntryPage:
        return await self.point(sequences.entries, path, after, limit, self.now())

    async def length(self, path: str) -> int:
        return await self.point(sequences.length, path, self.now())

    async def queue_size(self, path: str) -> QueueSize:
        return await self.point(sequences.queue_size, path, self.now())

    async def dead_jobs(self, path: str, limit: int) -> list[tuple[Item, JobState]]:
        return await self.point(sequences.dead_jobs, path, limit, self.now())

    async def sequences(self, path: str, *, with_jobs: bool = True) -> list[SequenceRecord]:
        return await self.scan(sequences.records, path, with_jobs)

    async def is_ripe(self, path: str) -> bool:
        return await self.point(sequences.is_ripe, path, self.now())

    # Changes and the past

    async def read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        return await self.point(changes.read_changes, after, path, pattern, subtree, self.now())

    async def moment(
        self, version: int | None, instant: int | None, root: str | None = None
    ) -> Moment:
        return await self.point(past.find_moment, version, instant, self.now())

    async def past_many(self, moment: Moment, path: str, keys: Sequence[str]) -> list[Record]:
        return await self.point(past.get_many, moment, path, keys, self.now())

    async def past_page(
        self, moment: Moment, span: Span, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return await self.scan(past.page, moment, span, limit, self.now())

    async def history(self, path: str, key: str, limit: int | None) -> list[Change]:
        return await self.point(past.history, path, key, limit)

    # Upkeep

    async def backup(self, path: Path, meter: Meter) -> None:
        await self.by_itself(meter, lambda raw: backup.backup(raw, self.file, path, meter))

    async def check(self, meter: Meter) -> Report:
        return await self.by_itself(meter, lambda raw: checking.check(raw, self.file, meter))

    async def stats(self) -> Stats:
        meter, now = Meter(None, has_loop=self.needs_loop), self.now()
        return await self.by_itself(meter, lambda raw: checking.stats(raw, self.file, now, meter))


@contextmanager
def _last_close(hold: Hold, opened: OpenFile, temporary: str | None) -> Iterator[None]:
    if opened.owns_log:  # SQLite empties it then, and removes it
        hold.give_up()
    yield
    opened.close()
    hold.end()
    _discard(temporary)


def _discard(temporary: str | None) -> None:
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)


def _end(last: driver.Connection, hold: Hold, opened: OpenFile, temporary: str | None) -> None:
    with _last_close(hold, opened, temporary):
        last.close()
