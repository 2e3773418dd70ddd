"""LangChain over a kvstore: `KVByteStore`, `KVCache`, `KVChatMessageHistory`, `KVVectorStore`.

Each takes a path, a URL or a store first, opens it at the first call, and has a sync and an async
half. `close` and `aclose` close what was opened so.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from kvstore.errors import InvalidArgumentError, StoreCorruptError
from kvstore.instants import FOREVER
from kvstore.integrations.access import Access, Adapter, Target, Work, halves
from kvstore.integrations.requirements import needing
from kvstore.namespace import check_namespace
from kvstore.patterns import escape
from kvstore.recipe import Recipe
from kvstore.store import Store
from kvstore.types import IndexConfig, Item, Namespace

with needing("kvstore.integrations.langchain", "langchain-core", "1.0", extra="langchain"):
    from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.messages import BaseMessage, message_to_dict, messages_from_dict
    from langchain_core.outputs import ChatGeneration, Generation
    from langchain_core.stores import BaseStore
    from langchain_core.vectorstores import VectorStore

__all__ = ["KVByteStore", "KVCache", "KVChatMessageHistory", "KVVectorStore"]


class _Adapter(Recipe, Adapter):
    """What the four have in common: a store, and a namespace of it."""

    def __init__(
        self, target: Target, namespace: Sequence[str], index: IndexConfig | None = None
    ) -> None:
        self._access = Access(target, type(self).__name__, index=index)
        self._namespace: Namespace = check_namespace(namespace)


class _Clearable(_Adapter):
    """One that is emptied as a whole."""

    async def _clear(self, store: Store, /, **kwargs: Any) -> None:
        """Delete all that is there."""
        await store.remove(self._namespace, "*")

    clear, aclear = halves(_clear)


class KVByteStore(_Adapter, BaseStore[str, bytes]):
    """A LangChain `ByteStore`: bytes by key.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        namespace: where the values are.
    """

    def __init__(
        self, target: Target, *, namespace: Sequence[str] = ("langchain", "bytes")
    ) -> None:
        super().__init__(target, namespace)

    async def _get(self, store: Store, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys, `None` for what is not there."""
        found = await store.get_many(self._namespace, keys)
        return [found[key].value if key in found else None for key in keys]

    mget, amget = halves(_get)

    async def _set(self, store: Store, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Store values, all or none of them; of several for one key the last."""
        await store.put_many(self._namespace, dict(key_value_pairs), ttl=FOREVER, index=False)

    mset, amset = halves(_set)

    async def _delete(self, store: Store, keys: Sequence[str]) -> None:
        """Delete what is there of keys."""
        await store.delete_many(self._namespace, keys)

    mdelete, amdelete = halves(_delete)

    def _keys(self, prefix: str | None) -> Work[list[str]]:
        return lambda store: store.keys(self._namespace, escape(prefix or "") + "*")

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield the keys, sorted; those that begin with a text, taken literally."""
        yield from self._access.run_sync("yield_keys", "ayield_keys", self._keys(prefix))

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """Yield the keys, sorted; those that begin with a text, taken literally."""
        for key in await self._access.run(self._keys(prefix)):
            yield key


class KVCache(_Clearable, BaseCache):
    """A LangChain cache of what models answered: exact, by the prompt and the model's settings.

    A hit is a fresh object each time, and renews no lifetime.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        namespace: where the answers are.
        ttl: their lifetime in seconds; `None`: the store's default.
    """

    def __init__(
        self,
        target: Target,
        *,
        namespace: Sequence[str] = ("langchain", "cache"),
        ttl: float | None = None,
    ) -> None:
        super().__init__(target, namespace)
        self._ttl = ttl

    async def _lookup(self, store: Store, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """Return what was answered, or `None`."""
        key = _key_of(prompt, llm_string)
        item = await store.get(self._namespace, key, refresh_ttl=False)
        if item is None:
            return None
        if not isinstance(item.value, dict) or "answers" not in item.value:
            raise StoreCorruptError(f"the item {key!r} of {self._namespace} is no cached answer")
        return [_loaded(answer) for answer in item.value["answers"]]

    lookup, alookup = halves(_lookup)

    async def _update(
        self, store: Store, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE
    ) -> None:
        """Keep what was answered."""
        value = {"prompt": prompt, "answers": [_dumped(answer) for answer in return_val]}
        key = _key_of(prompt, llm_string)
        await store.put(self._namespace, key, value, ttl=self._ttl, index=False)

    update, aupdate = halves(_update)


def _key_of(prompt: str, llm_string: str) -> str:
    """Return the key of a question to a model; no two pairs share one."""
    text = f"{len(llm_string)}:{llm_string}{prompt}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _dumped(answer: Generation) -> dict[str, Any]:
    stored: dict[str, Any] = {"text": answer.text, "info": answer.generation_info}
    if isinstance(answer, ChatGeneration):
        stored["message"] = message_to_dict(answer.message)
    return stored


def _loaded(stored: Mapping[str, Any]) -> Generation:
    if "message" not in stored:
        return Generation(text=stored["text"], generation_info=stored["info"])
    (message,) = messages_from_dict([stored["message"]])
    return ChatGeneration(message=message, generation_info=stored["info"])


class KVChatMessageHistory(_Clearable, BaseChatMessageHistory):
    """A LangChain chat history: the messages of a session, in order.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store.
        session_id: whose messages.
        namespace: where the sessions are.
    """

    def __init__(
        self,
        target: Target,
        session_id: str,
        *,
        namespace: Sequence[str] = ("langchain", "history"),
    ) -> None:
        super().__init__(target, (*check_namespace(namespace), session_id))

    async def _messages(self, store: Store) -> list[BaseMessage]:
        """Return all messages, the oldest first."""
        entries = store.log(self._namespace).read()
        return messages_from_dict([entry.value async for entry in entries])

    _get_messages, aget_messages = halves(_messages)
    messages = property(_get_messages)

    async def _add(self, store: Store, messages: Sequence[BaseMessage]) -> None:
        """Add messages at the end, all or none of them."""
        if messages:
            values = [message_to_dict(each) for each in messages]
            await store.log(self._namespace).append(*values, ttl=FOREVER)

    add_messages, aadd_messages = halves(_add)


class KVVectorStore(_Adapter, VectorStore):
    """A LangChain vector store: documents, found by meaning.

    Scores are cosine similarities, the higher the better. A filter is kvstore's, over the
    metadata: `{"year": {"$gte": 2020}}`.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store that has an index with embeddings.
        embedding: the model; for a path or URL.
        namespace: where the documents are.
    """

    def __init__(
        self,
        target: Target,
        embedding: Embeddings | None = None,
        *,
        namespace: Sequence[str] = ("langchain", "documents"),
    ) -> None:
        if isinstance(target, Store):
            if target.index is None or target.index.embeddings is None:
                raise InvalidArgumentError(
                    "KVVectorStore needs a store with a model: index=IndexConfig(embeddings, "
                    "fields=('text',)); or give it a path and the model"
                )
            model, index = target.index.embeddings, None
            self._embedding = embedding or (model if isinstance(model, Embeddings) else None)
        else:
            if embedding is None:
                raise InvalidArgumentError("KVVectorStore needs a model: the argument embedding")
            self._embedding, index = embedding, IndexConfig(embedding, fields=("text",))
        super().__init__(target, namespace, index)

    @property
    def embeddings(self) -> Embeddings | None:
        """The model, if it is one of LangChain's."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        target: Target = "memory://",
        **kwargs: Any,
    ) -> Self:
        """Return a vector store that holds texts."""
        made = cls(target, embedding, **kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    async def _add(
        self,
        store: Store,
        /,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store texts, all or none of them, over those of the same ids; return the ids."""
        documents = _documents(texts, metadatas, ids)
        await store.put_many(self._namespace, documents, ttl=FOREVER)
        return [*documents]

    add_texts, aadd_texts = halves(_add)

    async def _delete(
        self, store: Store, /, ids: list[str] | None = None, **kwargs: Any
    ) -> bool | None:
        """Delete documents; without ids, all."""
        if ids is None:
            await store.remove(self._namespace, "*")
        else:
            await store.delete_many(self._namespace, ids)
        return True

    delete, adelete = halves(_delete)

    async def _get(self, store: Store, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that are there."""
        found = await store.get_many(self._namespace, ids)
        return [_document(item) for item in found.values()]

    get_by_ids, aget_by_ids = halves(_get)

    async def _search(
        self,
        store: Store,
        /,
        query: str,
        k: int = 4,
        *,
        filter: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return the nearest documents with their similarities."""
        found = await store.search(
            self._namespace,
            query,
            filter=None if filter is None else _over_metadata(filter),
            limit=k,
            mode="semantic",
        )
        return [(_document(item), item.score or 0.0) for item in found]

    similarity_search_with_score, asimilarity_search_with_score = halves(_search)

    async def _nearest(
        self, store: Store, /, query: str, k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Return the documents that are nearest to a query, the best first."""
        return [document for document, _ in await self._search(store, query, k, **kwargs)]

    similarity_search, asimilarity_search = halves(_nearest)

    def _select_relevance_score_fn(self) -> Any:
        return lambda similarity: similarity


def _documents(
    texts: Iterable[str], metadatas: list[dict[str, Any]] | None, ids: Sequence[str | None] | None
) -> dict[str, Any]:
    """Return values by their ids, new ones where there is none."""
    listed = [*texts]
    described = metadatas or [{}] * len(listed)
    named = ids or [None] * len(listed)
    if not len(listed) == len(described) == len(named):
        raise InvalidArgumentError("texts, metadatas and ids are of different lengths")
    return {
        id or str(uuid.uuid4()): {"text": text, "metadata": metadata}
        for text, metadata, id in zip(listed, described, named, strict=True)
    }


def _document(item: Item) -> Document:
    value = item.value
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise StoreCorruptError(f"the item {item.key!r} of {item.namespace} is no document")
    return Document(value["text"], metadata=value.get("metadata") or {}, id=item.key)


def _over_metadata(filter: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter over metadata as one over the stored values."""
    return {
        key if key in ("$and", "$or", "$not") else f"metadata.{key}": [
            _over_metadata(each) for each in wanted
        ]
        if key in ("$and", "$or")
        else _over_metadata(wanted)
        if key == "$not"
        else wanted
        for key, wanted in filter.items()
    }
