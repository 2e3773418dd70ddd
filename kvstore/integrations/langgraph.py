"""LangGraph's long-term memory in a kvstore: `LangGraphStore` is a LangGraph `BaseStore`.

It means what LangGraph's own stores mean, where these agree. Where they do not, or break their own
documentation: an expired item is gone at its instant, and not at the next sweep; `created_at` stays
when an item is updated; a filter means the same over every backend (see `langgraph_shapes`); what
JSON cannot hold is refused, NaN included; and a call that fails, fails alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Self

from kvstore.errors import InvalidArgumentError, ValueEncodingError
from kvstore.flow.facade import AsyncKeyValueStore, KeyValueStore
from kvstore.flow.scopes import FlowScope
from kvstore.instants import FOREVER
from kvstore.integrations.access import Access, Adapter, halves
from kvstore.integrations.requirements import needing
from kvstore.lifecycle import remember
from kvstore.namespace import address
from kvstore.opening import open_store
from kvstore.operations import Delete, Put
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.types import Mode, Namespace, SearchQuery

with needing("LangGraphStore", "langgraph-checkpoint", "4.0", extra="langgraph"):
    from langgraph.store.base import (
        NOT_PROVIDED,
        BaseStore,
        GetOp,
        IndexConfig,
        Item,
        ListNamespacesOp,
        MatchCondition,
        NotProvided,
        Op,
        PutOp,
        Result,
        SearchItem,
        SearchOp,
        TTLConfig,
    )

from kvstore.integrations.langgraph_checkpointer import LangGraphCheckpointer
from kvstore.integrations.langgraph_import import (
    begin_adoption,
    finish_adoption,
    import_sqlite_saver,
    import_sqlite_store,
)
from kvstore.integrations.langgraph_shapes import (
    SECONDS_A_MINUTE,
    Labels,
    checked,
    embeddings_of,
    index_config_of,
    index_settings_of,
    indexing_of,
    is_of_a_thread,
    item_of,
    labels_of,
    labels_to_put,
    may_hold_threads,
    merged,
    pattern_of,
    search_item_of,
    seconds_of,
    translate,
    ttl_config_of,
)

__all__ = [
    "LangGraphCheckpointer",
    "LangGraphStore",
    "import_sqlite_saver",
    "import_sqlite_store",
    "index_config_of",
]

_SWEEP_MINUTES: Final = 5.0  # LangGraph's own default
_PAGE: Final = 100  # items in hand at once where some are to be left out


class LangGraphStore(Recipe, Adapter, BaseStore):
    """A LangGraph store over any kvstore `Store`: for `compile(store=...)` and `runtime.store`.

    Await the `a...` methods on the loop that opened the store. The others are for other threads,
    such as those of a graph's sync nodes; on that loop itself they raise
    `asyncio.InvalidStateError`. A store that is not open is opened by the first call: on the
    caller's loop by an awaited one; by a sync one so that sync code can use it, with no loop. What
    was opened so is closed by `async with` or `aclose`, or, for sync code, at exit.

    Namespaces are those of LangGraph: labels without `.` and NUL; to put, at least one, and the
    first not `langgraph`. Values are mappings. Items that kvstore's own methods wrote are seen,
    too, with whatever value they have.

    Args:
        store: where the items are.
        index: LangGraph's settings for semantic search, `{"dims", "embed", "fields"}`, of a store
            that was made with `index=index_config_of(index)`; `from_conn_string` does both.
            `None`: as the store itself has it.
        ttl: LangGraph's settings for lifetimes, in minutes: `{"default_ttl", "refresh_on_read",
            "sweep_interval_minutes"}`. A read refreshes a lifetime if its `refresh_ttl` says so,
            or else `refresh_on_read`, or else not. `None`: as the store itself has it.

    Raises:
        InvalidArgumentError: `store` is no kvstore `Store`, or has no index that `index` is for.
    """

    supports_ttl = True

    def __init__(
        self,
        store: Store,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(store, Store):
            raise InvalidArgumentError(
                "LangGraphStore takes a kvstore Store, such as kvstore.open gives, and "
                f"from_conn_string takes a path; this is a {type(store).__name__}"
            )
        if index is not None and store.index is None:
            raise InvalidArgumentError(
                "index is for a store that has one: make the store with "
                "index=index_config_of(index), or use LangGraphStore.from_conn_string"
            )
        self._store = store
        self.index_config = index_settings_of(store.index) if index is None else dict(index)
        self.embeddings = None if index is None else embeddings_of(index)
        self.ttl_config = ttl_config_of(store) if ttl is None else ttl
        self._access = Access(store, type(self).__name__, is_forgiving=False)
        self._sweeper: asyncio.Task[None] | None = None
        remember(self)

    @classmethod
    @asynccontextmanager
    async def from_conn_string(
        cls,
        conn_string: str,
        *,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> AsyncIterator[Self]:
        """Open a store for a block of code, as LangGraph's `AsyncSqliteStore` does.

        A file which that has made becomes kvstore's where it lies, with all its items; a log entry
        says so. LangGraph's own tables, also those of its saver, stay as they are.

        Args:
            conn_string: a path or URL, as for `kvstore.open`.
            index: LangGraph's settings for semantic search.
            ttl: LangGraph's settings for lifetimes, in minutes.
        """
        options = {} if index is None else {"index": index_config_of(index)}
        opening = open_store(conn_string, **options)
        await begin_adoption(opening)
        async with opening as store, cls(store, index=index, ttl=ttl) as adapter:
            await finish_adoption(store)
            yield adapter

    # Lifecycle

    def cross_fork(self) -> None:
        """Forget, in a forked child, the sweeper of the parent."""
        self._sweeper = None

    async def setup(self) -> None:
        """Open the store, unless it is open; the first call does so by itself."""
        await self._access.open()

    async def aclose(self) -> None:
        """Stop the sweeper, and close the store if this object opened it."""
        await self.stop_ttl_sweeper()
        await super().aclose()

    async def __aenter__(self) -> Self:
        await self.setup()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def key_value_store(
        self, scope: FlowScope | None = None
    ) -> AsyncKeyValueStore | KeyValueStore:
        """Return the flow facade on the same store, for `KeyValueStoreNode` and its like."""
        await self.setup()
        runner = self._access.runner
        if runner is None:
            return AsyncKeyValueStore(self._store, scope=scope)
        return KeyValueStore.over(runner, AsyncKeyValueStore(runner.store, scope=scope))

    # Each of these in two halves

    async def _get(
        self, store: Store, namespace: Labels, key: str, *, refresh_ttl: bool | None = None
    ) -> Item | None:
        """Return an item, or `None`; see `BaseStore.get`."""
        labels = labels_of(namespace)
        found = await store.get(labels, str(key), refresh_ttl=self._refreshes(refresh_ttl))
        return None if found is None else item_of(found)

    get, aget = halves(_get)

    async def _put(
        self,
        store: Store,
        namespace: Labels,
        key: str,
        value: Mapping[str, Any],
        index: Literal[False] | list[str] | None = None,
        *,
        ttl: float | NotProvided | None = NOT_PROVIDED,
    ) -> None:
        """Store an item; `ttl` in minutes, `None` for ever; see `BaseStore.put`."""
        labels = labels_to_put(namespace)
        await store.room()
        put = _operation(store, labels, str(key), value, index, self._minutes(ttl))
        await store.apply((put,))

    put, aput = halves(_put)

    async def _search(
        self,
        store: Store,
        namespace_prefix: Labels,
        /,
        *,
        query: str | None = None,
        filter: dict[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
        refresh_ttl: bool | None = None,
    ) -> list[SearchItem]:
        """Find items below a namespace; see `BaseStore.search`.

        With a query and an index: by score, and then, without one, what has no vector. Else: the
        latest first.
        """
        refresh = self._refreshes(refresh_ttl)
        labels = labels_of(namespace_prefix)
        return await _found(store, SearchOp(labels, filter, limit, offset, query, refresh))

    search, asearch = halves(_search)

    async def _delete(self, store: Store, namespace: Labels, key: str) -> None:
        """Delete an item, if it is there; see `BaseStore.delete`."""
        await _write(store, [PutOp(labels_of(namespace), str(key), None)])

    delete, adelete = halves(_delete)

    async def _list_namespaces(
        self,
        store: Store,
        *,
        prefix: Labels | None = None,
        suffix: Labels | None = None,
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Namespace]:
        """List the namespaces that hold items, sorted; see `BaseStore.list_namespaces`."""
        conditions = (
            *([MatchCondition("prefix", labels_of(prefix))] if prefix else []),
            *([MatchCondition("suffix", labels_of(suffix))] if suffix else []),
        )
        return await _listed(store, ListNamespacesOp(conditions, max_depth, limit, offset))

    list_namespaces, alist_namespaces = halves(_list_namespaces)

    async def _batch(self, store: Store, ops: Iterable[Op]) -> list[Result]:
        """Run operations, and return their results in order; see `BaseStore.batch`.

        As in LangGraph's own stores, the reads of a batch see nothing that it writes. Its writes
        happen all or not at all; of several to one key the last one does.
        """
        todo = [checked(op) for op in ops]
        results = [await _read(store, op) for op in todo]
        puts = {(op.namespace, op.key): op for op in todo if isinstance(op, PutOp)}
        if puts:
            await _write(store, puts.values())
        return results

    batch, abatch = halves(_batch)

    def _refreshes(self, refresh_ttl: bool | None) -> bool:
        if refresh_ttl is not None:
            return refresh_ttl
        return self.ttl_config is not None and self.ttl_config.get("refresh_on_read", False)

    def _minutes(self, ttl: float | NotProvided | None) -> float | None:
        if not isinstance(ttl, NotProvided):
            return ttl
        return None if self.ttl_config is None else self.ttl_config.get("default_ttl")

    # Upkeep

    async def sweep_ttl(self) -> int:
        """Remove the rows of expired items, which nobody sees any more; return how many."""
        return await self._access.run(lambda store: store.sweep())

    async def start_ttl_sweeper(
        self, sweep_interval_minutes: float | None = None
    ) -> asyncio.Task[None]:
        """Sweep regularly until `stop_ttl_sweeper`; the store itself does so once a minute, too.

        Args:
            sweep_interval_minutes: `None`: as the `ttl` settings say, or else 5.
        """
        if self._sweeper is None or self._sweeper.done():
            configured = (self.ttl_config or {}).get("sweep_interval_minutes")
            minutes = sweep_interval_minutes or configured or _SWEEP_MINUTES
            self._sweeper = asyncio.create_task(self._sweep_regularly(minutes))
        return self._sweeper

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Stop sweeping; return whether it has stopped within `timeout` seconds."""
        if self._sweeper is None:
            return True
        self._sweeper.cancel()
        done, _ = await asyncio.wait([self._sweeper], timeout=timeout)
        if done:
            self._sweeper = None
        return bool(done)

    async def _sweep_regularly(self, minutes: float) -> None:
        while True:
            await asyncio.sleep(minutes * SECONDS_A_MINUTE)
            await self.sweep_ttl()


# What the operations are on a store


async def _read(store: Store, op: Op) -> Result:
    match op:
        case GetOp():
            found = await store.get(op.namespace, op.key, refresh_ttl=op.refresh_ttl)
            return None if found is None else item_of(found)
        case SearchOp():
            return await _found(store, op)
        case ListNamespacesOp():
            return await _listed(store, op)
    return None


async def _found(store: Store, op: SearchOp) -> list[SearchItem]:
    if op.limit < 0 or op.offset < 0:
        raise InvalidArgumentError("limit and offset are at least 0")
    if not op.query or store.index is None:
        return await _filtered(store, op, op.limit, op.offset)
    end = op.offset + op.limit
    mode: Mode = "auto" if store.index.embeddings is None else "semantic"  # a similarity
    asked = SearchQuery(op.query, translate(op.filter), limit=end, mode=mode, subtree=True)
    ranked = await store.find(op.namespace_prefix, asked, op.refresh_ttl, signed=True)
    found = [search_item_of(item) for item in ranked]
    if len(found) < end:  # what has no vector comes last
        scored = {(item.namespace, item.key) for item in ranked}
        others = await _filtered(store, op, end, 0)
        found += [item for item in others if (item.namespace, item.key) not in scored]
    return found[op.offset : end]


async def _filtered(store: Store, op: SearchOp, limit: int, offset: int) -> list[SearchItem]:
    if not may_hold_threads(op.namespace_prefix):
        return await _page(store, op, limit, offset)
    found: list[SearchItem] = []
    at = 0
    while len(found) < offset + limit:
        page = await _page(store, op, max(limit, _PAGE), at)
        found += [item for item in page if not is_of_a_thread(item.namespace)]
        at += len(page)
        if len(page) < max(limit, _PAGE):
            break
    return found[offset : offset + limit]


async def _page(store: Store, op: SearchOp, limit: int, offset: int) -> list[SearchItem]:
    found = await store.search(
        op.namespace_prefix,
        filter=translate(op.filter),
        limit=limit,
        offset=offset,
        subtree=True,
        refresh_ttl=op.refresh_ttl,
    )
    return [search_item_of(item) for item in found]


async def _listed(store: Store, op: ListNamespacesOp) -> list[Namespace]:
    conditions = op.match_conditions or ()
    prefix = merged(pattern_of(each) for each in conditions if each.match_type == "prefix")
    backwards = merged(pattern_of(each)[::-1] for each in conditions if each.match_type == "suffix")
    if prefix is None or backwards is None:
        return []
    depth, end = op.max_depth, op.offset + op.limit
    if not may_hold_threads(prefix):
        return await store.list_namespaces(
            prefix, suffix=backwards[::-1], max_depth=depth, limit=op.limit, offset=op.offset
        )
    if op.limit < 0 or op.offset < 0 or (depth is not None and depth < 1):
        raise InvalidArgumentError("limit and offset are at least 0, and max_depth 1")
    found = await store.list_namespaces(prefix, suffix=backwards[::-1])
    cut = dict.fromkeys(each[:depth] for each in found if not is_of_a_thread(each))
    return list(cut)[op.offset : end]


async def _write(store: Store, puts: Iterable[PutOp]) -> None:
    """Write all or nothing."""
    await store.room()
    await store.apply([_operation(store, *op) for op in puts])


def _operation(
    store: Store,
    namespace: Namespace,
    key: str,
    value: Mapping[str, Any] | None,
    index: Literal[False] | list[str] | None,
    ttl: float | None,
) -> Put | Delete:
    if value is None:
        return Delete(*address(namespace), key)
    if not isinstance(value, Mapping):
        raise ValueEncodingError(
            f"the value at $ is a {type(value).__name__}, and LangGraph's are mappings, "
            "such as {'text': ...}"
        )
    if type(value) is not dict:
        value = dict(value)
    indexing = None if store.index is None else indexing_of(index)
    lasting = FOREVER if ttl is None else seconds_of(ttl)  # whatever the store's own default
    return store.prepare_put(namespace, key, value, lasting, indexing)
