"""LangGraph's long-term memory in a kvstore: `LangGraphStore` is a LangGraph `BaseStore`.

It means what LangGraph's own stores mean, where these agree. Where they do not, or break their own
documentation: an expired item is gone at its instant, and not at the next sweep; `created_at` stays
when an item is updated; a filter means the same over every backend (see `langgraph_filter`); what
JSON cannot hold is refused, NaN included; and a call that fails, fails alone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import EllipsisType, TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from kvstore.errors import InvalidArgumentError, MissingDependencyError, ValueEncodingError
from kvstore.flow.driving import Driver, driver_for
from kvstore.flow.facade import AsyncKeyValueStore, KeyValueStore
from kvstore.flow.scopes import FlowScope
from kvstore.integrations.langgraph_filter import translate
from kvstore.opening import open_store
from kvstore.store import Store, Transaction
from kvstore.types import IndexConfig, Namespace
from kvstore.types import Item as StoredItem

try:
    from langgraph.store.base import (
        NOT_PROVIDED,
        BaseStore,
        Embeddings,
        GetOp,
        InvalidNamespaceError,
        Item,
        ListNamespacesOp,
        MatchCondition,
        NamespacePath,
        NotProvided,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
        ensure_embeddings,
    )
    from langgraph.store.base import IndexConfig as LangGraphIndexConfig
except ImportError as exc:
    raise MissingDependencyError(
        "kvstore.integrations.langgraph needs LangGraph: pip install 'kvstore[langgraph]'"
    ) from exc

__all__ = ["LangGraphStore"]

T = TypeVar("T")

_MINUTE_S: Final = 60.0
_SWEEP_MINUTES: Final = 5.0  # LangGraph's own default
_MICROS_A_MINUTE: Final = 60_000_000


class LangGraphStore(BaseStore):
    """A LangGraph store over any kvstore `Store`: for `compile(store=...)` and `runtime.store`.

    Await the `a...` methods on the loop that opened the store. The others are for other threads,
    such as those of a graph's sync nodes; on that loop itself they raise
    `asyncio.InvalidStateError`. A store that is not open is opened by the first call: on the
    caller's loop by an awaited one; by a sync one so that sync code can use it, with no loop. What
    opened it closes it: `async with`, `aclose`, or, for sync code, the end of the program.

    Namespaces are those of LangGraph: labels without `.` and NUL, at least one to put, and the
    first of them not `langgraph`. Values are mappings. Items that kvstore's own methods wrote are
    seen, too, with whatever value they have.

    Args:
        store: where the items are.
        index: LangGraph's settings for semantic search, `{"dims", "embed", "fields"}`, of a store
            that was opened with the `IndexConfig` of `index_config_of(index)`; `from_conn_string`
            does both. `None`: what the store itself has.
        ttl: LangGraph's settings for lifetimes, in minutes: `{"default_ttl", "refresh_on_read",
            "sweep_interval_minutes"}`. Reads refresh a lifetime if `refresh_on_read` says so, or
            their own `refresh_ttl`. `None`: as the store itself does.

    Raises:
        InvalidArgumentError: `store` is no kvstore `Store`.
    """

    supports_ttl = True

    def __init__(
        self,
        store: Store,
        *,
        index: LangGraphIndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(store, Store):
            raise InvalidArgumentError(
                "LangGraphStore takes a kvstore Store, as kvstore.open gives; LangGraphStore."
                f"from_conn_string takes a path; this is a {type(store).__name__}"
            )
        self._store = store
        self._is_ready = store._loop is not None  # the store is open, on a loop
        self._is_owner = False
        self._driver: Driver | None = None  # for sync code, if it came first
        self._twin = self
        self.index_config = None if index is None else dict(index)
        self.embeddings: Embeddings | None = (
            None if index is None else ensure_embeddings(index["embed"])
        )
        self.ttl_config = ttl if ttl is not None else _ttl_of(store)
        self._sweeper: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls,
        conn_string: str,
        *,
        index: LangGraphIndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> AsyncIterator[Self]:
        """Open a store for a block of code, as LangGraph's `AsyncSqliteStore` does.

        Args:
            conn_string: a path or URL, as for `kvstore.open`.
            index: LangGraph's settings for semantic search.
            ttl: LangGraph's settings for lifetimes, in minutes.
        """
        options = {} if index is None else {"index": index_config_of(index)}
        async with open_store(conn_string, **options) as store:
            adapter = cls(store, index=index, ttl=ttl)
            try:
                yield adapter
            finally:
                await adapter.aclose()

    # Lifecycle

    async def setup(self) -> None:
        """Open the store, unless it is open; the first call does so by itself."""
        if self._is_ready or self._driver is not None:
            return
        if self._store._loop is None:
            await self._store.open()
            self._is_owner = True
        self._is_ready = True

    async def aclose(self) -> None:
        """Stop the sweeper, and close the store if this object opened it."""
        await self.stop_ttl_sweeper()
        if self._driver is not None:
            await asyncio.to_thread(self._driver.close)
        elif self._is_owner:
            self._is_owner = False
            await self._store.close()

    async def __aenter__(self) -> Self:
        await self.setup()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def key_value_store(self, scope: FlowScope | None = None) -> AsyncKeyValueStore | KeyValueStore:
        """Return the flow facade on the same store, for `KeyValueStoreNode` and its like."""
        facade = AsyncKeyValueStore(self._twin._store, scope=scope)
        return facade if self._driver is None else KeyValueStore._view(self._driver, facade)

    # Awaited

    async def aget(
        self, namespace: tuple[str, ...], key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """Return the item, or `None`; see `BaseStore.aget`."""
        labels = _labels(namespace)
        if not self._is_ready and await self._is_elsewhere():
            return await self._there(self._twin.aget(labels, key, refresh_ttl=refresh_ttl))
        found = await self._store.get(labels, str(key), refresh_ttl=self._refreshes(refresh_ttl))
        return None if found is None else _item(found)

    async def aput(
        self,
        namespace: tuple[str, ...],
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | None | NotProvided = NOT_PROVIDED,
    ) -> None:
        """Store an item; see `BaseStore.aput`. `ttl` is in minutes, and `None` for ever."""
        labels = _labels_to_write(namespace)
        minutes = self._minutes(ttl)
        await self.abatch([PutOp(labels, str(key), value, index, minutes)])

    async def asearch(
        self,
        namespace_prefix: tuple[str, ...],
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Find items below a namespace; see `BaseStore.asearch`."""
        refresh = self._refreshes(refresh_ttl)
        op = SearchOp(_labels(namespace_prefix), filter, limit, offset, query, refresh)
        result: Any = (await self.abatch([op]))[0]
        return result

    async def adelete(self, namespace: tuple[str, ...], key: str) -> None:
        """Delete an item, if it is there; see `BaseStore.adelete`."""
        await self.abatch([PutOp(_labels(namespace), str(key), None)])

    async def alist_namespaces(
        self,
        *,
        prefix: NamespacePath | None = None,
        suffix: NamespacePath | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[tuple[str, ...]]:
        """List the namespaces that hold items, sorted; see `BaseStore.alist_namespaces`."""
        op = _list_op(prefix, suffix, max_depth, limit, offset)
        result: Any = (await self.abatch([op]))[0]
        return result

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations, and return their results in order; see `BaseStore.abatch`.

        As in LangGraph's own stores, the reads of a batch see nothing that it writes. Its writes
        happen all or not at all; of several to one key the last one does.
        """
        todo = list(ops)
        for op in todo:
            _check(op)
        if not self._is_ready and await self._is_elsewhere():
            return await self._there(self._twin.abatch(todo))
        results: list[Result] = [await self._read(op) for op in todo]
        await self._write({(op.namespace, op.key): op for op in todo if isinstance(op, PutOp)})
        return results

    async def _read(self, op: Op) -> Result:
        match op:
            case GetOp():
                found = await self._store.get(op.namespace, str(op.key), refresh_ttl=op.refresh_ttl)
                return None if found is None else _item(found)
            case SearchOp():
                return await self._search(op)
            case ListNamespacesOp():
                return await self._list_namespaces(op)
        return None

    async def _search(self, op: SearchOp) -> list[SearchItem]:
        if not op.query or self._store.index is None:
            return await self._filtered(op, op.limit, op.offset)
        _check_page(op)
        ranked = await self._store.search(
            op.namespace_prefix,
            op.query,
            filter=translate(op.filter),
            limit=op.offset + op.limit,
            subtree=True,
            refresh_ttl=op.refresh_ttl,
        )
        page = [_search_item(item) for item in ranked[op.offset :]]
        if len(ranked) == op.offset + op.limit:
            return page
        # What has no vector comes after all that has one, without a score.
        scored = {(item.namespace, item.key) for item in ranked}
        others = [
            item
            for item in await self._filtered(op, op.offset + op.limit, 0)
            if (item.namespace, item.key) not in scored
        ]
        skipped = max(0, op.offset - len(ranked))
        return page + others[skipped : skipped + op.limit - len(page)]

    async def _filtered(self, op: SearchOp, limit: int, offset: int) -> list[SearchItem]:
        found = await self._store.search(
            op.namespace_prefix,
            filter=translate(op.filter),
            limit=limit,
            offset=offset,
            subtree=True,
            refresh_ttl=op.refresh_ttl,
        )
        return [_search_item(item) for item in found]

    async def _list_namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        conditions = op.match_conditions or ()
        prefix = _merged(_pattern(each) for each in conditions if each.match_type == "prefix")
        backwards = _merged(
            _pattern(each)[::-1] for each in conditions if each.match_type == "suffix"
        )
        if prefix is None or backwards is None:
            return []
        return await self._store.list_namespaces(
            prefix,
            suffix=backwards[::-1],
            max_depth=op.max_depth,
            limit=op.limit,
            offset=op.offset,
        )

    async def _write(self, puts: dict[tuple[Namespace, str], PutOp]) -> None:
        if not puts:
            return
        if len(puts) == 1:
            ((namespace, key), op) = puts.popitem()
            if op.value is None:
                await self._store.delete(namespace, str(key))
            elif op.ttl is not None or self._store._default_ttl is None:
                await self._store.put(namespace, str(key), _value(op), **self._options(op))
            else:
                puts = {(namespace, key): op}
        if puts:
            await self._store.transact(functools.partial(self._put_all, puts.values()))

    def _put_all(self, puts: Iterable[PutOp], tx: Transaction) -> None:
        for op in puts:
            if op.value is None:
                tx.delete(op.namespace, str(op.key))
                continue
            tx.put(op.namespace, str(op.key), _value(op), **self._options(op))
