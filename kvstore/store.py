"""`Store`: the contract, checked and normalised once, over the primitives of a `Backend`.

The public methods check their arguments, build `operations` and hand them to the backend. What is
one method's own is here; what takes more room has a module: the checks (`arguments`), the try of a
transaction, watching, scans and items in bulk.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
import weakref
from asyncio import get_running_loop
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import IO, Any, Final, NoReturn, Self, TypeVar, overload

from kvstore import bulk, codec, value_changes
from kvstore.arguments import (
    TTL,
    Indexing,
    LabelPattern,
    Place,
    check_count,
    check_function,
    check_keys,
    check_limit,
    check_query,
    check_score,
    check_seconds,
    check_span,
    check_version,
    whole_query,
)
from kvstore.backend import Backend, NamespaceQuery, Selection, Settings
from kvstore.collecting import uncollected
from kvstore.embedding import Embedder, UnavailableError
from kvstore.errors import (
    ConflictError,
    EmbeddingError,
    IndexMismatchError,
    InvalidArgumentError,
    ReadOnlyError,
    StoreClosedError,
    StoreError,
    ValueTypeError,
    WrongLoopError,
)
from kvstore.files import FilePath, check_target, whole_path
from kvstore.filters import Filter, parse_filter
from kvstore.instants import lifetime, to_datetime
from kvstore.lifecycle import LoopLock, remember
from kvstore.log import Log
from kvstore.misuse import WithAsync, no_option
from kvstore.namespace import address, check_key, decode_namespace, is_text, show
from kvstore.observing import OBSERVED_OF_LOGS, OBSERVED_OF_QUEUES, Observer, observe, tell
from kvstore.operations import (
    Adopt,
    Append,
    Conflict,
    Delete,
    Embedded,
    Expire,
    Forget,
    Keep,
    Mutate,
    OfItem,
    Operation,
    Put,
    PutColumns,
    PutJob,
    Reindex,
    Remove,
    Rewind,
    Sweep,
    Touch,
    UnembeddedError,
)
from kvstore.ordering import first_items, parse_order
from kvstore.own_vectors import Given, OwnVectors, item_vectors, query_vector
from kvstore.past import check_moment, check_root
from kvstore.past_view import Past
from kvstore.paths import EACH, MISSING, parse_path
from kvstore.patterns import compile_pattern
from kvstore.queue import Queue, micros_of
from kvstore.ranking import Search
from kvstore.recipe import Recipe
from kvstore.report import Meter, Metrics, Progress, Reindexed, Report, Stats
from kvstore.reranking import CANDIDATES, Reranker, fused, text_for
from kvstore.rules import WORDS_ALONE, check_field, encode_value, encode_values, parse_indexing
from kvstore.text import WHOLE, fold, query_words, texts_of
from kvstore.transaction import Transaction
from kvstore.typed import Typed
from kvstore.types import (
    UNKNOWN,
    Change,
    IndexConfig,
    Item,
    Items,
    Namespace,
    Recall,
    SearchQuery,
)
from kvstore.waiting import on_own_thread
from kvstore.watching import Watch, trim_of

__all__ = ["Store"]

_LOG = logging.getLogger("kvstore")

T = TypeVar("T")
V = TypeVar("V")

DEFAULT_MAX_VALUE_BYTES: Final = 64 * 2**20
_SWEEP_SLICE = 500  # rows deleted in one transaction, so that a sweep never holds the lock long
_TRIM_SLICE = 5_000  # the same for old changes, which cost less
_FEED_SPAN = 3_600_000_000  # microseconds for which changes alone are kept for those who watched
_RETRY_PAUSE_S = 0.05  # the longest pause between two tries of an optimistic change

_CONFLICTS = ("replace", "skip", "error")
_MOST_NAMED = 5  # items in a message
_REINDEX_SLICE = 64  # items indexed in one transaction
_MODES = ("auto", "semantic", "text", "hybrid")
_READ_ONLY = (
    "this store was opened with read_only=True, and writes nothing: open another one without it"
)
_MANY = 2_000  # puts of one call that are worked on apart from the loop
_ENCODED_AT_ONCE = 5_000  # of so many, on a thread, which is not stopped in between
_IN_A_TURN = 256  # items of one call that are worked on in one turn of the loop
_EVERYTHING = 2**53  # as a limit
_ANYWHERE: Final = object()  # instead of a loop: open, and on whatever thread


class Store(WithAsync, Recipe):
    """Items under a key in a hierarchical namespace.

    Namespaces are sequences of non-empty labels, such as `("users", "alice")`; `()` is the root.
    A store is inert until opened, by `async with store:` or `await store.open()`, and then
    belongs to the running event loop.

    Every method raises `StoreClosedError` outside `open` and `close`, `WrongLoopError` on another
    loop, `InvalidNamespaceError` for what is no namespace and `InvalidKeyError` for what is no
    key; a write to a store with `read_only` raises `ReadOnlyError`. A call that fails or is
    cancelled leaves the store either as it was or with the whole of the call done.

    Args:
        backend: where the items are kept.
        index: what to index for search; `None`: nothing.
        default_ttl: lifetime of items put without one, in seconds; `None`: for ever.
        refresh_ttl: whether reads renew an item's lifetime.
        max_value_bytes: the longest encoded value that is accepted.
        clock: the present time in seconds since the epoch.
        sweep_interval: seconds between two sweeps of expired rows; `None`: only by `sweep()`.
        history: for how long what is replaced, deleted or expired is kept, in seconds or as a
            `timedelta`, counted from when it ceased to be: for `history`, `at`, `rewind` and
            `watch`. `None`: nothing, and no write costs more for it; the changes alone, without
            values, are recorded for an hour after somebody watched, so that a `watch` can be
            resumed. A file keeps it for whoever writes there, and goes on for that time after it
            was last opened by a store that asks for it.
        read_only: refuse every write with `ReadOnlyError`; nothing is written.
        reindex: whether to `reindex` in the background once the store is open. Until that is done,
            searches by words and by meaning serve what the index holds; once it is this store's,
            if another model has made it. What goes wrong is logged, and left to `reindex()`.
        observer: called after each call with its name, its seconds, and its error or `None`, on
            the thread of the call; what it raises is logged. Calls of logs and queues are
            `"log.append"`, `"queue.put"` and the like; a `"job"` is a block of `async with job`,
            whose error is the exception that ended it.
        unknown: refused, by the names of the options that there are.

    Attributes:
        backend: where the items are kept.
        settings: what the store was told.
        index: what it indexes for search.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        index: IndexConfig | None = None,
        default_ttl: TTL = None,
        refresh_ttl: bool = False,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        clock: Callable[[], float] = time.time,
        sweep_interval: float | None = 60.0,
        history: float | timedelta | None = None,
        read_only: bool = False,
        reindex: bool = False,
        observer: Observer | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise no_option(type(self), unknown)
        embedder = _embedder_of(index, backend)
        check_count(max_value_bytes, "max_value_bytes", least=1)
        check_function(clock, "clock")
        if sweep_interval is not None:
            check_seconds(sweep_interval, "sweep_interval")
        span = _FEED_SPAN if history is None else check_span(history, "history")
        if history is not None and not backend.keeps_history:
            raise InvalidArgumentError(
                f"a {type(backend).__name__} keeps no history: leave history out, or use a store "
                "of kvstore's own"
            )
        if read_only and refresh_ttl:
            raise InvalidArgumentError(
                "refresh_ttl writes at every read, which a store with read_only=True does not"
            )
        if not isinstance(reindex, bool):
            raise InvalidArgumentError(f"reindex is True or False, not {reindex!r}")
        if reindex and (index is None or read_only):
            why = "has no index" if index is None else "writes nothing"
            raise InvalidArgumentError(f"reindex=True is of no use to a store that {why}")
        lasting = None if default_ttl is None else lifetime(default_ttl)
        settings = Settings(
            clock,
            lasting,
            refresh_ttl,
            max_value_bytes,
            sweep_interval,
            span,
            history is not None,
            bool(read_only),
            reindex,
        )
        self.backend = backend
        self.settings = settings
        self.index = index
        self._reranker = None
        if index is not None and index.rerank is not None:
            self._reranker = Reranker(index.rerank)
        self._ranks = index is not None and index.ranks
        self._embedder = embedder
        backend.attach(settings, index, embedder)
        self._embedding_writes = 0  # writes that wait for the model
        self._loop: Any = None  # the one that it is open on; `_ANYWHERE`; `None`: it is not open
        self._recall: Recall | None = None  # while it is open, of a backend that has a memory
        self._refreshes_reads = self.settings.refresh_ttl
        self._look = None if type(backend).look is Backend.look else backend.look
        self._lifecycle = LoopLock()
        self._is_left_behind = False  # what it held stayed in the process that this one forked from
        self._sweeper: asyncio.Task[None] | None = None
        self._reindexing: asyncio.Task[None] | None = None
        self._observer = observer
        if observer is not None:
            observe(self, observer)

    def blocking(self) -> Store | None:
        """Return a store on the same items, not open, that any thread may use without a loop.

        Its coroutines never wait for anything but the work itself, so sync code runs them by
        `kvstore.driving.run_directly`. `None`: there is none of this kind.
        """
        backend = None if self.index is not None else self.backend.blocking()
        if backend is None:
            return None
        return Store(backend, observer=self._observer, **self.settings.options())

    # Lifecycle

    async def open(self) -> Self:
        """Open the store on the running loop; an open store stays as it is.

        Raises:
            SchemaError: the file was written by a newer version, or by another program.
            StoreCorruptError: it is no database, or it is damaged.
            StoreAccessError: it cannot be opened.
            WrongLoopError: the store is open on another loop.
        """
        if not self.backend.needs_loop:
            if self._loop is None:
                await self._open_on(_ANYWHERE)
            return self
        async with self._lifecycle:
            if self._loop is not None:
                self.require_open()
                return self
            loop = asyncio.get_running_loop()
            await self._open_on(loop)
            if self.settings.sweep_interval is not None and not self.settings.read_only:
                self._sweeper = asyncio.create_task(_sweep_regularly(weakref.ref(self)))
                end = weakref.finalize(self, _cancel, loop, self._sweeper)
                end.atexit = False
                self._sweeper.add_done_callback(lambda _: end.detach())
            if self.settings.reindex:
                self._reindexing = asyncio.create_task(self._reindex_quietly())
        return self

    async def _open_on(self, loop: Any) -> None:
        """Open the backend, and belong to a loop, or to none, from then on."""
        self._require_here()
        await self.backend.open()
        if self.settings.keeps and not self.settings.read_only:
            try:
                await self.backend.apply((Keep(self.settings.history),))
            except BaseException:
                await self.backend.close()
                raise
        self._loop = loop
        self._recall = self.backend.recall
        remember(self)

    async def close(self) -> None:
        """Finish every accepted write, then close; a closed store stays as it is."""
        if self._loop is None and not self._lifecycle.locked():
            return
        if not self.backend.needs_loop:
            self._loop = self._recall = self.backend.recall_past = None
            await self.backend.close()
            return
        closing = asyncio.ensure_future(self._close_once())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing  # a cancelled close still closes
            raise

    async def _close_once(self) -> None:
        async with self._lifecycle:
            if self._loop is None:
                return
            if asyncio.get_running_loop() is not self._loop:
                self._refuse()
            self._loop = self._recall = self.backend.recall_past = None
            self.backend.bell.ring()  # watches see that the store is closed
            helpers = [task for task in (self._sweeper, self._reindexing) if task is not None]
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._sweeper = self._reindexing = None
            while self._embedding_writes:  # noqa: ASYNC110 - seldom, and briefly
                await asyncio.sleep(0.001)
            await self.backend.close()
            if self._embedder is not None:
                await self._embedder.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __copy__(self) -> Self:
        make, args, kwargs = self._recipe()
        made: Self = make(*args, **kwargs)
        return made

    @property
    def is_open(self) -> bool:
        """Whether it is open, on whatever loop."""
        return self._loop is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it is open on; `None`: it is not open, or needs no loop."""
        return None if self._loop is _ANYWHERE else self._loop

    def cross_fork(self) -> None:
        """Become unopened, in a forked child: connections and loops belong to the parent."""
        is_left_behind = self._is_left_behind or self.backend.cross_fork(self._loop is not None)
        self._make_anew()
        self._is_left_behind = is_left_behind

    def require_writable(self) -> None:
        """Raise unless the store is open, and was opened for writing."""
        self.require_open()
        if self.settings.read_only:
            raise ReadOnlyError(_READ_ONLY)

    def _require_here(self) -> None:
        """Raise if what this store held is in memory, in another process."""
        if self._is_left_behind:
            raise StoreClosedError(
                f"this {type(self).__name__} is in the memory of the process that this one was "
                "forked from; make one in each process, or use a file"
            )

    def require_open(self) -> None:
        """Raise unless the store is open on the running loop."""
        loop = self._loop
        if loop is not _ANYWHERE and (loop is None or get_running_loop() is not loop):
            self._refuse()
        if self._look is not None:
            self._look()

    def _refuse(self) -> NoReturn:
        if not self.backend.needs_loop:
            raise StoreClosedError("this KeyValueStore is closed; make another one")
        if self._loop is None:
            raise StoreClosedError(
                f"this {type(self).__name__} is not open: use it inside 'async with store:', or "
                "between 'await store.open()' and 'await store.close()'"
            )
        raise WrongLoopError(
            f"this {type(self).__name__} belongs to the event loop that opened it; open one in "
            "each loop, or use the sync facade kvstore.KeyValueStore, which works from any thread"
        )

    # The trait

    async def put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Any,
        *,
        ttl: TTL = None,
        index: Indexing = None,
        vector: Given = None,
        if_version: int | None = None,
    ) -> Item:
        """Store a value under a key, over what may be there.

        Args:
            namespace: where it lives.
            key: any text.
            value: JSON and `bytes`; of an `Item`, its value.
            ttl: lifetime in seconds or as a `timedelta`; `None`: the store's default; `FOREVER`:
                without end, whatever the default.
            index: `False`: do not index this item for search; paths: index just those.
            vector: the item's vector, of any length but 0, computed elsewhere: the model, if there
                is one, is not asked, and must be the one that it comes from. Or one for each
                field that is indexed, in their order; or a mapping from fields to one vector or
                several; the item scores by its best. It lasts until the item is written again,
                and is not in exports.
            if_version: write only over exactly this version; 0: only if it is absent.

        Returns:
            The item as stored. `created_at` is kept from the item that it replaces.

        Raises:
            ConflictError: `if_version` names another version than the stored one.
            ValueEncodingError: something in the value could not come back unchanged.
            ValueTooLargeError: the encoded value is longer than `max_value_bytes`.
            InvalidTTLError: the ttl is not a positive, finite duration.
            InvalidArgumentError: the vector is none, is not as long as those of the index, or the
                store was opened without an index.
            IndexMismatchError: there is a vector, and the index is another model's.
        """
        self.require_open()
        if self.backend.backlog.is_full:
            await self.backend.backlog.room()
        if codec.is_long(value):
            op = await self.backend.aside(
                self.prepare_put, namespace, key, value, ttl, index, if_version, vector
            )
        else:
            op = self.prepare_put(namespace, key, value, ttl, index, if_version, vector)
        item = self.backend.put_now(op)
        if item is None:
            stored: Item = (await self._submit((op,)))[0]
            return stored
        if not isinstance(item, Item):
            return await item
        if self.backend.is_turn_over:
            await self.backend.give_way()
        return item

    async def get(
        self, namespace: Sequence[str], key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """Return the item, or `None` if there is none.

        Args:
            namespace: where to look.
            key: its key.
            refresh_ttl: whether this read renews the item's lifetime; `None`: as the store does.
        """
        if (recall := self._recall) is None or (item := recall(namespace, key)) is UNKNOWN:
            self.require_open()
            labels, path = address(namespace)
            key = check_key(key)
            items = self.backend.peek(labels, path, key)
            if items is None:
                items = await self.backend.get(labels, path, key)
            item = items[0] if items else None
        if item is not None and (refresh_ttl or (refresh_ttl is None and self._refreshes_reads)):
            items = await self._refreshed([item])
            item = items[0] if items else None
        return item

    async def delete(
        self, namespace: Sequence[str], key: str, *, if_version: int | None = None
    ) -> bool:
        """Delete the item; return whether it was there.

        Raises:
            ConflictError: `if_version` names another version than the stored one.
        """
        self.require_open()
        labels, path = address(namespace)
        check_version(if_version)
        found: bool = (await self._submit((Delete(labels, path, check_key(key), if_version),)))[0]
        return found

    async def search(
        self,
        namespace: Sequence[str],
        query: str | SearchQuery | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        order_by: str | Sequence[str] | None = None,
        limit: int = 10,
        offset: int = 0,
        mode: str = "auto",
        subtree: bool = False,
        min_score: float | None = None,
        vector: Given = None,
        refresh_ttl: bool | None = None,
    ) -> list[Item]:
        """Find items of a namespace.

        Without a query: the items that pass the filter, the latest write first: by `version`, so
        that a clock that was wrong changes nothing. With a query and no index: those of them
        whose text contains it, whatever the case, in the same order.

        Args:
            namespace: where to look; items of other namespaces are never found.
            query: words or a question; or a whole `SearchQuery`, then without other arguments.
            filter: conditions on the value, such as `{"status": "open", "n": {"$gte": 3}}`.
            order_by: `"key"`, `"created_at"`, `"updated_at"`, `"expires_at"`, `"version"` or a path
                into the value such as `"$.score"`, with a leading `-` the greatest first; several
                as a list. Missing values come last; null, booleans, numbers and strings follow
                each other. Not for ranked searches.
            limit: how many items at most.
            offset: how many to skip first.
            mode: `"semantic"`, by meaning; `"text"`, by words; `"hybrid"`, by both; or `"auto"`:
                without a model by words, with one by both, which was measured to be best, but by
                meaning where a cosine is asked for, with `min_score` or by a `vector` alone, and
                while the words of the index wait for `reindex`.
            subtree: look in the namespaces below, too.
            min_score: leave out what scores less; for ranked searches. With `mode="auto"` and a
                model, it is of the cosine.
            vector: search by this one, computed elsewhere, in place of the model's for `query`,
                which then says the words of a search by both.
            refresh_ttl: whether the items found get their lifetime renewed; `None`: as the
                store does.

        Raises:
            InvalidFilterError: the filter does not parse.
            InvalidArgumentError: a bad order_by, limit, offset, mode, min_score or vector; or a
                mode that this store has no index for.
        """
        self.require_open()
        rest: Any = limit, offset, mode, subtree, min_score, vector
        asked = SearchQuery(query, filter, order_by, *rest)  # type: ignore[arg-type]
        return await self.find(namespace, whole_query(asked), refresh_ttl)

    async def list_namespaces(
        self,
        prefix: LabelPattern = (),
        *,
        suffix: LabelPattern = (),
        max_depth: int | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Namespace]:
        """List the distinct namespaces that hold live items, sorted.

        Args:
            prefix: labels that they begin with; `...` matches any one label.
            suffix: labels that they end with; `...` matches any one label.
            max_depth: cut namespaces to this many labels, and list each result once.
            limit: how many at most; `None`: all.
            offset: how many to skip first.
        """
        self.require_open()
        asked = NamespaceQuery.of(prefix, suffix, max_depth)
        limit = check_limit(limit)
        offset = check_count(offset, "offset")
        if limit == 0:
            return []
        return await self.backend.list_namespaces(asked, limit, offset)

    # Many at once

    async def put_many(
        self,
        namespace: Sequence[str],
        mapping: Mapping[str, Any],
        *,
        ttl: TTL = None,
        index: Indexing = None,
    ) -> list[Item]:
        """Store many values, all or none of them; the arguments and errors are those of `put`.

        Returns:
            The stored items, in the order of the mapping.
        """
        await self.room()
        if not isinstance(mapping, Mapping):
            raise InvalidArgumentError(
                f"put_many takes a mapping of keys to values, not {type(mapping).__name__}"
            )
        labels, path = address(namespace)
        span, paths = self._lifetime(ttl), None if index is None else parse_indexing(index)
        now = dict(mapping).items() if type(mapping) is dict else list(mapping.items())
        if len(now) > _MANY:
            return Items(await self._submit(await self._many(now, labels, path, span, paths)))
        keys: list[str] = []
        datas: list[bytes] = []
        left = iter(now)
        while some := list(islice(left, _IN_A_TURN)):
            if keys:
                await self.backend.pause(0)
            more, values = _columns(some)
            keys += more
            datas += await self._encode_some(values, labels, more)
        if not keys:
            return Items()
        puts = PutColumns(labels, path, keys, datas, span, paths)
        return Items(await self._submit(puts if self.backend.takes_columns else list(puts)))

    async def _many(
        self,
        given: Collection[tuple[str, Any]],
        namespace: Namespace,
        path: str,
        ttl: int | None,
        indexing: tuple[str, ...] | None,
    ) -> Sequence[Operation]:
        """Return a unit of many puts, whose values are encoded now or while they are written."""
        keys, values = await self.backend.aside(_columns, given)

        async def encode(begin: int) -> list[bytes]:
            if begin:
                await self.backend.pause(0)
            part = slice(begin, begin + _IN_A_TURN)
            some = values[part], namespace, keys[part]
            return await self._encode_some(*some, aside=on_own_thread)

        if self.backend.encodes_late:
            datas = await encode(0)
            return PutColumns(namespace, path, keys, datas, ttl, indexing, encode)
        datas = []
        for begin in range(0, len(keys), _ENCODED_AT_ONCE):
            part = slice(begin, begin + _ENCODED_AT_ONCE)
            datas += await self.backend.aside(
                self._encode_values, values[part], namespace, keys[part]
            )
        puts = PutColumns(namespace, path, keys, datas, ttl, indexing)
        with uncollected():
            return puts if self.backend.takes_columns else list(puts)

    async def get_many(
        self, namespace: Sequence[str], keys: Iterable[str], *, refresh_ttl: bool | None = None
    ) -> dict[str, Item]:
        """Return the items that are there, by key, in the order of `keys`."""
        self.require_open()
        labels, path = address(namespace)
        wanted = await self._keys(keys)
        items = await self.backend.get_many(labels, path, wanted) if wanted else []
        if items and self._refreshes(refresh_ttl):
            items = await self._refreshed(items)
        if len(items) > _IN_A_TURN:
            return await self.backend.aside(_by_key, wanted, items)
        return _by_key(wanted, items)

    async def _keys(self, keys: Iterable[str]) -> list[str]:
        """Check keys, however many, and hold up nobody for it."""
        if isinstance(keys, Sized) and not isinstance(keys, str) and len(keys) > _IN_A_TURN:
            return await self.backend.aside(check_keys, list(keys))
        return check_keys(keys)

    async def delete_many(self, namespace: Sequence[str], keys: Iterable[str]) -> int:
        """Delete many items in one transaction; return how many were there."""
        self.require_open()
        labels, path = address(namespace)
        deletes = [Delete(labels, path, key) for key in await self._keys(keys)]
        return sum(await self._submit(deletes)) if deletes else 0

    # Wildcards and listings

    async def remove(self, namespace: Sequence[str], pattern: str, *, subtree: bool = False) -> int:
        """Delete the items whose keys match a wildcard pattern; return how many went.

        Args:
            namespace: where to remove.
            pattern: `*`, `?` and `[...]` as in SQLite's GLOB; `kvstore.escape` makes text literal.
            subtree: remove in the namespaces below, too.

        Raises:
            InvalidPatternError: the pattern does not parse.
        """
        self.require_open()
        labels, path = address(namespace)
        op = Remove(labels, path, compile_pattern(pattern), subtree)
        removed: int = (await self._submit((op,)))[0]
        return removed

    async def keys(
        self,
        namespace: Sequence[str],
        pattern: str = "*",
        *,
        subtree: bool = False,
        after: Place | None = None,
        before: Place | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[str]:
        """List the keys that match a pattern, sorted; with `subtree` by (namespace, key).

        The first ones, the last ones and the next ones after some key cost by what they are.

        Args:
            namespace: where to look.
            pattern: which keys, by wildcards.
            subtree: look in the namespaces below, too.
            after: begin behind this key; with `subtree` a (namespace, key) or an `Item`.
            before: end in front of this key; the same.
            reverse: begin at the end: `after < key < before` all the same, in descending order.
            limit: how many at most; `None`: all.

        Raises:
            InvalidPatternError: the pattern does not parse.
            InvalidArgumentError: a bad limit; or `after` or `before` name no place there.
        """
        self.require_open()
        limit = check_limit(limit)
        span = bulk.span_of(namespace, pattern, subtree, after, before, reverse)
        return [] if limit == 0 or span.is_empty else await self.backend.keys(span, limit)

    async def count(
        self, namespace: Sequence[str], pattern: str = "*", *, subtree: bool = False
    ) -> int:
        """Count the items whose keys match a pattern.

        Raises:
            InvalidPatternError: the pattern does not parse.
        """
        self.require_open()
        _, path = address(namespace)
        return await self.backend.count(path, compile_pattern(pattern), subtree)

    def scan(
        self,
        namespace: Sequence[str] = (),
        *,
        pattern: str = "*",
        filter: Mapping[str, Any] | None = None,
        subtree: bool = True,
        after: Place | None = None,
        before: Place | None = None,
        reverse: bool = False,
        batch_size: int = 500,
    ) -> AsyncIterator[Item]:
        """Iterate over everything, in (namespace, key) order.

        Memory holds one batch, and no transaction outlives one: an item that is written or
        deleted meanwhile may or may not be seen, every other one is seen exactly once.

        Args:
            namespace: where to look.
            pattern: which keys, by wildcards.
            filter: conditions on the value, as in `search`.
            subtree: look in the namespaces below, too.
            after: begin behind this `Item`, such as the last one of another scan, or this
                (namespace, key); without `subtree`, a key will do.
            before: end in front of it; the same.
            reverse: begin at the end, in descending order.
            batch_size: how many items memory holds at once.

        Raises:
            InvalidArgumentError: a bad batch_size; or `after` or `before` name no place there.
            InvalidPatternError: the pattern does not parse.
            InvalidFilterError: the filter does not parse.
        """
        self.require_open()
        batch_size = check_count(batch_size, "batch_size", least=1)
        span = bulk.span_of(namespace, pattern, subtree, after, before, reverse)
        return bulk.Scan(self, span, parse_filter(filter), batch_size)

    # Atomic changes

    async def expire(self, namespace: Sequence[str], key: str, ttl: TTL) -> bool:
        """Give an item another lifetime, from now on; return whether it was there.

        Its value and its version stay, and it is no change for those who watch.

        Args:
            namespace: where it lives.
            key: its key.
            ttl: in seconds or as a `timedelta`; `FOREVER`: without end; `None`: the store's
                default.

        Raises:
            InvalidTTLError: the ttl is not a positive, finite duration.
        """
        self.require_open()
        labels, path = address(namespace)
        op = Expire(labels, path, check_key(key), self._lifetime(ttl))
        found: bool = (await self._submit((op,)))[0]
        return found

    async def increment(
        self,
        namespace: Sequence[str],
        key: str,
        amount: float = 1,
        *,
        field: str | None = None,
        initial: float = 0,
        ttl: TTL = None,
    ) -> int | float:
        """Add to a number, atomically across tasks, threads and processes; return the new one.

        An item that is there keeps its lifetime; one that is created gets the default.

        Args:
            namespace: where it lives.
            key: its key.
            amount: what to add.
            field: a path into an object, whose missing parts are made; `None`: the value itself.
            initial: what a missing number counts as.
            ttl: lifetime of an item that this call creates; as in `put`.

        Raises:
            ValueTypeError: what is there, or `amount`, is no number.
            ValueEncodingError: the sum does not fit 64 bits, or is not finite.
        """
        for name, number in (("amount", amount), ("initial", initial)):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise ValueTypeError(f"{name} is a number, not {type(number).__name__}")
        if field is not None:
            check_field(field)
        path = None if field in (None, WHOLE) else parse_path(field)
        if path is not None and EACH in path:
            raise InvalidArgumentError("increment takes a path to one place, without '[*]'")
        total: int | float = await self._mutate(
            namespace, key, lambda where: value_changes.increment(where, amount, path, initial), ttl
        )
        return total

    async def append(
        self,
        namespace: Sequence[str],
        key: str,
        *values: Any,
        max_length: int | None = None,
        ttl: TTL = None,
    ) -> int:
        """Add values to the end of a list, atomically; return the new length.

        Args:
            namespace: where it lives.
            key: its key; a missing list is made.
            values: what to add, in order.
            max_length: keep only this many of the last elements.
            ttl: lifetime of an item that this call creates; as in `put`.

        Raises:
            ValueTypeError: what is there is no list.
            ValueEncodingError: a value could not come back unchanged.
        """
        if max_length is not None:
            check_count(max_length, "max_length")
        added = codec.decode(codec.encode(list(values)))
        length: int = await self._mutate(
            namespace, key, lambda where: value_changes.append(where, added, max_length), ttl
        )
        return length

    async def pop(
        self, namespace: Sequence[str], key: str, index: int = 0, *, default: Any = None
    ) -> Any:
        """Take an element out of a list, atomically, and return it.

        Args:
            namespace: where it lives.
            key: its key.
            index: which one: 0 the first, -1 the last.
            default: what to return if there is no such element.

        Raises:
            ValueTypeError: what is there is no list.
        """
        if isinstance(index, bool) or not isinstance(index, int):
            raise InvalidArgumentError(f"index is an int, not {type(index).__name__}")
        return await self._mutate(
            namespace, key, lambda where: value_changes.pop(where, index, default)
        )

    async def update(
        self,
        namespace: Sequence[str],
        key: str,
        fn: Callable[[Any], Any],
        *,
        default: Any = None,
        attempts: int = 10,
    ) -> Item:
        """Read, change and write an item atomically.

        Nothing is locked while `fn` runs; it runs again when another write came between. An
        item that is there keeps its lifetime.

        Args:
            namespace: where it lives.
            key: its key.
            fn: from the value to the new value, sync or async.
            default: the value of a missing item.
            attempts: how often `fn` runs at most.

        Raises:
            ConflictError: another write came between every time.
            ValueEncodingError: the new value could not come back unchanged.
        """
        self.require_writable()
        check_function(fn, "update")
        check_count(attempts, "attempts", least=1)
        labels, path = address(namespace)
        key = check_key(key)
        for attempt in range(1, attempts + 1):
            found = await self._read(labels, path, key)
            value = fn(found[0].value if found else default)
            new = await value if inspect.isawaitable(value) else value
            data = self._encode(new, labels, key)
            version = found[0].version if found else 0
            self.require_open()
            try:
                op = Put(labels, path, key, data, self.settings.default_ttl, version, keep=True)
                item: Item = (await self._submit((op,)))[0]
            except ConflictError as exc:
                await self._lost("the update", attempt, attempts, exc)
            else:
                return item
        raise AssertionError("unreachable")

    async def _lost(self, what: str, attempt: int, attempts: int, exc: ConflictError) -> None:
        """Pause after a try that another write has undone, or give up after the last."""
        if attempt == attempts:
            raise ConflictError(f"{what} met a conflict {attempts} times; the last: {exc}") from exc
        await self._pause(attempt)

    @overload
    async def transact(
        self, fn: Callable[[Transaction], Awaitable[T]], *, attempts: int = 10
    ) -> T: ...

    @overload
    async def transact(self, fn: Callable[[Transaction], T], *, attempts: int = 10) -> T: ...

    async def transact(self, fn: Callable[[Transaction], Any], *, attempts: int = 10) -> Any:
        """Run `fn(tx)` as one optimistic transaction, and return what it returns.

        `fn` reads by `await tx.get(...)` and writes by `tx.put(...)` and `tx.delete(...)`, which
        may be awaited. Nothing is locked while it runs. At its end the items that it read are
        checked and its writes applied in one transaction; if one of the items has changed, it
        runs again. Its own errors pass through, and then nothing is written.

        Args:
            fn: sync or async; may run several times.
            attempts: how often at most.

        Raises:
            ConflictError: other writers came between every time.
        """
        self.require_writable()
        check_count(attempts, "attempts", least=1)
        check_function(fn, "transact")
        for attempt in range(1, attempts + 1):
            tx = Transaction(self._read, self.prepare_put, self.prepare_append, self.prepare_job)
            outcome = fn(tx)
            result = await outcome if inspect.isawaitable(outcome) else outcome
            try:
                self.require_open()
                if unit := tx.unit():
                    await self._submit(unit)
                    tx.committed()
            except ConflictError as exc:
                await self._lost("the transaction", attempt, attempts, exc)
            else:
                return result
        raise AssertionError("unreachable")

    async def sweep(self) -> int:
        """Remove the rows of expired items now; return how many there were.

        Expired items are never visible; this frees their space. It runs by itself, too.
        """
        self.require_open()
        total: int = 0
        while True:
            trim = trim_of(self.backend, _TRIM_SLICE)
            swept, trimmed = await self._submit((Sweep(_SWEEP_SLICE), trim))
            total += swept
            if swept < _SWEEP_SLICE and trimmed < _TRIM_SLICE:
                return total

    # Sequences

    def typed(self, namespace: Sequence[str], model: type[V]) -> Typed[V]:
        """Return a namespace whose values are of one type; see `Typed`.

        Args:
            namespace: where its items are.
            model: a pydantic model, a dataclass, a TypedDict, or whatever else pydantic validates.

        Raises:
            InvalidNamespaceError: the namespace is no sequence of labels.
            MissingDependencyError: pydantic is not installed.
        """
        return Typed(self, namespace, model)

    def log(self, namespace: Sequence[str]) -> Log:
        """Return the append-only log that a namespace is, or becomes with the first entry.

        Its entries are items of the namespace, under their positions as keys, and so are seen by
        `get`, `search`, `scan`, `watch` and exports.

        Raises:
            InvalidNamespaceError: from its methods: the namespace is a queue.
        """
        self._require_sequences()
        log = Log(self, namespace)
        if self._observer is not None:
            observe(log, self._observer, OBSERVED_OF_LOGS, "log.")
        return log

    def queue(
        self,
        namespace: Sequence[str],
        *,
        lease: float = 30.0,
        attempts: int = 5,
        backoff: float = 1.0,
    ) -> Queue:
        """Return the queue of jobs that a namespace is, or becomes with the first job.

        The options are the taker's, and written at each take.

        Args:
            namespace: which, of which nothing else makes use.
            lease: seconds for which a job is leased to who takes it, from a millisecond on.
            attempts: how often a job is tried, at most.
            backoff: seconds before the second attempt, doubled before each next one, an hour at
                most, by 20 % more or less.

        Raises:
            InvalidNamespaceError: from its methods: the namespace is a log, or holds other items.
        """
        self._require_sequences()
        queue = Queue(self, namespace, lease=lease, attempts=attempts, backoff=backoff)
        if self._observer is not None:
            observe(queue, self._observer, OBSERVED_OF_QUEUES, "queue.")
        return queue

    def _require_sequences(self) -> None:
        if not self.backend.has_sequences:
            raise InvalidArgumentError(
                f"a {type(self).__name__} has no logs and no queues; kvstore's own stores have them"
            )

    # Operations

    def watch(
        self,
        namespace: Sequence[str] = (),
        *,
        pattern: str = "*",
        subtree: bool = True,
        since: int | Change | None = None,
    ) -> Watch:
        """Iterate over every put, delete and expiry from now on, by any process.

            async for change in store.watch(("users",)):
                ...

        Changes come in the order of their versions and none is left out. Of a put, `item` is the
        item as it then was in a store with `history`. Without, it is the item as it now is, which
        a later change may have made newer, or `None` if it is gone; and writers record changes
        only while somebody watches, and for an hour after. A lifetime that a read renewed is no
        change.

        Args:
            namespace: where to look.
            pattern: which keys, by wildcards.
            subtree: look in the namespaces below, too.
            since: begin after this version, or after the last `Change` that one has seen (over
                several roots of a shared server it must be a `Change`);
                `None`: now. `async with store.watch(...) as changes:` says when now is.

        Raises:
            WatchExpiredError: from the iteration: the changes after `since` are not kept, or were
                dropped before they were read.
            InvalidArgumentError: `since` is no version; or, from the iteration, is ahead.
            StoreClosedError: from the iteration, too, when the store closes.
            ReadOnlyError: the store is read-only; to watch is to have writers record changes.
        """
        self.require_writable()  # what watches has writers record changes
        _, path = address(namespace)
        if since is not None and not isinstance(since, Change):
            check_count(since, "since")
        return Watch(self, path, compile_pattern(pattern), subtree, since)

    # The past

    async def history(
        self, namespace: Sequence[str], key: str, *, limit: int | None = None
    ) -> list[Change]:
        """List the changes of an item, the newest first.

        A put carries the item as it then was, with the lifetime that it had last. How far back it
        goes is a matter of the `history` that the store keeps; without, it is what is there now.

        Args:
            namespace: where it lives.
            key: its key; the item may be gone.
            limit: how many changes at most; `None`: all that are kept.
        """
        self.require_open()
        _, path = address(namespace)
        key, limit = check_key(key), check_limit(limit)
        return [] if limit == 0 else await self.backend.history(path, key, limit)

    def at(self, moment: int | datetime, *, root: str | None = None) -> Past:
        """Return the store as it was: after all changes up to a version, or at an instant.

            past = store.at(datetime.now(UTC) - timedelta(hours=1))
            await past.get(("users", "alice"), "theme")

        What was over at the instant of that version is not there. A version may fall into a
        transaction, so that `at(v - 1)` is the store without the change v; an instant never does.

        Args:
            moment: a version, such as that of an item or of a `Change`, or an aware datetime.
            root: of which root label it is a version, on a shared server; elsewhere, versions
                are the whole store's.

        Raises:
            InvalidArgumentError: it is neither; or, from a read, it is in the future.
            HistoryExpiredError: from a read: it is older than what is kept.
        """
        self.require_open()
        check_root(root)
        return Past(self, self.index, *check_moment(moment), root)

    async def rewind(
        self, moment: int | datetime, *, namespace: Sequence[str] = (), subtree: bool = True
    ) -> int:
        """Bring a namespace back to how it was, as one change of now; return how many items.

        It is a write as others are: watched, with new versions, and to be undone by another
        `rewind`. Items that are as they were are left alone and not counted. Lifetimes stay as
        they were, so that what would be over by now is not brought back. Vectors are left to
        `reindex`.

        Args:
            moment: as for `at`.
            namespace: what to bring back; `()` is everything.
            subtree: with the namespaces below.

        Raises:
            InvalidArgumentError: the moment is none, or in the future.
            HistoryExpiredError: it is older than what is kept.
        """
        self.require_writable()
        labels, path = address(namespace)
        root = labels[0] if labels else None
        found = await self.backend.moment(*check_moment(moment), root)
        rewound: int = (await self._submit((Rewind(path, subtree, found),)))[0]
        return rewound

    async def forget(self, namespace: Sequence[str], pattern: str, *, subtree: bool = False) -> int:
        """Take away the past of the items whose keys match, such as of a secret.

        What is there now stays, and `history` and `at` tell nothing of what was before. The space
        is given back by `vacuum`, and copies of the file keep what they hold.

        Args:
            namespace: where.
            pattern: which keys, by wildcards; of items that are there or that are gone.
            subtree: in the namespaces below, too.

        Returns:
            How many old items went.

        Raises:
            InvalidPatternError: the pattern does not parse.
        """
        self.require_writable()
        labels, path = address(namespace)
        op = Forget(labels, path, compile_pattern(pattern), subtree)
        return int((await self._submit((op,)))[0]) if self.backend.keeps_history else 0

    async def backup(self, path: FilePath, *, progress: Progress | None = None) -> None:
        """Write a consistent copy of the whole store to a file, while others write.

        The copy takes its name when it is complete; a file of that name is replaced. The backup
        of a `SQLiteStore` is a SQLite file, to be opened as such. A store that has no file writes
        an export, for `import_items`.

        Args:
            path: the file to write.
            progress: called with what is done and the total, in pages or items.

        Raises:
            StoreAccessError: the file cannot be written, or is a store that is in use.
            StoreFullError: there is no room for it.
        """
        self.require_open()
        with self._meter(progress) as meter:
            target = whole_path(path)
            check_target(target, self.backend.own_file, over_database=True)
            await self.backend.backup(target, meter)

    async def export_items(
        self,
        file: FilePath | IO[Any],
        *,
        namespace: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> int:
        """Write a namespace and all below it as JSON lines; return the number of items.

        The lines hold all that a store keeps of an item: its value with `bytes`, its times, its
        version. Memory holds a piece at a time and no lock is taken: an item that is written
        meanwhile may stand in the file as it was before or after.

        Args:
            file: a path, which gets its name when the export is complete, or a file object of
                text or bytes.
            namespace: what to export; `()` is everything.
            progress: called with the items done and their total.

        Raises:
            StoreAccessError: the file cannot be written.
            StoreFullError: there is no room for it.
        """
        self.require_open()
        _, path = address(namespace)
        with self._meter(progress) as meter:
            return await bulk.write_items(self, file, path, meter)

    async def import_items(
        self,
        file: FilePath | IO[Any],
        *,
        on_conflict: Conflict = "replace",
        progress: Progress | None = None,
    ) -> int:
        """Read what `export_items` has written, all or nothing; return the number of items.

        The file is first read and checked as a whole, into a temporary file, and then written in
        one transaction, for which other writers wait: about ten seconds for a million items, and
        those of other processes no longer than their `busy_timeout`. Items get new versions, in
        the order of the old ones, and keep their times. Those whose time is over are left out.

        Args:
            file: a path or a file object of text or bytes. A file of one's own needs no header:
                lines such as `{"namespace": ["users"], "key": "k", "value": 1}` will do.
            on_conflict: what to do where an item is there: `"replace"` it, `"skip"` the line, or
                `"error"`.
            progress: called with the items read and `None`, then with those written and the total.

        Raises:
            ConflictError: an item is there, and `on_conflict` is `"error"`.
            InvalidArgumentError: the file is no export, or it is cut off; names the line.
            ValueTooLargeError: a value is longer than `max_value_bytes`.
            StoreAccessError: the file cannot be read.
        """
        self.require_writable()
        if on_conflict not in _CONFLICTS:
            raise InvalidArgumentError(
                f"on_conflict is 'replace', 'skip' or 'error', not {on_conflict!r}"
            )
        with self._meter(progress) as meter:
            return await bulk.read_items(self, file, on_conflict, meter)

    async def check(self, *, progress: Progress | None = None) -> Report:
        """Look for damage in the whole store: its file, each item, the indexes against the items.

        It reads everything, in slices, while others write.

        Args:
            progress: called with the items looked at and their total.
        """
        self.require_open()
        with self._meter(progress) as meter:
            return await self.backend.check(meter)

    async def stats(self) -> Stats:
        """Return how much the store holds, and where."""
        self.require_open()
        return await self.backend.stats()

    def metrics(self) -> Metrics:
        """Return what this store has counted since it was made, and what waits: no I/O."""
        return self.backend.metrics()

    async def vacuum(self) -> int:
        """Give the space of deleted items back to the system; return how many bytes.

        Other writers wait meanwhile: about a second for 200 MB.
        """
        self.require_writable()
        return await self.backend.vacuum()

    async def reindex(self, *, progress: Progress | None = None) -> Reindexed:
        """Make the search index complete, and this store's; return how many items it took.

        What is marked is indexed: items that were put by a store without the model, or before
        there was an index, or imported. When the index was made by another model, of other
        dimensions or fields, it becomes this store's first, and everything that it holds is
        marked; until the end, semantic and hybrid searches raise `IndexMismatchError`. It works
        in slices, while the store is in use, and a call that was cut short goes on where it was.
        Texts that the index has are not embedded again.

        A text that the model refuses, such as one that is too long for it, is left out: its item is
        found by words, and by its other texts; it stays marked, and is named in the result's
        `skipped` and in `check().waiting`.

        Args:
            progress: called with what is done and the total.

        Raises:
            InvalidArgumentError: the store was opened without an index.
            EmbeddingError: the model failed, whatever the text; what is done stays done.
            IndexMismatchError: another store makes the index its own meanwhile.
        """
        self.require_writable()
        if self.index is None:
            raise InvalidArgumentError(
                "this store was opened without an index: pass index=IndexConfig(embeddings) to it"
            )
        if self._embedder is not None and self._embedder.dimensions is None:
            await self._embedder.query("dimensions")
        with self._meter(progress) as meter:
            return await self._reindex(meter)

    async def _reindex_quietly(self) -> None:
        """Reindex in the background, and log what goes wrong."""
        try:
            done = await self.reindex()
        except StoreError as exc:  # a model that is down, say
            _LOG.warning("reindex=True could not complete the index of %r: %s", self, exc)
        else:
            for (namespace, key), reason in zip(done.skipped, done.reasons, strict=True):
                _LOG.warning("reindex=True left %s out: %s", show(namespace, key), reason)

    async def _reindex(self, meter: Meter) -> Reindexed:
        assert self.index is not None
        total: int = (await self._submit((Adopt(self.index.filters),)))[0]
        done: int = 0
        after = 0
        skipped: list[tuple[Namespace, str]] = []
        reasons: list[str] = []
        while True:
            self.require_open()
            op = Reindex(after, _REINDEX_SLICE)
            after, count, left = (await self._submit((op,)))[0]
            done += count
            skipped += [(decode_namespace(path), key) for path, key in left]
            reasons += op.refused.values()
            meter.show(done, max(total, done))
            if not count:
                await self.backend.pause(0)  # for the last word of progress
                return Reindexed(done - len(skipped), tuple(skipped), tuple(reasons))

    # For adapters, which write several things in one unit

    def tell(self, name: str, seconds: float, error: BaseException | None) -> None:
        """Tell the observer, if there is one, of something that has ended."""
        if self._observer is not None:
            tell(self._observer, name, seconds, error)

    async def room(self) -> None:
        """Let a writer in who is about to build a unit: on an open store, once there is room."""
        self.require_open()
        if self.backend.backlog.is_full:
            await self.backend.backlog.room()

    async def apply(self, ops: Sequence[Operation]) -> list[Any]:
        """Apply a unit of `operations`, all or none, and return the answer to each."""
        await self.room()
        return await self._submit(ops)

    def submit(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """As `apply`, called on the store's loop; a coroutine less where there is room."""
        self.require_open()
        return self.apply(ops) if self.backend.backlog.is_full else self._submit(ops)

    def _submit(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Have a unit applied; the one gate of all writes."""
        if self.settings.read_only:
            raise ReadOnlyError(_READ_ONLY)
        if self._embedder is None:
            return self.backend.apply(ops)
        return self._submit_embedded(ops)

    async def _submit_embedded(self, ops: Sequence[Operation]) -> list[Any]:
        """Have a unit applied with the vectors that it turns out to need.

        The model is asked before it is tried, and again between two tries where what is needed
        depends on what is there: so no lock is held meanwhile, and what is embedded is what is
        not in the index yet.
        """
        embedder, backend = self._embedder, self.backend
        assert embedder is not None
        vectors: dict[str, bytes] = {}
        self._embedding_writes += 1
        try:
            with embedder.expecting():
                missing = await backend.unembedded(ops)
            while True:
                if missing:
                    vectors |= await self._vectors_for(ops, missing)
                    takers = [op for op in ops if isinstance(op, Embedded) and not _has_own(op)]
                    assert takers, "what has texts has a place for their vectors"
                    for op in takers:
                        op.vectors = vectors
                try:
                    with embedder.expecting():
                        return await backend.apply(ops)
                except UnembeddedError as exc:
                    missing = exc.texts
        finally:
            self._embedding_writes -= 1

    async def _vectors_for(
        self, ops: Sequence[Operation], texts: Sequence[str]
    ) -> dict[str, bytes]:
        """Have texts embedded; what the model refuses of a `Reindex` is noted there."""
        op = ops[0]
        if len(ops) > 1 or not isinstance(op, Reindex):
            return await self._embed(ops, texts)
        assert self._embedder is not None
        found, refused = await self._embedder.accepted(texts)
        op.refused = {**op.refused, **refused}
        return found

    async def _embed(self, ops: Sequence[Operation], texts: Sequence[str]) -> dict[str, bytes]:
        """Have texts embedded, or name the item whose text the model refuses."""
        embedder = self._embedder
        assert embedder is not None
        try:
            return await embedder.documents(texts)
        except UnavailableError:
            raise
        except EmbeddingError as exc:
            named = [op for op in ops if isinstance(op, Embedded) and not isinstance(op, Reindex)]
            if len(named) > 1:
                try:
                    _, refused = await embedder.accepted(texts)
                except EmbeddingError:  # it takes none: the texts are not to blame
                    raise exc from None
                named = [op for op in named if self._has_text(op, refused)]
            if not named:
                raise
            where = ", ".join(
                show(op.namespace, op.key) if isinstance(op, OfItem) else show(op.namespace)
                for op in named[:_MOST_NAMED]
            )
            raise EmbeddingError(f"{exc}; the text is of {where}, and nothing was written") from exc

    def _has_text(self, op: Put | Mutate | Append | PutJob, texts: Collection[str]) -> bool:
        """Whether a put or an append would index one of some texts."""
        if isinstance(op, Mutate) or self.index is None or _has_own(op):
            return False
        data, indexing = (op.data, None) if isinstance(op, Append) else ((op.data,), op.indexing)
        fields = self.index.fields if indexing is None else indexing
        return any(text in texts for each in data for text in texts_of(codec.decode(each), fields))

    def prepare_put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Any,
        ttl: TTL = None,
        index: Indexing = None,
        if_version: int | None = None,
        vector: Given = None,
    ) -> Put:
        """Return the operation of a `put`, for a unit; the arguments and errors are its."""
        labels, path = address(namespace)
        key = check_key(key)
        if if_version is not None:
            check_version(if_version)
        put = Put(
            labels,
            path,
            key,
            self._encode(value, labels, key),
            self._lifetime(ttl),
            if_version,
            None if index is None else parse_indexing(index),
        )
        if vector is not None:
            put.vectors = self._own_vectors(vector, put.indexing)
        return put

    def _own_vectors(self, vector: Given, indexing: tuple[str, ...] | None) -> OwnVectors:
        """Check the vectors of an item, as far as the store can tell."""
        if self.index is None or not self._ranks:
            raise InvalidArgumentError(
                "put(vector=...) needs an index, and this store was opened without: pass "
                "index=IndexConfig() to it"
            )
        if indexing == ():
            raise InvalidArgumentError("an item with index=False has no vector")
        fields = self.index.fields if indexing is None else indexing
        own = item_vectors(vector, fields, self.backend.most_dimensions)
        own.require_length(self._dimensions)
        return own

    @property
    def _dimensions(self) -> int | None:
        """The length of the index's vectors, as far as the store knows it."""
        embedder = self._embedder
        if embedder is not None:
            return embedder.dimensions
        return None if self.index is None else self.index.dimensions

    def prepare_append(
        self, namespace: Sequence[str], values: Sequence[Any], ttl: TTL = None
    ) -> Append:
        """Return the operation of a `Log.append`, for a unit; the arguments and errors are its."""
        self._require_sequences()
        labels, path = address(namespace)
        return Append(
            labels,
            path,
            tuple(self._encode(value, labels, "a new entry") for value in values),
            self._lifetime(ttl),
        )

    def _encode(self, value: Any, namespace: Namespace, key: str) -> bytes:
        stored = value.value if isinstance(value, Item) else value
        return encode_value(stored, namespace, key, self.settings.max_value_bytes)

    async def _encode_some(
        self,
        values: Sequence[Any],
        namespace: Namespace,
        keys: Sequence[str],
        *,
        aside: Callable[..., Awaitable[Any]] | None = None,
    ) -> list[bytes]:
        """Encode what is worked on in one turn of the loop, on a thread if that takes long."""
        if codec.is_any_long(values):
            aside = aside or self.backend.aside
            return list(await aside(self._encode_values, values, namespace, keys))
        return self._encode_values(values, namespace, keys)

    def _encode_values(
        self, values: Sequence[Any], namespace: Namespace, keys: Sequence[str]
    ) -> list[bytes]:
        if any(issubclass(kind, Item) for kind in set(map(type, values))):
            values = [value.value if isinstance(value, Item) else value for value in values]
        with uncollected():
            return encode_values(values, namespace, keys, self.settings.max_value_bytes)

    def prepare_job(
        self,
        namespace: Sequence[str],
        value: Any,
        delay: float | timedelta = 0,
        unique: str | None = None,
        index: Indexing = None,
    ) -> PutJob:
        """Return the operation of a `Queue.put`, for a unit; the arguments and errors are its."""
        self._require_sequences()
        labels, path = address(namespace)
        if unique is not None and (not isinstance(unique, str) or not is_text(unique)):
            raise InvalidArgumentError("unique is a name: a str of Unicode text")
        indexing = None if index is None else parse_indexing(index)
        if index is None and self._embedder is not None:
            indexing = WORDS_ALONE
        return PutJob(
            labels,
            path,
            self._encode(value, labels, "a new job"),
            micros_of(delay, "delay"),
            unique,
            indexing,
        )

    def _lifetime(self, ttl: TTL) -> int | None:
        return self.settings.default_ttl if ttl is None else lifetime(ttl)

    async def _mutate(
        self,
        namespace: Sequence[str],
        key: str,
        build: Callable[[str], value_changes.ChangeOfValue],
        ttl: TTL = None,
    ) -> Any:
        self.require_open()
        labels, path = address(namespace)
        key = check_key(key)
        change = build(show(labels, key))

        def change_data(data: bytes | None) -> tuple[bytes | None, Any]:
            value, answer = change(MISSING if data is None else codec.decode(data))
            return None if value is MISSING else self._encode(value, labels, key), answer

        op = Mutate(labels, path, key, change_data, self._lifetime(ttl))
        done = self.backend.change_now(op)
        if done is None:
            return (await self._submit((op,)))[0]
        if self.backend.is_turn_over:
            await self.backend.give_way()
        return done[0]

    def _read(self, namespace: Namespace, path: str, key: str) -> Awaitable[list[Item]]:
        """Read one item as part of something longer, during which the store may have closed."""
        self.require_open()
        return self.backend.get_many(namespace, path, (key,))

    async def _pause(self, attempt: int) -> None:
        """Wait a random moment, longer with each try, so that rivals do not stay in step."""
        longest = min(_RETRY_PAUSE_S, 0.0005 * 2 ** min(attempt, 10))
        await self.backend.pause(random.uniform(0, longest))

    def _meter(self, progress: Progress | None) -> Meter:
        return Meter(progress, has_loop=self.backend.needs_loop)

    def _refreshes(self, refresh_ttl: bool | None) -> bool:
        return self._refreshes_reads if refresh_ttl is None else refresh_ttl

    async def renewed(self, items: list[Item]) -> list[Item]:
        """Return items just read, with their lifetimes renewed if this store does that."""
        return await self._refreshed(items) if items and self._refreshes(None) else items

    async def _refreshed(self, items: list[Item]) -> list[Item]:
        """Renew the lifetime of items just read, and return them with it."""
        keys: dict[Namespace, list[str]] = {}
        for item in items:
            if item.expires_at is not None:
                keys.setdefault(item.namespace, []).append(item.key)
        if not keys:
            return items
        touches = [Touch(labels, address(labels)[1], tuple(some)) for labels, some in keys.items()]
        expiries = dict(zip(keys, await self._submit(touches), strict=True))
        return [
            replace(item, expires_at=to_datetime(expiries[item.namespace][item.key]))
            if item.key in expiries.get(item.namespace, ())
            else item
            for item in items
        ]

    async def find(
        self,
        namespace: Sequence[str],
        asked: SearchQuery,
        refresh_ttl: bool | None = None,
        *,
        signed: bool = False,
    ) -> list[Item]:
        """Run a whole search, for adapters; the errors are those of `search`.

        Args:
            namespace: where to look.
            asked: what for.
            refresh_ttl: whether the items found get their lifetime renewed.
            signed: whether the scores of a search by meaning go down to -1.0, and are not cut at 0.
        """
        self.require_open()
        _, path = address(namespace)
        items = await self._find_items(path, asked, signed)
        if items and self._refreshes(refresh_ttl):
            items = await self._refreshed(items)
        return Items(items)

    async def _find_items(self, path: str, asked: SearchQuery, signed: bool) -> list[Item]:
        limit = check_count(asked.limit, "limit")
        offset = check_count(asked.offset, "offset")
        if asked.mode not in _MODES:
            raise InvalidArgumentError(f"mode is one of {', '.join(_MODES)}, not {asked.mode!r}")
        check_query(asked.query)
        filter = parse_filter(asked.filter)
        ranked = bool(asked.query) and (self._ranks or asked.mode != "auto")
        orders = parse_order(asked.order_by)
        if ranked or asked.vector is not None:
            if orders:
                raise InvalidArgumentError("order_by is not for ranked searches: the score orders")
            return await self._rank(path, asked, filter, signed)
        if asked.min_score is not None:
            raise InvalidArgumentError(
                "min_score is for ranked searches; this one has no query, or the store no index"
            )
        if limit == 0:
            return []
        text = (fold(asked.query) or asked.query) if asked.query else None
        selection = Selection(filter, limit, offset, asked.subtree, text, orders)
        if not orders or self.backend.can_order:
            return await self.backend.select(path, selection)
        everything = Selection(filter, _EVERYTHING, 0, asked.subtree, text)
        found = await self.backend.select(path, everything)
        return first_items(found, orders, offset + limit)[offset:]

    async def _rank(
        self, path: str, asked: SearchQuery, filter: Filter, signed: bool
    ) -> list[Item]:
        """Run a ranked search."""
        if self.index is None or not self._ranks:
            by = f"mode={asked.mode!r}" if asked.vector is None else "a vector"
            raise InvalidArgumentError(
                f"a search by {by} needs an index, and this store was opened "
                "without: pass index=IndexConfig(embeddings) to it, or search with mode='auto'"
            )
        mode = self._mode(asked)
        least = check_score(asked.min_score)
        vector = None
        is_own = asked.vector is not None
        if is_own:
            vector, length = query_vector(asked.vector)
            OwnVectors((vector,), length).require_length(self._dimensions)
        text = asked.query or ""
        if asked.limit == 0 or (text.isspace() and not is_own):
            return []
        if mode != "text" and not is_own:
            assert self._embedder is not None
            vector = await self._embedder.query(text)
            self.require_open()
        words = None if mode == "semantic" else query_words(text)
        limit, offset, subtree = asked.limit, asked.offset, asked.subtree
        context = self.index.context
        search = Search(
            filter, limit, offset, subtree, least, vector, words, context, signed, is_own
        )
        try:
            return await self._search(path, search, text)
        except IndexMismatchError:
            if asked.mode != "auto" or mode != "hybrid":
                raise
            # The words wait for a reindex; by meaning the store answers meanwhile.
            return await self._search(path, replace(search, words=None), text)

    async def _search(self, path: str, asked: Search, query: str) -> list[Item]:
        """Search, and have the best read by the reranker, if there is one."""
        if self._reranker is None or not query:
            return await self.backend.search(path, asked)
        return await self._rerank(path, asked, query, self._reranker)

    async def _rerank(self, path: str, asked: Search, query: str, reranker: Reranker) -> list[Item]:
        """Run a search whose best candidates are read by the reranker, before they are cut."""
        assert self.index is not None
        wanted = asked.offset + asked.limit
        begin = asked.offset if asked.offset >= CANDIDATES else 0  # none of those is on the page
        limit = asked.limit if begin else max(wanted, CANDIDATES)
        items = await self.backend.search(
            path, replace(asked, limit=limit, offset=begin, min_score=None)
        )
        head = [] if begin else items[:CANDIDATES]
        places = [(address(item.namespace)[1], item.key) for item in head]
        before: Sequence[Item | None] = [None] * len(head)
        if head and self.index.context:
            before = await self.backend.items_before(places)
        fields = self.index.fields
        texts = [text_for(*pair, fields) for pair in zip(head, before, strict=True)]
        scores = await reranker.scores(query, texts)
        self.require_open()
        least = -1.0 if asked.min_score is None else asked.min_score
        page = fused(items, scores, begin)[asked.offset - begin : wanted - begin]
        return [item for item in page if item.score is not None and item.score >= least]

    def _mode(self, asked: SearchQuery) -> str:
        """Return how a ranked search is done, where the store has an index."""
        assert self.index is not None
        mode: str = asked.mode
        if asked.vector is not None and not asked.query:
            if mode not in ("auto", "semantic"):
                raise InvalidArgumentError(f"a search by mode={mode!r} needs a query")
            return "semantic"
        if asked.vector is not None and mode == "text":
            raise InvalidArgumentError("a search by mode='text' has no use for a vector")
        has_vector = asked.vector is not None or self._embedder is not None
        if mode == "auto":
            by_both = "hybrid" if asked.min_score is None else "semantic"
            mode = by_both if has_vector else "text"
        if mode != "text" and not has_vector:
            raise InvalidArgumentError(
                f"a search by mode={mode!r} needs a model, and this store was opened without: pass "
                "index=IndexConfig(embeddings) to it, give a vector, or search with mode='text'"
            )
        return mode


def _embedder_of(index: IndexConfig | None, backend: Backend) -> Embedder | None:
    """Check what is to be indexed, and return what asks its model, if it has one."""
    if index is None:
        return None
    if not isinstance(index, IndexConfig):
        raise InvalidArgumentError("index takes an IndexConfig: index=IndexConfig(embeddings)")
    for field in (*index.fields, *index.filters):
        check_field(field)
    if WHOLE in index.filters:
        raise InvalidArgumentError(
            "filters are paths into a value, such as 'status', and '$' is all of it"
        )
    return None if index.embeddings is None else Embedder(index, backend.most_dimensions)


def _columns(given: Collection[tuple[str, Any]]) -> tuple[list[str], list[Any]]:
    """Check keys; return them and their values, each once."""
    keys = check_keys([key for key, _ in given])
    if len(keys) == len(given):
        return keys, [value for _, value in given]
    return keys, list({check_key(key): value for key, value in given}.values())


def _by_key(wanted: list[str], items: Iterable[Item]) -> dict[str, Item]:
    found = {item.key: item for item in items}
    return found if list(found) == wanted else {key: found[key] for key in wanted if key in found}


def _has_own(op: Embedded) -> bool:
    return isinstance(op.vectors, OwnVectors)


async def _sweep_regularly(of: weakref.ref[Store]) -> None:
    """Sweep now and then; a store that nobody has any more is let go of."""
    while (store := of()) is not None:
        interval = store.settings.sweep_interval
        del store
        assert interval is not None
        await asyncio.sleep(interval)
        if (store := of()) is not None:
            try:
                await store.sweep()
            except StoreError as exc:  # a full disk, a busy file: it will be tried again
                _LOG.warning("expired items could not be removed: %s", exc)
        del store


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Cancel a task from any thread; where its loop is closed, it is gone."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(task.cancel)
