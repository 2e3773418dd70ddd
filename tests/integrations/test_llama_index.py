"""`KVStore` and `KVChatStore` are stores of LlamaIndex."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("llama_index.core")

from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore.keyval_docstore import KVDocumentStore

from kvstore.integrations.llama_index import KVChatStore, KVStore


def said(*texts: str) -> list[Any]:
    return [ChatMessage(role=MessageRole.USER, content=text) for text in texts]


def test_a_store_from_sync_code(tmp_path: Path) -> None:
    store = KVStore(tmp_path / "a.db")
    store.put("k", {"n": 1})
    store.put("k", {"n": 2}, collection="other")
    assert store.get("k") == {"n": 1}
    assert store.get("none") is None
    for size in (1, 2, 100):
        store.put_all([(f"{size}-{n}", {"n": n}) for n in range(5)], "many", batch_size=size)
    assert len(store.get_all("many")) == 15
    assert store.get_all("none") == {}
    assert store.delete("k") is True
    assert store.delete("k") is False
    assert store.get("k", "other") == {"n": 2}
    store.close()


async def test_a_store_from_async_code(tmp_path: Path) -> None:
    store = KVStore(tmp_path / "a.db")
    await store.aput("k", {"n": 1})
    await store.aput_all([("a", {}), ("b", {})], batch_size=1)
    assert await store.aget_all() == {"a": {}, "b": {}, "k": {"n": 1}}
    assert await store.adelete("k")
    assert await store.aget("k") is None
    await store.aclose()


def test_a_document_store_on_it(tmp_path: Path) -> None:
    store = KVStore(tmp_path / "a.db")
    documents = KVDocumentStore(store)
    documents.add_documents([TextNode(text=f"text {n}", id_=str(n)) for n in range(3)])
    found = KVDocumentStore(KVStore(tmp_path / "a.db")).get_node("1")
    assert found.get_content() == "text 1"
    documents.delete_document("1")
    assert sorted(documents.docs) == ["0", "2"]
    store.close()


def test_chats_from_sync_code(tmp_path: Path) -> None:
    chats = KVChatStore(tmp_path / "a.db")
    assert chats.get_messages("c") == []
    chats.set_messages("c", said("a", "b", "c"))
    chats.add_message("c", said("d")[0])
    chats.add_message("new/*", said("x")[0])
    assert chats.get_messages("c") == said("a", "b", "c", "d")
    assert chats.delete_message("c", 1) == said("b")[0]
    assert chats.delete_message("c", 9) is None
    assert chats.delete_last_message("c") == said("d")[0]
    assert chats.delete_last_message("none") is None
    assert chats.get_keys() == ["c", "new/*"]
    assert chats.delete_messages("c") == said("a", "c")
    assert chats.delete_messages("c") is None
    memory = ChatMemoryBuffer.from_defaults(chat_store=chats, chat_store_key="m")
    memory.put(said("remember")[0])
    assert memory.get_all() == said("remember")
    chats.close()


async def test_chats_from_async_code(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "a.db") as store:
        chats = KVChatStore(store)
        await chats.aset_messages("c", said("0"))
        await asyncio.gather(*(chats.async_add_message("c", said(str(n))[0]) for n in range(1, 30)))
        assert len(await chats.aget_messages("c")) == 30
        taken = await asyncio.gather(*(chats.adelete_last_message("c") for _ in range(30)))
        assert len({str(each) for each in taken}) == 30
        assert await chats.aget_keys() == ["c"]
        assert await chats.adelete_messages("c") == []
        with pytest.raises(asyncio.InvalidStateError):
            chats.get_messages("c")
        await store.put(("llama_index", "chats"), "bad", [7])
        with pytest.raises(kvstore.StoreCorruptError, match="'bad'"):
            await chats.aget_messages("bad")
