"""LlamaIndex over a kvstore: `KVStore` for its document and index stores, `KVChatStore` for chats.

Each takes a path, a URL or a store first, opens it at the first call, and has a sync and an async
half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvstore.errors import StoreCorruptError
from kvstore.instants import FOREVER
from kvstore.integrations.access import Access, Target
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


class KVStore(Recipe, BaseKVStore):  # type: ignore[misc, unused-ignore]
    """A LlamaIndex key-value store, as its document, index and chat stores are built on.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        namespace: where the collections are.
    """

    def __init__(self, target: Target, *, namespace: Sequence[str] = (*_ROOT, "kv")) -> None:
        self._access = Access(target, type(self).__name__)
        self._root = check_namespace(namespace)

    def close(self) -> None:
        """Close the store if a sync call opened it."""
        self._access.close_sync()

    async def aclose(self) -> None:
        """Close the store if this object opened it."""
        await self._access.close()

    def _in(self, collection: str) -> Namespace:
        return (*self._root, collection)

    def put(self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION) -> None:
        """Store a value."""
        self._access.run_sync("put", lambda store: self._put(store, collection, {key: val}))

    async def aput(
        self, key: str, val: dict[str, Any], collection: str = DEFAULT_COLLECTION
    ) -> None:
        """Store a value."""
        await self._access.run(lambda store: self._put(store, collection, {key: val}))

    def put_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Store values, all or none of them, whatever the batch size."""
        values = dict(kv_pairs)
        self._access.run_sync("put_all", lambda store: self._put(store, collection, values))

    async def aput_all(
        self,
        kv_pairs: list[tuple[str, dict[str, Any]]],
        collection: str = DEFAULT_COLLECTION,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        """Store values, all or none of them, whatever the batch size."""
        values = dict(kv_pairs)
        await self._access.run(lambda store: self._put(store, collection, values))

    async def _put(self, store: Store, collection: str, values: Mapping[str, Any]) -> None:
        await store.put_many(self._in(collection), values, ttl=FOREVER)

    def get(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """Return a value, or `None`."""
        return self._access.run_sync("get", lambda store: _get(store, self._in(collection), key))

    async def aget(self, key: str, collection: str = DEFAULT_COLLECTION) -> dict[str, Any] | None:
        """Return a value, or `None`."""
        return await self._access.run(lambda store: _get(store, self._in(collection), key))

    def get_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Return all values of a collection, by key."""
        return self._access.run_sync("get_all", lambda store: _get_all(store, self._in(collection)))

    async def aget_all(self, collection: str = DEFAULT_COLLECTION) -> dict[str, dict[str, Any]]:
        """Return all values of a collection, by key."""
        return await self._access.run(lambda store: _get_all(store, self._in(collection)))

    def delete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Delete a value; return whether it was there."""
        return self._access.run_sync(
            "delete", lambda store: store.delete(self._in(collection), key)
        )

    async def adelete(self, key: str, collection: str = DEFAULT_COLLECTION) -> bool:
        """Delete a value; return whether it was there."""
        return await self._access.run(lambda store: store.delete(self._in(collection), key))


async def _get(store: Store, namespace: Namespace, key: str) -> dict[str, Any] | None:
    item = await store.get(namespace, key)
    return None if item is None else item.value


async def _get_all(store: Store, namespace: Namespace) -> dict[str, dict[str, Any]]:
    return {item.key: item.value async for item in store.scan(namespace, subtree=False)}


class KVChatStore(BaseChatStore):  # type: ignore[misc, unused-ignore]
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

    def close(self) -> None:
        """Close the store if a sync call opened it."""
        self._access.close_sync()

    async def aclose(self) -> None:
        """Close the store if this object opened it."""
        await self._access.close()

    def set_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Store the messages of a chat, over those that are there."""
        self._access.run_sync("set_messages", lambda store: self._set(store, key, messages))

    async def aset_messages(self, key: str, messages: list[ChatMessage]) -> None:
        """Store the messages of a chat, over those that are there."""
        await self._access.run(lambda store: self._set(store, key, messages))

    def get_messages(self, key: str) -> list[ChatMessage]:
        """Return the messages of a chat."""
        return self._access.run_sync("get_messages", lambda store: self._get(store, key))

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Return the messages of a chat."""
        return await self._access.run(lambda store: self._get(store, key))

    def add_message(self, key: str, message: ChatMessage) -> None:
        """Add a message at the end of a chat."""
        self._access.run_sync("add_message", lambda store: self._add(store, key, message))

    async def async_add_message(self, key: str, message: ChatMessage) -> None:
        """Add a message at the end of a chat."""
        await self._access.run(lambda store: self._add(store, key, message))

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a chat; return its messages, or `None`."""
        return self._access.run_sync("delete_messages", lambda store: self._drop(store, key))

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Delete a chat; return its messages, or `None`."""
        return await self._access.run(lambda store: self._drop(store, key))

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete one message of a chat; return it, or `None`."""
        return self._access.run_sync("delete_message", lambda store: self._pop(store, key, idx))

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete one message of a chat; return it, or `None`."""
        return await self._access.run(lambda store: self._pop(store, key, idx))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a chat; return it, or `None`."""
        return self.delete_message(key, -1)

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Delete the last message of a chat; return it, or `None`."""
        return await self.adelete_message(key, -1)

    def get_keys(self) -> list[str]:
        """Return the keys of all chats."""
        return self._access.run_sync("get_keys", lambda store: store.keys(self._namespace))

    async def aget_keys(self) -> list[str]:
        """Return the keys of all chats."""
        return await self._access.run(lambda store: store.keys(self._namespace))

    async def _set(self, store: Store, key: str, messages: list[ChatMessage]) -> None:
        chat = [_dumped(each) for each in messages]
        await store.put(self._namespace, key, chat, ttl=FOREVER)

    async def _get(self, store: Store, key: str) -> list[ChatMessage]:
        item = await store.get(self._namespace, key)
        return [] if item is None else self._loaded(key, item.value)

    async def _add(self, store: Store, key: str, message: ChatMessage) -> None:
        await store.append(self._namespace, key, _dumped(message), ttl=FOREVER)

    async def _pop(self, store: Store, key: str, index: int) -> ChatMessage | None:
        found = await store.pop(self._namespace, key, index)
        return None if found is None else self._loaded(key, [found])[0]

    async def _drop(self, store: Store, key: str) -> list[ChatMessage] | None:
        async def take(tx: Transaction) -> Any:
            item = await tx.get(self._namespace, key)
            if item is not None:
                tx.delete(self._namespace, key)
            return None if item is None else item.value

        found = await store.transact(take)
        return None if found is None else self._loaded(key, found)

    def _loaded(self, key: str, values: Any) -> list[ChatMessage]:
        try:
            return [ChatMessage.model_validate(each) for each in values]
        except (TypeError, ValueError) as exc:
            raise StoreCorruptError(
                f"the chat {key!r} of {self._namespace} holds what is no message"
            ) from exc


def _dumped(message: ChatMessage) -> Any:
    return message.model_dump(mode="json")
