"""The flow node: one operation on the key-value store as a step of a graph."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from kvstore.errors import InvalidArgumentError, InvalidKeyError, ValueTypeError
from kvstore.flow.data_types import DATA_TYPES
from kvstore.flow.facade import AsyncKeyValueStore, KeyValueStore
from kvstore.flow.knowledge import KnowledgeDB, Search
from kvstore.flow.scopes import FlowScope, check_id
from kvstore.store import Store
from kvstore.types import Item

__all__ = ["KeyValueStoreNode"]

_MISSING: Final = object()


class KeyValueStoreNode:
    """A step of a flow: an async callable `(state, runtime)`, as LangGraph calls a node.

    It returns what changes in the state: `insert` stores `state["value"]` and changes nothing,
    `retrieve` gives `{"value": ...}` (`None` if there is nothing), `remove` takes a pattern and
    gives `{"removed": how many}`.

    The store is `runtime.store`: a kvstore `Store`, a facade, or LangGraph's own store when it is
    a `LangGraphStore`. What this node inserts, `KeyValueStore` retrieves, and the other way round.

    The ids come from the run. The node looks in `runtime.context`, in `runtime.config` and its
    `"configurable"`, and in LangGraph's execution info: `flow_id` for `$flow.`, `session_id` or
    else `thread_id` for `$session.`, `run_id` for `$run.`, and `entity_id`.

    Args:
        operation: `"insert"`, `"retrieve"` or `"remove"`.
        key: which key, or pattern to remove; `None`: `state["key"]`.
        data_type: what the value must be: `"text"`, `"number"`, `"json"`, `"bytes"`, `"content"`,
            `"segments"`, `"embedding"`, `"knowledge"`, `"knowledge_db"`, `"llm_model"` or
            `"configured_service"`; `kvstore.flow.data_types` has their shapes.
        entity_id: whose key; `None`: `state["entity_id"]`, or the run's, or the project's.
        field: where in the state the value is, and goes.

    Raises:
        InvalidArgumentError: an unknown operation or data type, or an empty entity id.

    Calling it raises `ValueTypeError` if a value is not of the data type, `InvalidKeyError` if
    nothing names a key, `InvalidArgumentError` if the state has no value or the run no store, and
    the errors of `KeyValueStore`.
    """

    def __init__(
        self,
        operation: str,
        key: str | None = None,
        data_type: str = "json",
        entity_id: str | None = None,
        *,
        field: str = "value",
    ) -> None:
        operations = {"insert": self._insert, "retrieve": self._retrieve, "remove": self._remove}
        self._operate = operations[_one_of(operation, operations, "operation")]
        self._type = DATA_TYPES[_one_of(data_type, DATA_TYPES, "data_type")]
        self.operation = operation
        self.key = key
        self.data_type = data_type
        self.entity_id = None if entity_id is None else check_id(entity_id, "entity_id")
        self.field = field
        self.__name__ = f"{operation}_{key}" if key else operation  # what a graph calls it

    async def __call__(self, state: Any, runtime: Any) -> dict[str, Any]:
        """Do the operation, and return what changes in the state."""
        key = self.key if self.key is not None else _field(state, "key")
        if key is _MISSING or key is None:
            raise InvalidKeyError(
                f"neither the {self.operation} node nor the state names a key: "
                f"KeyValueStoreNode({self.operation!r}, 'config'), or a state with 'key'"
            )
        entity_id = self.entity_id or _given(_field(state, "entity_id"))
        if entity_id is None:
            entity_id = _id(runtime, "entity_id")
        return await self._operate(await _facade(runtime), key, entity_id, state)

    async def _insert(
        self, facade: _Facade, key: str, entity_id: str | None, state: Any
    ) -> dict[str, Any]:
        value = _field(state, self.field)
        if value is _MISSING:
            raise InvalidArgumentError(
                f"the state has no {self.field!r} for the insert node to store under {key!r}"
            )
        await _awaited(facade.insert, key, self._as(self._type.store, value, key), entity_id)
        return {}

    async def _retrieve(
        self, facade: _Facade, key: str, entity_id: str | None, state: Any
    ) -> dict[str, Any]:
        value = await _awaited(facade.retrieve, key, _MISSING, entity_id)
        if value is _MISSING:
            return {self.field: None}
        loaded = self._as(self._type.load, value, key)
        return {
            self.field: loaded.of(_searching(facade)) if isinstance(loaded, KnowledgeDB) else loaded
        }

    async def _remove(
        self, facade: _Facade, key: str, entity_id: str | None, state: Any
    ) -> dict[str, Any]:
        return {"removed": await _awaited(facade.remove, key, entity_id)}

    def _as(self, convert: Callable[[Any], Any], value: Any, key: str) -> Any:
        try:
            return convert(value)
        except ValueTypeError as exc:
            raise ValueTypeError(
                f"the {self.operation} node of {key!r} is for {self.data_type}: {exc}"
            ) from None


_Facade = AsyncKeyValueStore | KeyValueStore


async def _awaited(method: Callable[..., Any], *args: Any) -> Any:
    """Call a method of either half, never blocking the loop."""
    if inspect.iscoroutinefunction(method):
        return await method(*args)
    return await asyncio.to_thread(method, *args)


def _searching(facade: _Facade) -> Search:
    """Return what searches the store of a facade, never blocking the loop."""
    if isinstance(facade, AsyncKeyValueStore):
        return facade.store.search
    sync = facade.sync_store

    async def search(*args: Any, **options: Any) -> list[Item]:
        return await asyncio.to_thread(sync.search, *args, **options)

    return search


async def _facade(runtime: Any) -> _Facade:
    """Return the facade on the store of a run, in the scope of the run."""
    store = getattr(runtime, "store", None)
    ids = {
        "flow": _id(runtime, "flow_id"),
        "session": _id(runtime, "session_id") or _id(runtime, "thread_id"),
        "run": _id(runtime, "run_id"),
    }
    if isinstance(store, Store):
        return AsyncKeyValueStore(store, scope=FlowScope(**ids))
    if isinstance(store, (AsyncKeyValueStore, KeyValueStore)):
        return store.scoped(**ids)
    facade = getattr(store, "key_value_store", None)  # LangGraphStore, without importing it
    if facade is not None:
        made: _Facade = await facade(FlowScope(**ids))
        return made
    raise InvalidArgumentError(
        "this run has no store of kvstore's: run with ToolRuntime(store=...), or compile the graph "
        "with store=LangGraphStore(...)"
    )


def _id(runtime: Any, name: str) -> str | None:
    """Return an id that the run gives, the nearest first."""
    for source in _sources(runtime):
        found = _given(_field(source, name))
        if found is not None:
            return str(found)
    return None


def _sources(runtime: Any) -> Iterator[Any]:
    yield getattr(runtime, "context", None)
    config = getattr(runtime, "config", None)
    if isinstance(config, Mapping):
        yield config.get("configurable")
        yield config
    yield getattr(runtime, "execution_info", None)


def _field(source: Any, name: str) -> Any:
    """Return a field of a mapping or an object, or `_MISSING`."""
    if isinstance(source, Mapping):
        return source.get(name, _MISSING)
    return getattr(source, name, _MISSING)


def _given(value: Any) -> Any:
    return None if value is _MISSING else value


def _one_of(name: str, known: Mapping[str, Any], what: str) -> str:
    if not isinstance(name, str) or name not in known:
        raise InvalidArgumentError(f"{what} is one of {', '.join(known)}, not {name!r}")
    return name
