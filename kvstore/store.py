"""The `Store` ABC: the contract, checked and normalised once, over a few primitives.

The public methods validate their arguments and build `operations`; a backend gets clean input in
its primitives, the abstract methods at the end of the class:

    _open  _close                 lifecycle
    _get_many                     point reads of one namespace
    _apply                        a unit of writes: all or nothing, conditions tested inside
    _select                       an unranked search: filter, order by time, page
    _list_namespaces _keys _count listings
    _page                         the next rows of a scan, by keyset
    _search                       a ranked search
    _read_changes                 a piece of the change feed
    _backup _check _stats _vacuum upkeep; `_records` only where a page's items say less

`kvstore.testing.StoreConformance` proves a backend right.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import os
import random
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import EllipsisType, TracebackType
from typing import IO, Any, Final, Generic, Self, TypeVar, overload

from kvstore import codec, operations
from kvstore.backlog import Backlog
from kvstore.embedding import Embedder, UnavailableError
from kvstore.errors import (
    ConflictError,
    EmbeddingError,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidNamespaceError,
    ReadOnlyError,
    StoreClosedError,
    StoreError,
    ValueTypeError,
    WrongLoopError,
)
from kvstore.exchange import Intake, Sink, Spool, open_file, partial_file, whole_path
from kvstore.filenames import FilePath
from kvstore.filters import Filter, parse_filter
from kvstore.instants import lifetime, to_datetime, to_micros
from kvstore.lifecycle import LoopLock, remember
from kvstore.namespace import (
    address,
    check_key,
    check_label,
    decode_namespace,
    encode_namespace,
    is_text,
    show,
)
from kvstore.operations import (
    Adopt,
    Check,
    Conflict,
    Delete,
    Mutate,
    Operation,
    Put,
    Record,
    Reindex,
    Remove,
    Restore,
    Sweep,
    Touch,
    Trim,
    UnembeddedError,
)
from kvstore.paths import EACH, MISSING, PathError, parse_path
from kvstore.patterns import Pattern, compile_pattern
from kvstore.ranking import Search
from kvstore.recipe import Recipe
from kvstore.report import Meter, Progress, Reindexed, Report, Stats
from kvstore.rules import check_field, encode_value, parse_indexing
from kvstore.targets import check_source, check_target
from kvstore.text import fold, query_words, texts_of
from kvstore.types import EPOCH, IndexConfig, Item, Namespace, SearchQuery
from kvstore.watching import Bell, ChangePage, Watch

__all__ = ["NamespaceQuery", "Page", "Selection", "Store", "Transaction"]

_LOG = logging.getLogger("kvstore")

T = TypeVar("T")

DEFAULT_MAX_VALUE_BYTES: Final = 64 * 2**20
_SWEEP_SLICE = 500  # rows deleted in one transaction, so that a sweep never holds the lock long
_TRIM_SLICE = 5_000  # the same for old changes, which cost less
_EXPORT_SLICE = 1_000  # records in hand at once
_RETRY_PAUSE_S = 0.05  # the longest pause between two tries of an optimistic change

_MOST: Final = 2**62  # more than any store holds; two of them still fit 64 bits
_EVERY_KEY = compile_pattern("*")
_CONFLICTS = ("replace", "skip", "error")
_MOST_NAMED = 5  # items in a message
_REINDEX_SLICE = 64  # items indexed in one transaction
_MODES = ("auto", "semantic", "text", "hybrid")

TTL = float | timedelta | None
Indexing = bool | Sequence[str] | None
LabelPattern = Sequence[str | EllipsisType]


_READ_ONLY = (
    "this store was opened with read_only=True, and writes nothing: open another one without it"
)


async def _refuse(ops: Sequence[Operation]) -> list[Any]:
    """Stand in for `Store._apply` where nothing is written."""
    raise ReadOnlyError(_READ_ONLY)


@dataclass(frozen=True, slots=True)
class Selection:
    """An unranked search, normalised.

    Attributes:
        text: folded; the key or the value's text must contain it. `None`: no such condition.
    """

    filter: Filter
    limit: int
    offset: int
    subtree: bool
    text: str | None = None


@dataclass(frozen=True, slots=True)
class NamespaceQuery:
    """A listing of namespaces, normalised.

    Attributes:
        root: the labels of `prefix` before its first wildcard.
    """

    prefix: tuple[str | EllipsisType, ...]
    suffix: tuple[str | EllipsisType, ...]
    max_depth: int | None
    root: Namespace

    def matches(self, namespace: Namespace) -> bool:
        """Whether the namespace has the prefix and the suffix."""
        before, after = self.prefix, self.suffix
        if len(namespace) < max(len(before), len(after)):
            return False
        return all(map(_label_matches, before, namespace)) and all(
            map(_label_matches, reversed(after), reversed(namespace))
        )


def _label_matches(wanted: str | EllipsisType, label: str) -> bool:
    return wanted is ... or wanted == label


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a scan: the items of it that pass, and where the next piece begins after."""

    items: list[Item]
    after: tuple[str, str] | None  # (path, key) of the last row looked at; `None`: the end


