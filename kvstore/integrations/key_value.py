"""py-key-value over a kvstore: `KVStoreBackend` is storage for whatever speaks `AsyncKeyValue`.

FastMCP does: its session state, OAuth clients and tokens, event store and response cache take one.

An entry of a collection is an item of the namespace `("key_value", collection)`, with its value as
it is and the store's own kind of lifetime: kvstore's methods see it, and its filters find it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Final, SupportsFloat, TypeVar

from kvstore.errors import (
    ConflictError,
    InvalidKeyError,
    InvalidNamespaceError,
    ValueEncodingError,
    ValueTooLargeError,
)
from kvstore.instants import FOREVER, Forever
from kvstore.integrations.access import Access, Target, Work
from kvstore.integrations.requirements import needing
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.types import Item, Namespace

with needing("kvstore.integrations.key_value", "py-key-value-aio", "0.4.6", extra="key-value"):
    from key_value.aio import errors
    from key_value.aio.stores.base import (  # type: ignore[attr-defined, unused-ignore]
        BaseContextManagerStore,
        BaseCullStore,
        BaseDestroyCollectionStore,
        BaseDestroyStore,
        BaseEnumerateCollectionsStore,
        BaseEnumerateKeysStore,
        ManagedEntry,  # declared public since 0.5
    )

__all__ = ["KVStoreBackend"]

T = TypeVar("T")

_ROOT: Final = "key_value"


class KVStoreBackend(
    Recipe,
    BaseContextManagerStore,
    BaseEnumerateKeysStore,
    BaseEnumerateCollectionsStore,
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseCullStore,
):
    """An `AsyncKeyValue` store in a kvstore.

    It opens by itself at the first call, on whatever loop that is made, and closes by `close` or
    `async with`. Bulk operations happen all or not at all. What JSON cannot hold is a
    `SerializationError`, NaN included.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store. A store that is open stays its
            owner's. A file may be used from several event loops, one after the other.
        default_collection: the collection of calls that name none; `None`: py-key-value's own.
        options: those of py-key-value's `BaseStore`, such as `seed`.
    """

    def __init__(
        self,
        target: Target,
        *,
        default_collection: str | None = None,
        **options: Any,
    ) -> None:
        is_open = isinstance(target, Store) and target.is_open
        super().__init__(
            client_provided_by_user=is_open,
            default_collection=default_collection,
            stable_api=True,
            **options,
        )
        self._access = Access(target, type(self).__name__)

    # Lifecycle

    async def _setup(self) -> None:
        await self._access.open()

    async def close(self) -> None:
        """Close the store, if it is ours; the next call opens it again."""
        await super().close()
        await self._access.close()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        result = await super().__aexit__(exc_type, exc_value, traceback)
        await self.close()
        return result

    async def _ask(self, work: Work[T]) -> T:
        """Do what is to be done with the store; its errors are raised as py-key-value's."""
        with _as_theirs():
            return await self._access.run(work)

    # One entry

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        item = await self._ask(lambda store: store.get(_namespace(collection), key))
        return None if item is None else _entry(item)

    async def _put_managed_entry(
        self, *, collection: str, key: str, managed_entry: ManagedEntry
    ) -> None:
        value, ttl = _value(managed_entry), _ttl(managed_entry)
        await self._ask(lambda store: store.put(_namespace(collection), key, value, ttl=ttl))

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        return await self._ask(lambda store: store.delete(_namespace(collection), key))

    async def put_if_absent(
        self,
        key: str,
        value: Mapping[str, Any],
        *,
        collection: str | None = None,
        ttl: SupportsFloat | None = None,
    ) -> bool:
        """Store a value unless there is one, atomically; return whether it was stored.

        Args:
            key: where.
            value: what.
            collection: `None`: the default one.
            ttl: lifetime in seconds; `None`: for ever.

        Raises:
            InvalidTTLError: the ttl is not a positive number.
        """
        collection = collection or self.default_collection
        await self.setup_collection(collection=collection)
        if ttl is not None and (isinstance(ttl, bool) or not float(ttl) > 0):
            raise errors.InvalidTTLError(ttl=ttl)
        where, seconds = _namespace(collection), FOREVER if ttl is None else float(ttl)
        plain = _value(ManagedEntry(value=value))
        try:
            await self._ask(lambda store: store.put(where, key, plain, ttl=seconds, if_version=0))
        except ConflictError:
            return False
        return True

    # Many entries

    async def _get_managed_entries(
        self, *, collection: str, keys: Sequence[str]
    ) -> list[ManagedEntry | None]:
        found = await self._ask(lambda store: store.get_many(_namespace(collection), keys))
        return [_entry(found[key]) if key in found else None for key in keys]

    async def _put_managed_entries(
        self,
        *,
        collection: str,
        keys: Sequence[str],
        managed_entries: Sequence[ManagedEntry],
        ttl: float | None,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> None:
        entries = zip(keys, managed_entries, strict=True)
        where, values = _namespace(collection), {key: _value(entry) for key, entry in entries}
        await self._ask(lambda store: store.put_many(where, values, ttl=_lasting(ttl)))

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        return await self._ask(lambda store: store.delete_many(_namespace(collection), keys))

    # Whole collections

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        return await self._ask(lambda store: store.keys(_namespace(collection), limit=limit))

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        found = await self._ask(
            lambda store: store.list_namespaces((_ROOT, ...), max_depth=2, limit=limit)
        )
        return [collection for _, collection in found]

    async def _delete_collection(self, *, collection: str) -> bool:
        return await self._ask(lambda store: store.remove(_namespace(collection), "*")) > 0

    async def _delete_store(self) -> bool:
        await self._ask(lambda store: store.remove((_ROOT,), "*", subtree=True))
        return True

    async def _cull(self) -> None:
        await self._ask(lambda store: store.sweep())


def _namespace(collection: str) -> Namespace:
    return (_ROOT, collection)


def _value(entry: ManagedEntry) -> Any:
    """Return a value as JSON would have it, refusing what py-key-value refuses."""
    return json.loads(entry.value_as_json)


def _ttl(entry: ManagedEntry) -> float | Forever:
    """Return the lifetime of an entry that is to be put, in seconds."""
    if entry.expires_at is None or entry.created_at is None:
        return _lasting(entry.ttl)
    return (entry.expires_at - entry.created_at).total_seconds()


def _lasting(ttl: float | None) -> float | Forever:
    """Return a lifetime of theirs, where none means for ever, whatever the store's default."""
    return FOREVER if ttl is None else ttl


def _entry(item: Item) -> ManagedEntry:
    if not isinstance(item.value, dict):
        raise errors.DeserializationError(
            f"the item {item.key!r} of {item.namespace} is no mapping; kvstore's own methods put it"
        )
    return ManagedEntry(value=item.value, created_at=item.updated_at, expires_at=item.expires_at)


@contextmanager
def _as_theirs() -> Iterator[None]:
    """Raise the errors that py-key-value has a class for as that class."""
    try:
        yield
    except ValueEncodingError as exc:
        raise errors.SerializationError(f"Failed to serialize object to JSON: {exc}") from exc
    except (InvalidKeyError, InvalidNamespaceError) as exc:
        raise errors.InvalidKeyError(str(exc)) from exc
    except ValueTooLargeError as exc:
        raise errors.KeyValueOperationError(str(exc)) from exc
