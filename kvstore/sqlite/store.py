"""`SQLiteStore`: the primitives of `Store` over one SQLite file."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from kvstore.errors import (
    InvalidArgumentError,
    StoreAccessError,
    StoreBusyError,
    StoreReplacedError,
)
from kvstore.exchange import file_errors
from kvstore.filenames import FilePath, file_path, resolved
from kvstore.filters import Filter, comparisons
from kvstore.instants import to_micros
from kvstore.operations import Operation, Record
from kvstore.patterns import Pattern
from kvstore.ranking import Search
from kvstore.report import Meter, Report, Stats
from kvstore.sqlite import backup, changes, checking, driver, forks, reading, statements
from kvstore.sqlite.connection import WorkerConnection, connect, is_busy, limit, release, translated
from kvstore.sqlite.engine import (
    INLINE_BYTES,
    INLINE_COMPARISONS,
    InlineReader,
    NoInlineReader,
    Pace,
    Reader,
    Writer,
    without_checkpoints,
)
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.indexing import Journal, Setup, load_vectors, prepare_index
from kvstore.sqlite.migrate import check_file, migrate
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.readonly import ReadOnlyConnection, ReadOnlyFile, Source
from kvstore.sqlite.searching import search, search_small
from kvstore.sqlite.vectors import VectorCache, new_cache
from kvstore.store import NamespaceQuery, Page, Selection, Store, check_seconds
from kvstore.targets import same_file
from kvstore.types import IndexConfig, Item, Namespace
from kvstore.watching import ChangePage

__all__ = ["SQLiteStore"]

P = ParamSpec("P")
T = TypeVar("T")
Durability = Literal["normal", "full"]

_IN_MEMORY = ":memory:"
_MOST_DIMENSIONS = 8192  # of sqlite-vec


class SQLiteStore(Store):
    """A store in one SQLite file, shared by many tasks and processes on one machine.

    Args:
        path: the file; made if it is missing, in a directory that exists. `":memory:"` is a
            temporary file that goes when the store closes.
        index: what to index for search; `None`: nothing.
        durability: `"normal"`: an acknowledged write survives any crash of the process, and a
            power loss never corrupts the file but may undo the last moments. `"full"`: it
            survives a power loss, too; each commit then waits for the disk.
        busy_timeout: how long a write waits for other processes, in seconds, before
            `StoreBusyError`.
        file_mode: the permissions of a file that is made, such as `0o600` for its owner alone;
            `None`: as the process's umask has it. A file that is there keeps its own.
        vector_cache_bytes: memory for the vectors of large namespaces, where numpy is installed
            (`agent-kvstore[fast]`); 0: none.
        options: those of `Store`: `default_ttl`, `refresh_ttl`, `max_value_bytes`, `clock`,
            `sweep_interval`, `history`, `read_only`. With `read_only=True` nothing is written or
            made, not even beside the file: one on read-only media or without write permission can
            be read, and so can one that others write, with all that they commit.
    """

    _most_dimensions = _MOST_DIMENSIONS

    def __init__(
        self,
        path: FilePath,
        *,
        index: IndexConfig | None = None,
        durability: Durability = "normal",
        busy_timeout: float = 5.0,
        file_mode: int | None = None,
        vector_cache_bytes: int = 512 * 2**20,
        **options: Any,
    ) -> None:
        super().__init__(index=index, **options)
        if durability not in ("normal", "full"):
            raise InvalidArgumentError(f"durability is 'normal' or 'full', not {durability!r}")
        if busy_timeout != 0:
            check_seconds(busy_timeout, "busy_timeout")
        self.path = file_path(path)
        if self._read_only and str(self.path) == _IN_MEMORY:
            raise InvalidArgumentError("a temporary store is empty: there is nothing to read only")
        self._durability = durability
        self._busy_timeout = float(busy_timeout)
        if file_mode is not None and (file_mode & ~0o777 or file_mode & 0o600 != 0o600):
            raise InvalidArgumentError(
                "file_mode is permission bits with which the owner can read and write, such as "
                f"0o600, not {file_mode:#o}"
            )
        self._file_mode = file_mode
        self._temporary: str | None = None
        self._setup: Setup | None = None
        self._cache: VectorCache | None = None
        if index is not None:
            model = None if self._embedder is None else self._embedder.model_id
            self._setup = Setup(index.fields, model, None, Journal())
            if model is not None:
                self._cache = new_cache(vector_cache_bytes, self._setup.journal)
        self._file = self.path  # absolute, once it is open
        self._hold: Hold  # these two while it is open
        self._opened: OpenFile

    @classmethod
    def with_embeddings(cls, path: FilePath, model: Any, **options: Any) -> Self:
        """Short for `SQLiteStore(path, index=IndexConfig(model))`."""
        return cls(path, index=IndexConfig(model), **options)

    # Lifecycle

    _worker: type[WorkerConnection] = WorkerConnection  # a simulation has its own threads

    async def _open(self) -> None:
        if self._read_only:
            await self._open_read_only()
            return
        connections: list[WorkerConnection] = []
        loose: list[driver.Connection] = []  # for the loop's own thread
        try:
            writer = self._worker(self._open_writer)
            await writer.open()
            connections.append(writer)
            path = self._file
            readers = [
                self._worker(lambda: self._open_readers(path, loose)),
                self._worker(lambda: self._connect_reader(path, is_mapped=True)),
            ]
            for reader in readers:
                await reader.open()
                connections.append(reader)
        except BaseException:
            for each in loose:
                each.close()
            for connection in reversed(connections):
                if connection is writer:
                    self._before_last_close()
                await connection.close()
            if connections:  # the first of them has the file guarded
                self._let_go()
            self._discard_temporary()
            raise
        inline, *search = loose
        self._inline_search = search[0] if search else None
        if self._inline_search is not None:
            limit(self._inline_search)
        pace = Pace(asyncio.get_running_loop())
        self._pace = pace
        self._points, self._scans = (Reader(reader, self._opened) for reader in readers)
        self._inline = InlineReader(inline, self._clock, pace, self._points)
        self._writer = Writer(
            writer,
            self._opened,
            clock=self._clock,
            busy_timeout=self._busy_timeout,
            pace=pace if self._durability == "normal" else None,
            bell=self._bell,
            backlog=self._backlog,
            setup=self._setup,
        )
        forks.remember(self)
        self._when_dropped(_abandon, loose, readers, writer, self._ending(writer.raw))

    # On threads, as what the file system does takes its time

    def _open_writer(self) -> driver.Connection:
        return without_checkpoints(self._connect_writer(self._choose_file()))

    def _open_readers(self, path: Path, loose: list[driver.Connection]) -> driver.Connection:
        """Open a reader for its thread, and those for the loop's own, which are added to a list."""
        loose.append(connect(path, "ro"))
        if self._embedder is not None:
            loose.append(self._connect_reader(path, busy_timeout=0.0, is_mapped=True))
        return self._connect_reader(path)

    def _when_dropped(self, close: Callable[..., None], *args: Any) -> None:
        """Have the store closed when nobody has it any more.

        Nothing is lost then: whoever waits for a write has the store.
        """
        self._finalizer = weakref.finalize(self, close, *args)
        self._finalizer.atexit = False

    def _ending(self, last: driver.Connection) -> Callable[[], None]:
        """Return what closes the last connection, and lets go of the file."""
        return partial(_end, last, self._hold, self._opened, self._temporary)

    async def _open_read_only(self) -> None:
        self._opened = await asyncio.to_thread(lambda: self._look_into(self._choose_file()))
        connections: list[WorkerConnection] = []
        try:
            for _ in range(2):
                connections.append(ReadOnlyConnection(self._source()))
                await connections[-1].open()
        except BaseException:
            for connection in connections:
                await connection.close()
            self._opened.close()
            raise
        self._inline_search = None
        self._pace = Pace(asyncio.get_running_loop())
        self._points, self._scans = (Reader(each, self._opened) for each in connections)
        self._inline = NoInlineReader(self._points, self._clock)
        forks.remember(self)
        self._when_dropped(self._opened.close)

    def _look_into(self, path: Path) -> ReadOnlyFile:
        """Refuse what cannot be read; give the file that is to be read only."""
        hold = Hold(path)
        try:
            check_file(path, hold, read_only=True)
            return ReadOnlyFile(hold)
        except BaseException:
            hold.end()
            raise

    def _source(self) -> Source:
        assert isinstance(self._opened, ReadOnlyFile)
        has_model = self._setup is not None and self._setup.model is not None
        return Source(self._opened, load_vectors if has_model else None)

    def _choose_file(self) -> Path:
        """Settle which file this store is, just before it opens it."""
        if str(self.path) == _IN_MEMORY:
            with file_errors("a temporary directory"):
                self._temporary = tempfile.mkdtemp(prefix="kvstore-")
            self._file = Path(self._temporary, "memory.db")
        else:
            self._file = resolved(self.path)
        forks.release_inherited(self._file)
        return self._file

    def _held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        workers: tuple[InlineReader | Reader | Writer, ...] = (self._points, self._scans)
        if not self._read_only:
            workers = (self._inline, *workers, self._writer)
        if any(worker.is_running or worker.raw.in_transaction for worker in workers):
            return None
        others = () if self._inline_search is None else (self._inline_search,)
        return self._file, (*others, *(worker.raw for worker in workers))

    def _cross_fork(self) -> None:
        """Nothing: `forks` sees to the connections first, and then calls `_disown`."""

    def _disown(self) -> None:
        is_temporary = self._temporary is not None
        self._finalizer.detach()
        self._opened.close()
        self._make_anew()
        self._is_left_behind = is_temporary

    def _recipe(self) -> Any:
        if str(self.path) == _IN_MEMORY:
            raise InvalidArgumentError(
                "a store in ':memory:' is in one process alone: it cannot be copied or pickled; "
                "use a file, or make a store in each process"
            )
        return super()._recipe()

    def _connect_writer(self, path: Path) -> driver.Connection:
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
                if self._file_mode is not None:
                    hold.create(self._file_mode)
                if hold.has_log and not Path(f"{path}-journal").exists():
                    hold.lock(0.0, with_index=False)  # other files are yet to be locked by SQLite
                return self._connect_first(path, hold)
        except BaseException:
            hold.end()
            raise

    def _connect_first(self, path: Path, hold: Hold) -> driver.Connection:
        timeout = max(1.0, self._busy_timeout)
        connection = connect(path, "rwc", busy_timeout=timeout)
        opened: OpenFile | None = None
        try:
            with translated(path):
                self._use_wal(connection, path)
                connection.execute(f"PRAGMA synchronous = {self._durability.upper()}")
                connection.execute(statements.LIMIT_LOG)
            migrate(connection, path, self._busy_timeout)
            if not hold.lock(timeout):
                raise StoreBusyError(f"{path} is kept locked by another process; retry")
            self._opened = opened = OpenFile(hold)
            if self._setup is not None:
                with translated(path):
                    self._load_vectors(connection)
                    prepare_index(connection, self._setup, self._busy_timeout, self._opened)
            with translated(path):
                # From here on `begin` does the waiting, and never on the event loop's thread.
                connection.execute("PRAGMA busy_timeout = 0")
        except BaseException as exc:
            if not isinstance(exc, StoreReplacedError):  # else the log may be another file's
                hold.give_up()
            connection.close()
            if opened is not None:
                opened.close()
            raise
        return connection

    def _connect_reader(
        self, path: Path, *, busy_timeout: float = 5.0, is_mapped: bool = False
    ) -> driver.Connection:
        connection = connect(path, "ro", busy_timeout=busy_timeout)
        try:
            with translated(path):
                self._load_vectors(connection)
                if is_mapped and self._embedder is not None:  # a search by meaning reads much
                    connection.execute(statements.MAP_FILE)
        except BaseException:
            connection.close()
            raise
        return connection

    def _load_vectors(self, connection: driver.Connection) -> None:
        if self._setup is not None and self._setup.model is not None:
            load_vectors(connection)

    def _use_wal(self, connection: driver.Connection, path: Path) -> None:
        """Switch the file to WAL; SQLite does not wait for another process that does so, too."""
        deadline = time.monotonic() + max(1.0, self._busy_timeout)
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

    async def _close(self) -> None:
        forks.forget(self)
        self._finalizer.detach()
        self._inline.close()
        if self._inline_search is not None:
            self._inline_search.close()
        await self._points.close()
        await self._scans.close()
        if self._read_only:
            self._opened.close()
            return
        await self._writer.finish()
        self._before_last_close()
        await self._writer.close()
        self._let_go()
        self._discard_temporary()

    def _before_last_close(self) -> None:
        """Let SQLite empty the log and remove it, if it is the file's own."""
        if self._opened.owns_log:
            self._hold.give_up()

    def _let_go(self) -> None:
        self._opened.close()
        self._hold.end()

    def _discard_temporary(self) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def _require_open(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            super()._require_open()
        if time.monotonic() >= self._opened.next_look:
            self._opened.look()

    def _now(self) -> int:
        return to_micros(self._clock())

    # Read

    def _peek(self, namespace: Namespace, path: str, key: str) -> list[Item] | None:
        return self._inline.get(namespace, path, key)

    def _get(self, namespace: Namespace, path: str, key: str) -> Awaitable[list[Item]]:
        return self._inline.get_later(namespace, path, key)

    async def _get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        items = self._inline.get_few(namespace, path, keys)
        if items is None:
            return await self._points.submit(reading.get_many, namespace, path, keys, self._now())
        await self._pace.give_way()
        return items

    async def _look_through(
        self,
        path: str,
        is_quick: bool,
        read: Callable[Concatenate[driver.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Read in a namespace or a subtree: here if it is a small namespace, else in a thread.

        `is_quick` tells whether the read takes but a moment in a small namespace.
        """
        if is_quick and not self._scans.is_busy:  # a thread at work takes turns with this one
            found = self._inline.scan(path, lambda connection: read(connection, *args, **kwargs))
            if found is not None:
                await self._pace.give_way()
                return found[0]
        return await self._scans.submit(read, *args, **kwargs)

    async def _select(self, path: str, selection: Selection) -> list[Item]:
        is_quick = (
            not selection.subtree
            and comparisons(selection.filter) <= INLINE_COMPARISONS
            and len(selection.text or "") <= INLINE_COMPARISONS
        )
        now = self._now()
        return await self._look_through(path, is_quick, reading.select, path, selection, now)

    async def _list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        return await self._scans.submit(reading.list_namespaces, asked, limit, offset, self._now())

    async def _keys(
        self, path: str, pattern: Pattern, subtree: bool, limit: int | None
    ) -> list[str]:
        is_quick, now = pattern.is_quick and not subtree, self._now()
        return await self._look_through(
            path, is_quick, reading.keys, path, pattern, subtree, limit, now
        )

    async def _count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        is_quick, now = pattern.is_quick and not subtree, self._now()
        return await self._look_through(path, is_quick, reading.count, path, pattern, subtree, now)

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
        is_quick = not subtree and pattern.is_quick and comparisons(filter) <= INLINE_COMPARISONS
        return await self._look_through(
            path, is_quick, reading.page, path, pattern, filter, subtree, after, limit, now
        )

    async def _records(
        self, path: str, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return await self._scans.submit(reading.records, path, after, limit, self._now())

    async def _read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        now = self._now()
        return await self._points.submit(changes.read_changes, after, path, pattern, subtree, now)

    async def _search(self, path: str, asked: Search) -> list[Item]:
        assert self._setup is not None
        self._learn_dimensions()
        items = self._search_inline(path, asked)
        if items is not None:
            await self._pace.give_way()
            return items
        now = self._now()
        return await self._scans.submit(search, self._setup, self._cache, path, asked, now)

    def _search_inline(self, path: str, asked: Search) -> list[Item] | None:
        """Search on the loop's thread, if that takes but a moment, or return `None`."""
        connection, setup = self._inline_search, self._setup
        began = time.perf_counter()
        if connection is None or setup is None or not self._pace.allows(began):
            return None
        try:
            return search_small(connection, setup, path, asked, self._now(), INLINE_BYTES)
        except driver.Error:
            return None  # the thread meets it again, and has the time to deal with it
        except BaseException as exc:
            release(exc)
            raise
        finally:
            self._pace.record(began)

    # Write

    def _apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        if self._embedder is None:
            return self._writer.apply(ops)
        self._learn_dimensions()
        return self._with_vectors(self._writer.apply, ops)

    def _learn_dimensions(self) -> None:
        if self._setup is not None and self._embedder is not None:
            self._setup.dimensions = self._embedder.dimensions

    # Upkeep

    @asynccontextmanager
    async def _own_reader(self) -> AsyncIterator[Reader]:
        """Give a connection and a thread for something long, so that nothing waits behind it."""
        path = self._file
        self._opened.look()
        worker: WorkerConnection
        if self._read_only:
            worker = ReadOnlyConnection(self._source())
        else:
            worker = self._worker(lambda: connect(path, "ro", busy_timeout=5.0))
        await worker.open()
        reader = Reader(worker, self._opened)
        try:
            yield reader
        finally:
            await asyncio.shield(reader.close())

    @property
    def _own_file(self) -> Path | None:
        return self._file

    def _is_same(self, other: Store) -> bool:
        return isinstance(other, SQLiteStore) and same_file(self._file, other._file)

    async def _backup(self, path: Path, meter: Meter) -> None:
        async with self._own_reader() as reader:
            with meter:
                await reader.submit(backup.backup, self._file, path, meter)

    async def _check(self, meter: Meter) -> Report:
        async with self._own_reader() as reader:
            with meter:
                return await reader.submit(checking.check, self._file, meter)

    async def _stats(self) -> Stats:
        async with self._own_reader() as reader:
            with Meter(None) as meter:
                return await reader.submit(checking.stats, self._file, self._now(), meter)

    async def _vacuum(self) -> int:
        return await self._writer.run(
            lambda connection: backup.vacuum(connection, self._opened, self._busy_timeout)
        )


def _abandon(
    loose: Iterable[driver.Connection],
    readers: Iterable[WorkerConnection],
    writer: WorkerConnection,
    end: Callable[[], None],
) -> None:
    """Close what a store had open that nobody has any more, on whatever thread that is noticed."""
    for connection in loose:
        connection.close()
    for reader in readers:
        reader.abandon()

    def end_last() -> None:
        for reader in readers:
            reader.join()
        end()

    writer.abandon(end_last)


def _end(last: driver.Connection, hold: Hold, opened: OpenFile, temporary: str | None) -> None:
    if opened.owns_log:
        hold.give_up()
    last.close()
    opened.close()
    hold.end()
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
