"""`SQLiteStore`, a store in one SQLite file, and the backend that it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, TypeVarTuple

from kvstore.arguments import check_seconds
from kvstore.backend import Backend, NamespaceQuery, Page, Selection, Settings, Span
from kvstore.description import Description
from kvstore.embedding import Embedder
from kvstore.errors import InvalidArgumentError
from kvstore.files import FilePath, file_path
from kvstore.filters import ALL, Filter
from kvstore.operations import Operation, Put, Record
from kvstore.past import Moment
from kvstore.patterns import Pattern
from kvstore.ranking import Search
from kvstore.report import Meter
from kvstore.sqlite import (
    backup,
    driver,
    large,
    past,
    reading,
)
from kvstore.sqlite.connection import READ_TIMEOUT_S, WorkerConnection, connect, limit, release
from kvstore.sqlite.direct import DirectBackend
from kvstore.sqlite.engine import (
    INLINE_BYTES,
    InlineReader,
    NoInlineReader,
    Pace,
    Reader,
    Weigh,
    Writer,
    light_listing,
    light_look,
    light_page,
    without_checkpoints,
)
from kvstore.sqlite.file import IN_MEMORY, Durability, FileBackend, FileOptions
from kvstore.sqlite.foresight import Foresight
from kvstore.sqlite.index_file import describe
from kvstore.sqlite.read_cache import ReadCache
from kvstore.sqlite.readonly import ReadOnlyConnection
from kvstore.sqlite.searching import sample_vectors, search, search_small
from kvstore.sqlite.vectors import VectorCache, new_cache
from kvstore.store import Store
from kvstore.types import IndexConfig, Item, Namespace

__all__ = ["SQLiteBackend", "SQLiteStore"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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
        read_cache_bytes: memory for items that were read before; they are answered from there as
            long as nobody, of whatever process, has written the file since. 0: none.
        vector_cache_bytes: memory for the vectors of large namespaces, where numpy is installed
            (`agent-kvstore[fast]`); 0: none.
        options: those of `Store`: `default_ttl`, `refresh_ttl`, `max_value_bytes`, `clock`,
            `sweep_interval`, `history`, `read_only`. With `read_only=True` nothing is written or
            made, not even beside the file: one on read-only media or without write permission can
            be read, and so can one that others write, with all that they commit.
    """

    backend: SQLiteBackend

    def __init__(
        self,
        path: FilePath,
        *,
        index: IndexConfig | None = None,
        durability: Durability = "normal",
        busy_timeout: float = 5.0,
        file_mode: int | None = None,
        read_cache_bytes: int = 16 * 2**20,
        vector_cache_bytes: int = 512 * 2**20,
        **options: Any,
    ) -> None:
        if durability not in ("normal", "full"):
            raise InvalidArgumentError(f"durability is 'normal' or 'full', not {durability!r}")
        if busy_timeout != 0:
            check_seconds(busy_timeout, "busy_timeout")
        if file_mode is not None and (file_mode & ~0o777 or file_mode & 0o600 != 0o600):
            raise InvalidArgumentError(
                "file_mode is permission bits with which the owner can read and write, such as "
                f"0o600, not {file_mode:#o}"
            )
        if not isinstance(read_cache_bytes, int) or read_cache_bytes < 0:
            raise InvalidArgumentError(
                f"read_cache_bytes is a number of bytes, 0 for none, not {read_cache_bytes!r}"
            )
        self.path = file_path(path)
        if options.get("read_only") and str(self.path) == IN_MEMORY:
            raise InvalidArgumentError("a temporary store is empty: there is nothing to read only")
        timeout = float(busy_timeout)
        kept = FileOptions(self.path, durability, timeout, file_mode, read_cache_bytes)
        super().__init__(SQLiteBackend(kept, vector_cache_bytes), index=index, **options)

    @classmethod
    def with_embeddings(cls, path: FilePath, model: Any, **options: Any) -> Self:
        """Short for `SQLiteStore(path, index=IndexConfig(model))`."""
        return cls(path, index=IndexConfig(model), **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def _recipe(self) -> Any:
        if str(self.path) == IN_MEMORY:
            raise InvalidArgumentError(
                "a store in ':memory:' is in one process alone: it cannot be copied or pickled; "
                "use a file, or make a store in each process"
            )
        return super()._recipe()


class SQLiteBackend(FileBackend):
    """Rows in a SQLite file: small work on the loop's own thread, the rest on a few others.

    Args:
        options: which file, and how it is kept.
        vector_cache_bytes: memory for the vectors of large namespaces; 0: none.
    """

    most_dimensions = 8192  # of sqlite-vec

    def __init__(self, options: FileOptions, vector_cache_bytes: int = 0) -> None:
        super().__init__(options)
        self._vector_cache_bytes = vector_cache_bytes
        self._cache: VectorCache | None = None
        self._cached: ReadCache | None = None
        self._foresight: Foresight | None = None
        self._looked_in = -1  # the turn of the loop in which the file was last looked at

    def attach(
        self, settings: Settings, index: IndexConfig | None, embedder: Embedder | None
    ) -> None:
        super().attach(settings, index, embedder)
        if self.setup is not None and self.setup.model is not None:
            self._cache = new_cache(self._vector_cache_bytes, self.setup.journal)

    def blocking(self) -> Backend:
        return DirectBackend(self.options)

    # Lifecycle

    worker: type[WorkerConnection] = WorkerConnection  # a simulation has its own threads

    async def open(self) -> None:
        if self.settings.read_only:
            await self._open_read_only()
            return
        connections: list[WorkerConnection] = []
        loose: list[driver.Connection] = []  # for the loop's own thread
        try:
            writer = self.worker(self._open_writer)
            await writer.open()
            connections.append(writer)
            path = self.file
            readers = [
                self.worker(lambda: self._open_readers(path, loose)),
                self.worker(lambda: self.connect_reader(path, is_mapped=True)),
            ]
            for reader in readers:
                await reader.open()
                connections.append(reader)
        except BaseException:
            for each in loose:
                each.close()
            for reader in connections[1:]:
                await reader.close()
            if connections:  # the first of them has the file guarded
                with self.last_close():
                    await writer.close()
            self.discard_temporary()
            raise
        inline, *search = loose
        self._inline_search = search[0] if search else None
        if self._inline_search is not None:
            limit(self._inline_search)
        pace = Pace(asyncio.get_running_loop())
        self._pace = pace
        self._points, self._scans = (Reader(reader, self.opened) for reader in readers)
        cache = self._cached
        self._inline = InlineReader(
            inline, self.settings.clock, pace, self._points, cache, self.look
        )
        if self.setup is not None:
            self._foresight = Foresight(self._inline, self._points, pace, self.setup)
        if cache is not None:
            self.recall, self.recall_past = self._inline.recall, self._inline.recall_past
        self.peek = self._inline.get  # type: ignore[method-assign]  # as below, one call less
        self.past_peek = self._inline.get_past  # type: ignore[method-assign]  # likewise
        self._writer = Writer(
            writer,
            self.opened,
            clock=self.settings.clock,
            busy_timeout=self.options.busy_timeout,
            pace=pace if self.options.durability == "normal" else None,
            bell=self.bell,
            backlog=self.backlog,
            counters=self.counters,
            setup=self.setup,
            cache=cache,
        )
        self.put_now = self._writer.put_now  # type: ignore[method-assign]
        self.change_now = self._writer.change_now  # type: ignore[method-assign]
        self.when_dropped(_abandon, loose, readers, writer, self.ending(writer.raw))

    @property
    def is_turn_over(self) -> bool:  # type: ignore[override]
        return self._pace.is_turn_over

    async def give_way(self) -> None:
        await self._pace.give_way()

    def look(self) -> None:
        """Look at the file, at most with the first call in a turn of the loop."""
        pace = self._pace
        if self._looked_in != pace.turn or not pace.is_turn_watched:
            self._looked_in = pace.turn
            super().look()

    # On threads, as what the file system does takes its time

    def _open_writer(self) -> driver.Connection:
        return without_checkpoints(self.connect_writer(self.choose_file()))

    def _open_readers(self, path: Path, loose: list[driver.Connection]) -> driver.Connection:
        """Open a reader for its thread, and those for the loop's own, which are added to a list."""
        loose.append(connect(path, "ro", busy_timeout=READ_TIMEOUT_S))
        self._cached = self.open_read_cache(loose[0])
        if self.embedder is not None:
            loose.append(self.connect_reader(path, is_mapped=True))
        for each in loose:  # from here on they wait for nobody
            each.execute("PRAGMA busy_timeout = 0")
        return self.connect_reader(path)

    def held(self) -> tuple[Path, Iterable[driver.Connection]] | None:
        workers: tuple[InlineReader | Reader | Writer, ...] = (self._points, self._scans)
        if not self.settings.read_only:
            workers = (self._inline, *workers, self._writer)
        if any(worker.is_running or worker.raw.in_transaction for worker in workers):
            return None
        others = () if self._inline_search is None else (self._inline_search,)
        return self.file, (*others, *(worker.raw for worker in workers))

    async def _open_read_only(self) -> None:
        self.opened = await asyncio.to_thread(lambda: self.look_into(self.choose_file()))
        connections: list[WorkerConnection] = []
        try:
            for _ in range(2):
                connections.append(ReadOnlyConnection(self.source()))
                await connections[-1].open()
        except BaseException:
            for connection in connections:
                await connection.close()
            self.opened.close()
            raise
        self._inline_search = None
        self._pace = Pace(asyncio.get_running_loop())
        self._points, self._scans = (Reader(each, self.opened) for each in connections)
        self._inline = NoInlineReader(self._points, self.settings.clock)
        self.when_dropped(self.opened.close)

    async def close(self) -> None:
        self.finalizer.detach()
        self.recall = self._cached = None  # its view of the file ends
        self._inline.close()
        if self._inline_search is not None:
            self._inline_search.close()
        await self._points.close()
        await self._scans.close()
        if self.settings.read_only:
            self.opened.close()
            return
        await self._writer.finish()
        with self.last_close():
            await self._writer.close()

    # Read

    def peek(self, namespace: Namespace, path: str, key: str) -> list[Item] | None:
        return self._inline.get(namespace, path, key)

    def get(self, namespace: Namespace, path: str, key: str) -> Awaitable[list[Item]]:
        return self._inline.get_later(namespace, path, key)

    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        items = self._inline.get_few(namespace, path, keys)
        if items is None:
            return await self._points.submit(reading.get_many, namespace, path, keys, self.now())
        await self._pace.give_way()
        return items

    def point(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> Awaitable[T]:
        return self._points.submit(read, *args)

    def scan(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> Awaitable[T]:
        return self._scans.submit(read, *args)

    async def _look_here(
        self, light: Weigh | None, read: Callable[[driver.Connection], T]
    ) -> tuple[T] | None:
        """Read in a namespace or a subtree here, if that is light and there is time for it.

        `light` tells on a connection whether it is; `None`: it is not, whatever is there.
        """
        if light is None or not self._pace.allows(
            time.perf_counter(), is_thread_busy=self._scans.is_busy
        ):
            return None
        found = self._inline.scan(light, read)
        if found is not None:
            await self._pace.give_way()
        return found

    async def extend(self, path: str | None) -> None:
        if path is not None and not self.settings.read_only:
            file = self.opened
            await self._writer.run(lambda raw: large.extend(raw, path, file))

    async def select(self, path: str, selection: Selection) -> list[Item]:
        light = light_look(path, selection.subtree, None, selection.filter, selection.text)
        now = self.now()
        found = await self._look_here(
            light, lambda raw: reading.select_few(raw, path, selection, now)
        )
        return found[0] if found else await super().select(path, selection)

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        now = self.now()
        found = await self._look_here(
            light_listing(asked, now),
            lambda raw: reading.list_few(raw, INLINE_BYTES, asked, limit, offset, now),
        )
        few = found[0] if found else None
        return await super().list_namespaces(asked, limit, offset) if few is None else few

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        now = self.now()
        light = light_page(span, ALL, limit, now)
        found = await self._look_here(light, lambda raw: reading.keys(raw, span, limit, now))
        return found[0] if found else await super().keys(span, limit)

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        light, now = light_look(path, subtree, pattern), self.now()
        found = await self._look_here(
            light, lambda raw: reading.count_few(raw, path, pattern, subtree, now)
        )
        return found[0] if found else await super().count(path, pattern, subtree)

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        now = self.now()
        light = light_page(span, filter, limit, now)
        found = await self._look_here(
            light, lambda raw: reading.page(raw, span, filter, limit, now)
        )
        return found[0] if found else await super().page(span, filter, limit)

    def past_peek(
        self, moment: Moment, namespace: Namespace, path: str, key: str
    ) -> list[Item] | None:
        return self._inline.get_past(moment, namespace, path, key)

    async def past_many(self, moment: Moment, path: str, keys: Sequence[str]) -> list[Record]:
        now = self.now()
        found = self._inline.quickly(
            path, keys, lambda raw: past.get_few(raw, moment, path, keys, now, INLINE_BYTES)
        )
        if found is None:
            found = await super().past_many(moment, path, keys)
        await self._pace.give_way()
        return found

    async def description(self) -> Description | None:
        return await self._points.submit(describe)

    async def sample_vectors(self, path: str, limit: int) -> list[tuple[str, str, bytes]]:
        return await self._scans.submit(sample_vectors, path, limit)

    async def search(self, path: str, asked: Search) -> list[Item]:
        assert self.setup is not None
        items = self._search_inline(path, asked)
        if items is not None:
            await self._pace.give_way()
            return items
        now = self.now()
        return await self._scans.submit(search, self.setup, self._cache, path, asked, now)

    async def items_before(self, places: Sequence[tuple[str, str]]) -> list[Item | None]:
        return await self._scans.submit(reading.items_before, places, self.now())

    def _search_inline(self, path: str, asked: Search) -> list[Item] | None:
        """Search on the loop's thread, if that takes but a moment, or return `None`."""
        connection, setup = self._inline_search, self.setup
        began, is_busy = time.perf_counter(), self._scans.is_busy
        if connection is None or setup is None:
            return None
        if not self._pace.allows(began, is_thread_busy=is_busy):
            return None
        try:
            return search_small(connection, setup, path, asked, self.now(), INLINE_BYTES)
        except driver.Error:
            return None  # the thread meets it again, and has the time to deal with it
        except BaseException as exc:
            release(exc)
            raise
        finally:
            self._pace.record(began)

    # Write

    async def unembedded(self, ops: Sequence[Operation]) -> Sequence[str]:
        puts = [op for op in ops if isinstance(op, Put) and op.expected is None]
        if self._foresight is None or len(puts) < len(ops) or not puts:
            return ()
        return await self._foresight.unembedded(puts)

    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        return self._writer.apply(ops)

    # Upkeep

    async def by_itself(self, meter: Meter, read: Callable[[driver.Connection], T]) -> T:
        """Run a read on a connection and a thread of its own, so that nothing waits behind it."""
        path = self.file
        self.opened.look()
        worker: WorkerConnection
        if self.settings.read_only:
            worker = ReadOnlyConnection(self.source())
        else:
            worker = self.worker(lambda: connect(path, "ro", busy_timeout=READ_TIMEOUT_S))
        await worker.open()
        reader = Reader(worker, self.opened)
        try:
            with meter:
                return await reader.submit(read)
        finally:
            await asyncio.shield(reader.close())

    async def vacuum(self) -> int:
        return await self._writer.run(
            lambda connection: backup.vacuum(connection, self.opened, self.options.busy_timeout)
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