class Store(Recipe, ABC):
    """Items under a key in a hierarchical namespace.

    Namespaces are sequences of non-empty labels, such as `("users", "alice")`; `()` is the root.
    A store is inert until opened, by `async with store:` or `await store.open()`, and then
    belongs to the running event loop.

    Every method raises `StoreClosedError` outside `open` and `close`, `WrongLoopError` on another
    loop, `InvalidNamespaceError` for what is no namespace and `InvalidKeyError` for what is no
    key; a write to a store with `read_only` raises `ReadOnlyError`. A call that fails or is
    cancelled leaves the store either as it was or with the whole of the call done.

    Args:
        index: what to index for search; `None`: nothing.
        default_ttl: lifetime of items put without one, in seconds; `None`: for ever.
        refresh_ttl: whether reads renew an item's lifetime.
        max_value_bytes: the longest encoded value that is accepted.
        clock: the present time in seconds since the epoch.
        sweep_interval: seconds between two sweeps of expired rows; `None`: only by `sweep()`.
        history: seconds for which changes are kept once somebody has watched, so that a `watch`
            can be resumed.
        read_only: refuse every write with `ReadOnlyError`; nothing is written.
    """

    _most_dimensions: int | None = None  # that a vector may have; `None`: any number

    def __init__(
        self,
        *,
        index: IndexConfig | None = None,
        default_ttl: TTL = None,
        refresh_ttl: bool = False,
        max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
        clock: Callable[[], float] = time.time,
        sweep_interval: float | None = 60.0,
        history: float = 3600.0,
        read_only: bool = False,
    ) -> None:
        if index is not None and not isinstance(index, IndexConfig):
            raise InvalidArgumentError("index takes an IndexConfig: index=IndexConfig(embeddings)")
        _check_count(max_value_bytes, "max_value_bytes", least=1)
        if sweep_interval is not None:
            check_seconds(sweep_interval, "sweep_interval")
        check_seconds(history, "history")
        self.index = index
        self._embedder: Embedder | None = None
        if index is not None:
            for field in index.fields:
                check_field(field)
            if index.embeddings is not None:
                self._embedder = Embedder(index, self._most_dimensions)
        self._embedding_writes = 0  # writes that wait for the model
        self._default_ttl = None if default_ttl is None else lifetime(default_ttl)
        self._refresh_ttl = refresh_ttl
        self._read_only = bool(read_only)
        if self._read_only:
            if refresh_ttl:
                raise InvalidArgumentError(
                    "refresh_ttl writes at every read, which a store with read_only=True does not"
                )
            # The one gate of all writes, those of a backend's and of later days included.
            self._apply = _refuse  # type: ignore[method-assign]
        self._max_value_bytes = max_value_bytes
        self._clock = clock
        self._sweep_interval = sweep_interval
        if not 0 < history < 1e10:
            raise InvalidArgumentError(f"history is a number of seconds above 0, not {history}")
        self._history = to_micros(history)
        self._bell = Bell()
        self._backlog = Backlog()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lifecycle = LoopLock()
        self._is_left_behind = False  # what it held stayed in the process that this one forked from
        self._sweeper: asyncio.Task[None] | None = None

    # Lifecycle

    async def open(self) -> Self:
        """Open the store on the running loop; an open store stays as it is.

        Raises:
            SchemaError: the file was written by a newer version, or by another program.
            StoreCorruptError: it is no database, or it is damaged.
            StoreAccessError: it cannot be opened.
            WrongLoopError: the store is open on another loop.
        """
        async with self._lifecycle:
            if self._loop is None:
                self._require_here()
                await self._open()
                self._loop = asyncio.get_running_loop()
                remember(self)
                if self._sweep_interval is not None and not self._read_only:
                    self._sweeper = asyncio.create_task(_sweep_regularly(weakref.ref(self)))
                    end = weakref.finalize(self, _cancel, self._loop, self._sweeper)
                    end.atexit = False
                    self._sweeper.add_done_callback(lambda _: end.detach())
            else:
                self._require_open()
        return self

    async def close(self) -> None:
        """Finish every accepted write, then close; a closed store stays as it is."""
        if self._loop is None and not self._lifecycle.locked():
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
            Store._require_open(self)  # whatever else a backend asks for
            self._loop = None
            self._bell.ring()  # watches see that the store is closed
            if self._sweeper is not None:
                self._sweeper.cancel()
                await asyncio.gather(self._sweeper, return_exceptions=True)
                self._sweeper = None
            while self._embedding_writes:  # noqa: ASYNC110 - seldom, and briefly
                await asyncio.sleep(0.001)
            await self._close()
            if self._embedder is not None:
                await self._embedder.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __copy__(self) -> Self:
        make, args, kwargs = self._recipe()
        made: Self = make(*args, **kwargs)
        return made

    def _cross_fork(self) -> None:
        """Become unopened, in a forked child: connections and loops belong to the parent."""
        self._make_anew()

    def _require_here(self) -> None:
        """Raise if what this store held is in memory, in another process."""
        if self._is_left_behind:
            raise StoreClosedError(
                f"this {type(self).__name__} is in the memory of the process that this one was "
                "forked from; make one in each process, or use a file"
            )

    def _require_open(self) -> None:
        """Raise unless the store is open on the running loop."""
        if asyncio.get_running_loop() is self._loop:
            return
        if self._loop is None:
            raise StoreClosedError(
                f"this {type(self).__name__} is not open: use it inside 'async with store:', or "
                "between 'await store.open()' and 'await store.close()'"
            )
        raise WrongLoopError(
            f"this {type(self).__name__} belongs to the event loop that opened it; open one in "
            "each loop, or use the sync facade kvstore.KeyValueStore, which works from any thread"
        )

    def _require_writable(self) -> None:
        """Raise unless the store is open, and was opened for writing."""
        self._require_open()
        if self._read_only:
            raise ReadOnlyError(_READ_ONLY)

    # The trait

    async def put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Any,
        *,
        ttl: TTL = None,
        index: Indexing = None,
        if_version: int | None = None,
    ) -> Item:
        """Store a value under a key, over what may be there.

        Args:
            namespace: where it lives.
            key: any text.
            value: JSON and `bytes`; of an `Item`, its value.
            ttl: lifetime in seconds or as a `timedelta`; `None`: the store's default.
            index: `False`: do not index this item for search; paths: index just those.
            if_version: write only over exactly this version; 0: only if it is absent.

        Returns:
            The item as stored. `created_at` is kept from the item that it replaces.

        Raises:
            ConflictError: `if_version` names another version than the stored one.
            ValueEncodingError: something in the value could not come back unchanged.
            ValueTooLargeError: the encoded value is longer than `max_value_bytes`.
            InvalidTTLError: the ttl is not a positive, finite duration.
        """
        self._require_open()
        if self._backlog.is_full:
            await self._backlog.room()
        op = self._put(namespace, key, value, ttl, index, if_version)
        item: Item = (await self._apply((op,)))[0]
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
        self._require_open()
        labels, path = address(namespace)
        key = check_key(key)
        items = self._peek(labels, path, key)
        if items is None:
            items = await self._get(labels, path, key)
        if items and self._refreshes(refresh_ttl):
            items = await self._refreshed(items)
        return items[0] if items else None

    async def delete(
        self, namespace: Sequence[str], key: str, *, if_version: int | None = None
    ) -> bool:
        """Delete the item; return whether it was there.

        Raises:
            ConflictError: `if_version` names another version than the stored one.
        """
        self._require_open()
        labels, path = address(namespace)
        _check_version(if_version)
        found: bool = (await self._apply((Delete(labels, path, check_key(key), if_version),)))[0]
        return found

    async def search(
        self,
        namespace: Sequence[str],
        query: str | SearchQuery | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        mode: str = "auto",
        subtree: bool = False,
        min_score: float | None = None,
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
            limit: how many items at most.
            offset: how many to skip first.
            mode: `"semantic"`, `"text"`, `"hybrid"`, or `"auto"` for the best that there is.
            subtree: look in the namespaces below, too.
            min_score: leave out what scores less; for ranked searches.
            refresh_ttl: whether the items found get their lifetime renewed; `None`: as the
                store does.

        Raises:
            InvalidFilterError: the filter does not parse.
            InvalidArgumentError: a bad limit, offset, mode or min_score; or a mode that this
                store has no index for.
        """
        self._require_open()
        asked = SearchQuery(query, filter, limit, offset, mode, subtree, min_score)  # type: ignore[arg-type]
        if isinstance(query, SearchQuery):
            if asked != SearchQuery(query):  # type: ignore[arg-type]
                raise InvalidArgumentError(
                    "a SearchQuery says it all: put the other arguments into it"
                )
            asked = query
        _, path = address(namespace)
        return await self._find(path, asked, refresh_ttl)

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
        self._require_open()
        before, after = _label_pattern(prefix, "prefix"), _label_pattern(suffix, "suffix")
        if max_depth is not None:
            max_depth = _check_count(max_depth, "max_depth", least=1)
        limit = _check_limit(limit)
        offset = _check_count(offset, "offset")
        wild = before.index(...) if ... in before else len(before)
        root = tuple(label for label in before[:wild] if isinstance(label, str))
        asked = NamespaceQuery(before, after, max_depth, root)
        if limit == 0:
            return []
        return await self._list_namespaces(asked, limit, offset)

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
        await self._admit()
        if not isinstance(mapping, Mapping):
            raise InvalidArgumentError(
                f"put_many takes a mapping of keys to values, not {type(mapping).__name__}"
            )
        address(namespace)
        puts = [self._put(namespace, key, value, ttl, index) for key, value in mapping.items()]
        return await self._apply(puts) if puts else []

    async def get_many(
        self, namespace: Sequence[str], keys: Iterable[str], *, refresh_ttl: bool | None = None
    ) -> dict[str, Item]:
        """Return the items that are there, by key, in the order of `keys`."""
        self._require_open()
        labels, path = address(namespace)
        wanted = _check_keys(keys)
        items = await self._get_many(labels, path, wanted) if wanted else []
        if items and self._refreshes(refresh_ttl):
            items = await self._refreshed(items)
        found = {item.key: item for item in items}
        return {key: found[key] for key in wanted if key in found}

    async def delete_many(self, namespace: Sequence[str], keys: Iterable[str]) -> int:
        """Delete many items in one transaction; return how many were there."""
        self._require_open()
        labels, path = address(namespace)
        deletes = [Delete(labels, path, key) for key in _check_keys(keys)]
        return sum(await self._apply(deletes)) if deletes else 0

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
        self._require_open()
        labels, path = address(namespace)
        op = Remove(labels, path, compile_pattern(pattern), subtree)
        removed: int = (await self._apply((op,)))[0]
        return removed

    async def keys(
        self,
        namespace: Sequence[str],
        pattern: str = "*",
        *,
        subtree: bool = False,
        limit: int | None = None,
    ) -> list[str]:
        """List the keys that match a pattern, sorted; with `subtree` by (namespace, key).

        Raises:
            InvalidPatternError: the pattern does not parse.
        """
        self._require_open()
        _, path = address(namespace)
        limit = _check_limit(limit)
        compiled = compile_pattern(pattern)
        return [] if limit == 0 else await self._keys(path, compiled, subtree, limit)

    async def count(
        self, namespace: Sequence[str], pattern: str = "*", *, subtree: bool = False
    ) -> int:
        """Count the items whose keys match a pattern.

        Raises:
            InvalidPatternError: the pattern does not parse.
        """
        self._require_open()
        _, path = address(namespace)
        return await self._count(path, compile_pattern(pattern), subtree)

    def scan(
        self,
        namespace: Sequence[str] = (),
        *,
        pattern: str = "*",
        filter: Mapping[str, Any] | None = None,
        subtree: bool = True,
        batch_size: int = 500,
    ) -> AsyncIterator[Item]:
        """Iterate over everything, in (namespace, key) order.

        Memory holds one batch, and no transaction outlives one: an item that is written or
        deleted meanwhile may or may not be seen, every other one is seen exactly once.

        Raises:
            InvalidPatternError: the pattern does not parse.
            InvalidFilterError: the filter does not parse.
        """
        self._require_open()
        _, path = address(namespace)
        batch_size = _check_count(batch_size, "batch_size", least=1)
        return self._scan(path, compile_pattern(pattern), parse_filter(filter), subtree, batch_size)

    async def _scan(
        self, path: str, pattern: Pattern, filter: Filter, subtree: bool, batch_size: int
    ) -> AsyncIterator[Item]:
        after: tuple[str, str] | None = None
        while True:
            self._require_open()
            page = await self._page(path, pattern, filter, subtree, after, batch_size)
            for item in page.items:
                yield item
            if page.after is None:
                return
            after = page.after

    # Atomic changes

    async def increment(
        self,
        namespace: Sequence[str],
        key: str,
        amount: float = 1,
        *,
        field: str | None = None,
        initial: float = 0,
    ) -> int | float:
        """Add to a number, atomically across tasks, threads and processes; return the new one.

        An item that is there keeps its lifetime; one that is created gets the default.

        Args:
            namespace: where it lives.
            key: its key.
            amount: what to add.
            field: a path into an object, whose missing parts are made; `None`: the value itself.
            initial: what a missing number counts as.

        Raises:
            ValueTypeError: what is there, or `amount`, is no number.
            ValueEncodingError: the sum does not fit 64 bits, or is not finite.
        """
        for name, number in (("amount", amount), ("initial", initial)):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise ValueTypeError(f"{name} is a number, not {type(number).__name__}")
        try:
            path = None if field is None else parse_path(field)
        except PathError as exc:
            raise InvalidArgumentError(str(exc)) from None
        if path is not None and EACH in path:
            raise InvalidArgumentError("increment takes a path to one place, without '[*]'")
        total: int | float = await self._mutate(
            namespace, key, lambda where: operations.increment(where, amount, path, initial)
        )
        return total

    async def append(
        self, namespace: Sequence[str], key: str, *values: Any, max_length: int | None = None
    ) -> int:
        """Add values to the end of a list, atomically; return the new length.

        Args:
            namespace: where it lives.
            key: its key; a missing list is made.
            values: what to add, in order.
            max_length: keep only this many of the last elements.

        Raises:
            ValueTypeError: what is there is no list.
            ValueEncodingError: a value could not come back unchanged.
        """
        if max_length is not None:
            _check_count(max_length, "max_length")
        added = codec.decode(codec.encode(list(values)))
        length: int = await self._mutate(
            namespace, key, lambda where: operations.append(where, added, max_length)
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
            namespace, key, lambda where: operations.pop(where, index, default)
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
        self._require_writable()
        if not callable(fn):
            raise InvalidArgumentError(f"update takes a function, not {type(fn).__name__}")
        _check_count(attempts, "attempts", least=1)
        labels, path = address(namespace)
        key = check_key(key)
        for attempt in range(1, attempts + 1):
            found = await self._get_many(labels, path, (key,))
            value = fn(found[0].value if found else default)
            new = await value if inspect.isawaitable(value) else value
            data = self._encode(new, labels, key)
            version = found[0].version if found else 0
            self._require_open()
            try:
                op = Put(labels, path, key, data, self._default_ttl, version, keep=True)
                item: Item = (await self._apply((op,)))[0]
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
        self._require_writable()
        _check_count(attempts, "attempts", least=1)
        for attempt in range(1, attempts + 1):
            tx = Transaction(self)
            outcome = fn(tx)
            result = await outcome if inspect.isawaitable(outcome) else outcome
            try:
                await tx._commit()
            except ConflictError as exc:
                await self._lost("the transaction", attempt, attempts, exc)
            else:
                return result
        raise AssertionError("unreachable")

    async def sweep(self) -> int:
        """Remove the rows of expired items now; return how many there were.

        Expired items are never visible; this frees their space. It runs by itself, too.
        """
        self._require_open()
        total: int = 0
        while True:
            trim = Trim(_TRIM_SLICE, self._history, bool(self._bell.watches))
            swept, trimmed = await self._apply((Sweep(_SWEEP_SLICE), trim))
            total += swept
            if swept < _SWEEP_SLICE and trimmed < _TRIM_SLICE:
                return total

    # Operations

    def watch(
        self,
        namespace: Sequence[str] = (),
        *,
        pattern: str = "*",
        subtree: bool = True,
        since: int | None = None,
    ) -> Watch:
        """Iterate over every put, delete and expiry from now on, by any process.

            async for change in store.watch(("users",)):
                ...

        Changes come in the order of their versions and none is left out. Of a put, `item` is the
        item as it now is, which a later change may have made newer, or `None` if it is gone. A
        lifetime that a read renewed is no change. Writers record changes only while somebody
        watches, and for `history` seconds after.

        Args:
            namespace: where to look.
            pattern: which keys, by wildcards.
            subtree: look in the namespaces below, too.
            since: begin after this version, such as that of the last change one has seen;
                `None`: now. `async with store.watch(...) as changes:` says when now is.

        Raises:
            WatchExpiredError: from the iteration: the changes after `since` are not kept, or were
                dropped before they were read.
            InvalidArgumentError: `since` is no version; or, from the iteration, is ahead.
            StoreClosedError: from the iteration, too, when the store closes.
            ReadOnlyError: the store is read-only; to watch is to have writers record changes.
        """
        self._require_writable()  # what watches has writers record changes
        _, path = address(namespace)
        if since is not None:
            _check_count(since, "since")
        return Watch(self, path, compile_pattern(pattern), subtree, since)

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
        self._require_open()
        with Meter(progress) as meter:
            target = whole_path(path)
            check_target(target, self._own_file, over_database=True)
            await self._backup(target, meter)

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
        self._require_open()
        _, path = address(namespace)
        with Meter(progress) as meter:
            if not isinstance(file, (str, bytes, os.PathLike)):
                return await self._export(file, path, meter)
            target = whole_path(file)
            check_target(target, self._own_file, over_database=False)
            with partial_file(target) as partial, partial.open("wb") as opened:
                return await self._export(opened, path, meter)

    async def _export(self, file: IO[Any], path: str, meter: Meter) -> int:
        total = await self._count(path, _EVERY_KEY, subtree=True)
        sink = Sink(file)
        sink.begin()
        async for records in self._all_records(path):
            await asyncio.to_thread(sink.add, records)
            meter.show(sink.count, max(total, sink.count))
        await asyncio.to_thread(sink.end)
        meter.show(sink.count, sink.count)
        await asyncio.sleep(0)  # for the last word of progress
        return sink.count

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
        self._require_writable()
        if on_conflict not in _CONFLICTS:
            raise InvalidArgumentError(
                f"on_conflict is 'replace', 'skip' or 'error', not {on_conflict!r}"
            )
        with Meter(progress) as meter, Spool() as spool:
            if isinstance(file, (str, bytes, os.PathLike)):
                source = whole_path(file)
                check_source(source, self._own_file)
                with open_file(source) as opened:
                    await self._stage(opened, spool, meter)
            else:
                await self._stage(file, spool, meter)
            return await self._restore(spool, on_conflict, meter)

    async def _stage(self, file: IO[Any], spool: Spool, meter: Meter) -> None:
        """Check a whole import, into a spool."""
        with closing(Intake(file, to_micros(self._clock()), self._max_value_bytes)) as intake:
            while records := await asyncio.to_thread(intake.read):
                await asyncio.to_thread(spool.add, records)
                meter.show(spool.count, None)

    async def _restore(self, spool: Spool, on_conflict: Conflict, meter: Meter) -> int:
        """Write what is spooled, in one unit."""
        self._require_open()
        written: int = (await self._apply((Restore(_Metered(spool, meter), on_conflict),)))[0]
        if written and self._embedder is not None:
            try:
                taken = await self.reindex()
                if taken.skipped:
                    _LOG.warning("the model refused texts of %d imported items", len(taken.skipped))
            except StoreError as exc:  # the items are there, and marked
                _LOG.warning("what was imported has no vectors yet (%s): call reindex()", exc)
        await asyncio.sleep(0)  # for the last word of progress
        return written

    async def _all_records(self, path: str) -> AsyncIterator[list[Record]]:
        """Yield the records of a subtree in pieces."""
        after: tuple[str, str] | None = None
        while True:
            self._require_open()
            records, after = await self._records(path, after, _EXPORT_SLICE)
            if records:
                yield records
            if after is None:
                return

    async def check(self, *, progress: Progress | None = None) -> Report:
        """Look for damage in the whole store: its file, each item, the indexes against the items.

        It reads everything, in slices, while others write.

        Args:
            progress: called with the items looked at and their total.
        """
        self._require_open()
        with Meter(progress) as meter:
            return await self._check(meter)

    async def stats(self) -> Stats:
        """Return how much the store holds, and where."""
        self._require_open()
        return await self._stats()

    async def vacuum(self) -> int:
        """Give the space of deleted items back to the system; return how many bytes.

        Other writers wait meanwhile: about a second for 200 MB.
        """
        self._require_writable()
        return await self._vacuum()

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
        self._require_writable()
        if self.index is None:
            raise InvalidArgumentError(
                "this store was opened without an index: pass index=IndexConfig(embeddings) to it"
            )
        if self._embedder is not None and self._embedder.dimensions is None:
            await self._embedder.query("dimensions")
        with Meter(progress) as meter:
            return await self._reindex(meter)

    async def _reindex(self, meter: Meter) -> Reindexed:
        total: int = (await self._apply((Adopt(),)))[0]
        done: int = 0
        after = 0
        skipped: list[tuple[Namespace, str]] = []
        reasons: list[str] = []
        while True:
            self._require_open()
            op = Reindex(after, _REINDEX_SLICE)
            after, count, left = (await self._apply((op,)))[0]
            done += count
            skipped += [(decode_namespace(path), key) for path, key in left]
            reasons += op.refused.values()
            meter.show(done, max(total, done))
            if not count:
                await asyncio.sleep(0)  # for the last word of progress
                return Reindexed(done - len(skipped), tuple(skipped), tuple(reasons))

    # What the public methods share

    async def _with_vectors(
        self,
        submit: Callable[[Sequence[Operation]], Awaitable[list[Any]]],
        ops: Sequence[Operation],
    ) -> list[Any]:
        """Submit a unit with the vectors that it turns out to need.

        The model is asked between two tries, so no lock is held meanwhile, and what is embedded
        is what is not in the index yet.
        """
        embedder = self._embedder
        assert embedder is not None
        vectors: dict[str, bytes] = {}
        self._embedding_writes += 1
        try:
            while True:
                embedder.on_their_way += 1
                try:
                    return await submit(ops)
                except UnembeddedError as exc:
                    missing = exc.texts
                finally:
                    embedder.on_their_way -= 1
                if len(ops) == 1 and isinstance(ops[0], Reindex):
                    found, refused = await embedder.accepted(missing)
                    ops[0].refused = {**ops[0].refused, **refused}
                else:
                    found = await self._embed(ops, missing)
                vectors |= found
                for op in ops:
                    if isinstance(op, (Put, Mutate, Reindex)):
                        op.vectors = vectors
        finally:
            self._embedding_writes -= 1

    async def _embed(self, ops: Sequence[Operation], texts: Sequence[str]) -> dict[str, bytes]:
        """Have texts embedded, or name the item whose text the model refuses."""
        embedder = self._embedder
        assert embedder is not None
        try:
            return await embedder.documents(texts)
        except UnavailableError:
            raise
        except EmbeddingError as exc:
            named = [op for op in ops if isinstance(op, (Put, Mutate))]
            if len(named) > 1:
                try:
                    _, refused = await embedder.accepted(texts)
                except EmbeddingError:  # it takes none: the texts are not to blame
                    raise exc from None
                named = [op for op in named if self._has_text(op, refused)]
            if not named:
                raise
            where = ", ".join(show(op.namespace, op.key) for op in named[:_MOST_NAMED])
            raise EmbeddingError(f"{exc}; the text is of {where}, and nothing was written") from exc

    def _has_text(self, op: Put | Mutate, texts: Collection[str]) -> bool:
        """Whether a put would index one of some texts."""
        if isinstance(op, Mutate) or self.index is None:
            return False
        fields = self.index.fields if op.indexing is None else op.indexing
        return any(text in texts for text in texts_of(codec.decode(op.data), fields))

    def _put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Any,
        ttl: TTL,
        index: Indexing,
        if_version: int | None = None,
    ) -> Put:
        labels, path = address(namespace)
        key = check_key(key)
        if if_version is not None:
            _check_version(if_version)
        return Put(
            labels,
            path,
            key,
            self._encode(value, labels, key),
            self._default_ttl if ttl is None else lifetime(ttl),
            if_version,
            None if index is None else parse_indexing(index),
        )

    def _encode(self, value: Any, namespace: Namespace, key: str) -> bytes:
        stored = value.value if isinstance(value, Item) else value
        return encode_value(stored, namespace, key, self._max_value_bytes)

    async def _mutate(
        self, namespace: Sequence[str], key: str, build: Callable[[str], operations.Change]
    ) -> Any:
        self._require_open()
        labels, path = address(namespace)
        key = check_key(key)
        change = build(show(labels, key))

        def change_data(data: bytes | None) -> tuple[bytes | None, Any]:
            value, answer = change(MISSING if data is None else codec.decode(data))
            return None if value is MISSING else self._encode(value, labels, key), answer

        op = Mutate(labels, path, key, change_data, self._default_ttl)
        return (await self._apply((op,)))[0]

    async def _admit(self) -> None:
        """Let a writer in who is about to build a unit: on an open store, once there is room."""
        self._require_open()
        if self._backlog.is_full:
            await self._backlog.room()

    async def _pause(self, attempt: int) -> None:
        """Wait a random moment, longer with each try, so that rivals do not stay in step."""
        await asyncio.sleep(pause_s(attempt))

    def _refreshes(self, refresh_ttl: bool | None) -> bool:
        return self._refresh_ttl if refresh_ttl is None else refresh_ttl

    async def _refreshed(self, items: list[Item]) -> list[Item]:
        """Renew the lifetime of items just read, and return them with it."""
        keys: dict[Namespace, list[str]] = {}
        for item in items:
            if item.expires_at is not None:
                keys.setdefault(item.namespace, []).append(item.key)
        if not keys:
            return items
        touches = [Touch(labels, address(labels)[1], tuple(some)) for labels, some in keys.items()]
        expiries = dict(zip(keys, await self._apply(touches), strict=True))
        return [
            replace(item, expires_at=to_datetime(expiries[item.namespace][item.key]))
            if item.namespace in expiries and item.key in expiries[item.namespace]
            else item
            for item in items
        ]

    async def _find(
        self,
        path: str,
        asked: SearchQuery,
        refresh_ttl: bool | None = None,
        *,
        signed: bool = False,
    ) -> list[Item]:
        """Check a search, run it, and renew lifetimes."""
        items = await self._find_items(path, asked, signed)
        if items and self._refreshes(refresh_ttl):
            items = await self._refreshed(items)
        return items

    async def _find_items(self, path: str, asked: SearchQuery, signed: bool) -> list[Item]:
        limit = _check_count(asked.limit, "limit")
        offset = _check_count(asked.offset, "offset")
        if asked.mode not in _MODES:
            raise InvalidArgumentError(f"mode is one of {', '.join(_MODES)}, not {asked.mode!r}")
        if asked.query is not None and not isinstance(asked.query, str):
            raise InvalidArgumentError(f"query is a str, not {type(asked.query).__name__}")
        if asked.query is not None and not is_text(asked.query):
            raise InvalidArgumentError("query holds a lone surrogate, and no text does")
        filter = parse_filter(asked.filter)
        ranked = bool(asked.query) and not (self.index is None and asked.mode == "auto")
        if ranked:
            return await self._rank(path, asked, filter, signed)
        if asked.min_score is not None:
            raise InvalidArgumentError(
                "min_score is for ranked searches; this one has no query, or the store no index"
            )
        if limit == 0:
            return []
        text = (fold(asked.query) or asked.query) if asked.query else None
        selection = Selection(filter, limit, offset, asked.subtree, text)
        return await self._select(path, selection)

    async def _rank(
        self, path: str, asked: SearchQuery, filter: Filter, signed: bool
    ) -> list[Item]:
        """Run a ranked search."""
        if self.index is None:
            raise InvalidArgumentError(
                f"a search by mode={asked.mode!r} needs an index, and this store was opened "
                "without: pass index=IndexConfig(embeddings) to it, or search with mode='auto'"
            )
        embedder = self._embedder
        mode = asked.mode
        if mode == "auto":
            mode = "text" if embedder is None else "semantic"
        if mode != "text" and embedder is None:
            raise InvalidArgumentError(
                f"a search by mode={mode!r} needs a model, and this store was opened without: pass "
                "index=IndexConfig(embeddings) to it, or search with mode='text'"
            )
        least = asked.min_score
        if least is not None and (isinstance(least, bool) or not isinstance(least, (int, float))):
            raise InvalidArgumentError(f"min_score is a number, not {type(least).__name__}")
        assert asked.query is not None
        if asked.limit == 0 or asked.query.isspace():
            return []
        vector = None
        if mode != "text":
            assert embedder is not None
            vector = await embedder.query(asked.query)
            self._require_open()
        words = None if mode == "semantic" else query_words(asked.query)
        limit, offset, subtree = asked.limit, asked.offset, asked.subtree
        search = Search(
            filter, limit, offset, subtree, least, vector, words, self.index.context, signed
        )
        return await self._search(path, search)

    # What a backend gives

    @abstractmethod
    async def _open(self) -> None:
        """Acquire what the store needs; on an error, release what was acquired."""

    @abstractmethod
    async def _close(self) -> None:
        """Finish accepted writes, then release everything; leave no task behind."""

    def _peek(self, namespace: Namespace, path: str, key: str) -> list[Item] | None:
        """Answer a point read at once, on the loop's thread, if that takes mere microseconds.

        Returns:
            The live item in a list, an empty list, or `None`: `_get` must be asked.
        """
        return None

    def _get(self, namespace: Namespace, path: str, key: str) -> Awaitable[list[Item]]:
        """Return the live item in a list, or an empty list."""
        return self._get_many(namespace, path, (key,))

    @abstractmethod
    async def _get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        """Return the live items among `keys`, in any order."""

    @abstractmethod
    def _apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        """Apply a unit of operations, all or none, and return the answer to each."""

    @abstractmethod
    async def _select(self, path: str, selection: Selection) -> list[Item]:
        """Return the live items that pass, the latest write first: by version."""

    @abstractmethod
    async def _list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        """Return the distinct namespaces with live items that match, cut, sorted and paged."""

    @abstractmethod
    async def _keys(
        self, path: str, pattern: Pattern, subtree: bool, limit: int | None
    ) -> list[str]:
        """Return the matching keys of live items, sorted by (path, key)."""

    @abstractmethod
    async def _count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        """Count the live items whose keys match."""

    @abstractmethod
    async def _page(
        self,
        path: str,
        pattern: Pattern,
        filter: Filter,
        subtree: bool,
        after: tuple[str, str] | None,
        limit: int,
    ) -> Page:
        """Return the next piece of a scan: of at most `limit` rows looked at."""

    async def _records(
        self, path: str, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        """Return the next piece of a subtree's live records, and where the one after it begins.

        This one makes them of a page's items, which say nothing of an index and of lifetimes
        only the rest.
        """
        page = await self._page(path, _EVERY_KEY, parse_filter(None), True, after, limit)
        return [_record(item) for item in page.items], page.after

    @abstractmethod
    async def _read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        """Return the next changes after a version, and the state of the feed."""

    @property
    def _own_file(self) -> Path | None:
        """The file in which an open store lives, if it lives in one."""
        return None

    def _is_same(self, other: Store) -> bool:
        """Whether another open store holds the very same items."""
        return self is other

    async def _backup(self, path: Path, meter: Meter) -> None:
        """Write a consistent copy, by `partial_file`."""
        raise InvalidArgumentError(f"a {type(self).__name__} has no backup; use export_items")

    @abstractmethod
    async def _check(self, meter: Meter) -> Report:
        """Look for damage."""

    @abstractmethod
    async def _stats(self) -> Stats:
        """Return the sizes of everything."""

    async def _vacuum(self) -> int:
        """Give back unused space, and return how much; this one has none."""
        return 0

    async def _search(self, path: str, asked: Search) -> list[Item]:
        """Return the page of a ranked search, with scores; only called with an index.

        Raises:
            IndexMismatchError: the index is another model's, or does not hold all items yet.
        """
        raise InvalidArgumentError(f"a {type(self).__name__} has no ranked search")


class Transaction:
    """The reads and writes of one try of `Store.transact`; of no use after it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[tuple[str, str], tuple[Namespace, Item | None]] = {}
        self._written: dict[tuple[str, str], Put | Delete] = {}

    async def get(self, namespace: Sequence[str], key: str) -> Item | None:
        """Return the item as this transaction sees it, or `None`.

        What it has put comes back with `version` 0: it has none yet.
        """
        labels, path = address(namespace)
        key = check_key(key)
        written = self._written.get((path, key))
        if isinstance(written, Put):
            return _unversioned(written)
        if written is not None:
            return None
        if (path, key) not in self._read:
            self._store._require_open()
            found = await self._store._get_many(labels, path, (key,))
            self._read.setdefault((path, key), (labels, found[0] if found else None))
        return self._read[path, key][1]

    def put(
        self,
        namespace: Sequence[str],
        key: str,
        value: Any,
        *,
        ttl: TTL = None,
        index: Indexing = None,
    ) -> Awaitable[Item]:
        """Store a value when the transaction commits; arguments and errors are those of `put`."""
        op = self._store._put(namespace, key, value, ttl, index)
        self._written[op.path, op.key] = op
        return _Ready(_unversioned(op))

    def delete(self, namespace: Sequence[str], key: str) -> Awaitable[None]:
        """Delete the item when the transaction commits."""
        labels, path = address(namespace)
        key = check_key(key)
        self._written[path, key] = Delete(labels, path, key)
        return _Ready(None)

    async def _commit(self) -> None:
        unit: list[Operation] = []
        for (path, key), (labels, item) in self._read.items():
            version = item.version if item is not None else 0
            written = self._written.get((path, key))
            if written is None:
                unit.append(Check(labels, path, key, version))
            else:
                written.expected = version
        unit.extend(self._written.values())
        if unit:
            self._store._require_open()
            await self._store._apply(unit)


class _Metered:
    """The records of a spool, of which a meter shows how many are read; may be iterated again."""

    def __init__(self, spool: Spool, meter: Meter) -> None:
        self._spool = spool
        self._meter = meter

    def __iter__(self) -> Iterator[Record]:
        total = self._spool.count
        for number, record in enumerate(self._spool):
            if number % _EXPORT_SLICE == 0:
                self._meter.show(number, total)
            yield record
        self._meter.show(total, total)


class _Ready(Generic[T]):
    """An awaitable that is done already, so that a buffered write may be awaited or not."""

    __slots__ = ("_result",)

    def __init__(self, result: T) -> None:
        self._result = result

    def __await__(self) -> Generator[Any, None, T]:
        return self._result
        yield


def _unversioned(op: Put) -> Item:
    return Item(op.namespace, op.key, codec.decode(op.data))


def _record(item: Item) -> Record:
    created_at, updated_at, expires_at = (
        None if instant is None else (instant - EPOCH) // timedelta(microseconds=1)
        for instant in (item.created_at, item.updated_at, item.expires_at)
    )
    assert created_at is not None
    assert updated_at is not None
    ttl = None if expires_at is None else max(1, expires_at - updated_at)
    return Record(
        encode_namespace(item.namespace),
        item.key,
        codec.encode(item.value),
        item.version,
        created_at,
        updated_at,
        expires_at,
        ttl,
    )


async def _sweep_regularly(of: weakref.ref[Store]) -> None:
    """Sweep now and then; a store that nobody has any more is let go of."""
    while (store := of()) is not None:
        interval = store._sweep_interval
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


def pause_s(attempt: int) -> float:
    """Return how long to wait before another try, in seconds."""
    return random.uniform(0, min(_RETRY_PAUSE_S, 0.0005 * 2 ** min(attempt, 10)))


def _check_keys(keys: Iterable[str]) -> list[str]:
    """Return the distinct keys, in order."""
    if isinstance(keys, str):
        raise InvalidKeyError(f"keys is a collection of keys, not a str: write {[keys]!r}")
    if not isinstance(keys, Iterable):
        raise InvalidKeyError(f"keys is a collection of keys, not {type(keys).__name__}")
    return list(dict.fromkeys(map(check_key, keys)))


def _check_count(number: int, name: str, least: int = 0) -> int:
    """Return a count, within what every backend can count to."""
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise InvalidArgumentError(f"{name} is an int of at least {least}, not {number!r}")
    return min(number, _MOST)


def check_seconds(number: float, name: str) -> None:
    """Raise `InvalidArgumentError` unless `number` is a positive number of seconds."""
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not 0 < number < math.inf:
        raise InvalidArgumentError(f"{name} is a positive number of seconds, not {number!r}")


def _check_limit(limit: int | None) -> int | None:
    return None if limit is None else _check_count(limit, "limit")


def _check_version(if_version: int | None) -> None:
    if if_version is not None:
        _check_count(if_version, "if_version")


def _label_pattern(labels: LabelPattern, what: str) -> tuple[str | EllipsisType, ...]:
    if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
        raise InvalidNamespaceError(
            f"{what} is a sequence of labels such as ('users', ...), not {type(labels).__name__}"
        )
    for position, label in enumerate(labels):
        if label is not ...:
            check_label(label, f"label {position} of the {what}")
    return tuple(label if label is ... else str.__str__(label) for label in labels)
