"""LlamaIndex over a kvstore: `KVStore` for its document and index stores, `KVChatStore` for chats.

Each takes a path, a URL or a store first, opens it at the first call, and has a sync and an async
half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvstore.errors import StoreCorruptError
from kvstore.instants import FOREVER
from kvstore.integrations.access import Access, Adapter, Target, halves
from kvstore.integrations.requirements import needing
from kvstore.namespace import check_namespace
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.transaction import Transaction
from kvstore.types import Namespace

with needing("kvstore.integrations.llama_index", "llama-index-core", "0.13", extra="llama-index"):
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.llms import ChatMessage
    from llama_index.core.storage.chat_store.base import BaseChatStore
    from llama_index.core.storage.kvstore.types import (
        DEFAULT_BATCH_SIZE,
        DEFAULT_COLLECTION,
        BaseKVStore,
    )

__all__ = ["KVChatStore", "KVStore"]

_ROOT: Final = ("llama_index",)


class KVStore(Recipe, Adapter, BaseKVStore):  # type: ignore[misc, unused-ignore]
    """A LlamaIndex key-value store, as its document, index and chat stores are built on.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        namespace: where the collections are.
    """

    def __init__(self, target: Target, *, namespace: Sequence[str] = (*_ROOT, "kv")) -> None:
        self._access = Access(target, type(self).__name__)
        self._root = check_namespace(namespace)

    def _in(self, collection: str) -> Namespace:
        return (*self._root, collection)

    async def _put_all(
        self,
        store: Store,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Store values, all or none of them, whatever the batch size."""
        await store.put_many(self._in(collection), dict(kv_pairs), ttl=FOREVER)

    put_all, aput_all = halves(_put_all)

    async def _put(
        self, store: Store, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION
    ) -> None:
        """Store a value."""
        await self._put_all(store, [(key, val)], collection)

    put, aput = halves(_put)

    async def _get(
        self, store: Store, key: str, collection: str = DEFAULT_COLLECTION
    ) -> dict[str, Any] | None:
        """Return a value, or `None`."""
        item = await store.get(self._in(collection), key)
        return None if item is None else item.value

    get, aget = halves(_get)

    async def _get_all(
        self, store: Store, collection: str = DEFAULT_COLLECTION
    ) -> dict[str, dict[str, Any]]:
        """Return all values of a collection, by key."""
        found = store.scan(self._in(collection), subtree=False)
        return {item.key: item.value async for item in found}

    get_all, aget_all = halves(_get_all)

    async def _delete(self, store: Store, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Delete a value; return whether it was there."""
        return await store.delete(self._in(collection), key)

    delete, adelete = halves(_delete)


class KVChatStore(Adapter, BaseChatStore):  # type: ignore[misc, unused-ignore]
    """A LlamaIndex chat store: lists of messages, each changed as a whole or not at all.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        namespace: where the chats are.
    """

    _access: Access = PrivateAttr()
    _namespace: Namespace = PrivateAttr()

    def __init__(self, target: Target, *, namespace: Sequence[str] = (*_ROOT, "chats")) -> None:
        super().__init__()
        self._access = Access(target, type(self).__name__)
        self._namespace = check_namespace(namespace)

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows this class by."""
        return "KVChatStore"

    async def _set(self, store: Store, key: str, messages: list[ChatMessage]) -> None:
        """Store the messages of a chat, over those that are there."""
        chat = [_dumped(each) for each in messages]
        await store.put(self._namespace, key, chat, ttl=FOREVER)

    set_messages, aset_messages = halves(_set)

    async def _get(self, store: Store, key: str) -> list[ChatMessage]:
        """Return the messages of a chat."""
        item = await store.get(self._namespace, key)
        return [] if item is None else self._loaded(key, item.value)

    get_messages, aget_messages = halves(_get)

    async def _add(self, store: Store, key: str, message: ChatMessage) -> None:
        """Add a message at the end of a chat."""
        await store.append(self._namespace, key, _dumped(message), ttl=FOREVER)

    add_message, async_add_message = halves(_add)

    async def _drop(self, store: Store, key: str) -> list[ChatMessage] | None:
        """Delete a chat; return its messages, or `None`."""

        async def take(tx: Transaction) -> Any:
            item = await tx.get(self._namespace, key)
            if item is not None:
                tx.delete(self._namespace, key)
            return None if item is None else item.value

        found = await store.transact(take)
        return None if found is None else self._loaded(key, found)

    delete_messages, adelete_messages = halves(_drop)

    async def _pop(self, store: Store, key: str, idx: int) -> ChatMessage | None:
        """Delete one message of a chat; return it, or `None`."""
        found = await store.pop(self._namespace, key, idx)
        return None if found is None else self._loaded(key, [found])[0]

    delete_message, adelete_message = halves(_pop)

    async def _pop_last(self, store: Store, key: str) -> ChatMessage | None:
        """Delete the last message of a chat; return it, or `None`."""
        return await self._pop(store, key, -1)

    delete_last_message, adelete_last_message = halves(_pop_last)

    async def _keys(self, store: Store) -> list[str]:
        """Return the keys of all chats."""
        return await store.keys(self._namespace)

    get_keys, aget_keys = halves(_keys)

    def _loaded(self, key: str, values: Any) -> list[ChatMessage]:
        try:
            return [ChatMessage.model_validate(each) for each in values]
        except (TypeError, ValueError) as exc:
            raise StoreCorruptError(
                f"the chat {key!r} of {self._namespace} holds what is no message"
            ) from exc


def _dumped(message: ChatMessage) -> Any:
    return message.model_dump(mode="json")
