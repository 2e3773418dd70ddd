"""What an adapter keeps stays, whatever lifetime the store gives to other items."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.embeddings import HashingEmbeddings

DAY = 86_400.0


class Aging:
    """A store whose items live for a minute, unless they are put without end."""

    def __init__(self, path: Path) -> None:
        self.now = 1_000_000.0
        self.store = kvstore.open(
            path,
            default_ttl=60.0,
            clock=lambda: self.now,
            index=kvstore.IndexConfig(HashingEmbeddings(64), fields=("text", "content")),
        )

    async def age(self) -> None:
        """Let a day pass, and all go that may."""
        assert await self.store.count((), subtree=True) > 1
        self.now += DAY
        await self.store.sweep()
        assert await self.store.get(("other",), "k") is None


@pytest.fixture
async def aging(tmp_path: Path) -> AsyncIterator[Aging]:
    aging = Aging(tmp_path / "a.db")
    async with aging.store:
        await aging.store.put(("other",), "k", 1)
        yield aging


async def test_checkpoints_and_their_pieces(aging: Aging) -> None:
    pytest.importorskip("langgraph.graph")
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.types import interrupt

    from kvstore.integrations.langgraph import LangGraphCheckpointer

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("an answer of some length " * 30)]}

    def ask(state: MessagesState) -> None:
        interrupt("go on?")

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("ask", ask)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", "ask")
    saver = LangGraphCheckpointer(aging.store)
    agent = graph.compile(checkpointer=saver)
    thread: Any = {"configurable": {"thread_id": "t"}}
    for turn in range(3):
        question = MessagesState(messages=[HumanMessage(f"question {turn} " * 60)])
        await agent.ainvoke(question, thread)
    before = await agent.aget_state(thread)
    assert len(before.values["messages"]) == 6
    await saver.acopy_thread("t", "copy")
    await saver.aprune(["copy"])
    await aging.age()
    for name in ("t", "copy"):
        found: Any = {"configurable": {"thread_id": name}}
        state = await agent.aget_state(found)
        assert state.values == before.values
        assert [each.value for each in state.interrupts] == ["go on?"]
    states = [state async for state in agent.aget_state_history(thread)]
    assert len(states) > 6


async def test_py_key_value(aging: Aging) -> None:
    pytest.importorskip("key_value.aio")
    from kvstore.integrations.key_value import KVStoreBackend

    backend = KVStoreBackend(aging.store, default_collection="c")
    await backend.put("k", {"n": 1})
    await backend.put("brief", {"n": 2}, ttl=5)
    await backend.put_if_absent("absent", {"n": 3})
    await backend.put_many(["many"], [{"n": 4}])
    await aging.age()
    found = await backend.get_many(["k", "brief", "absent", "many"])
    assert found == [{"n": 1}, None, {"n": 3}, {"n": 4}]


async def test_langchain(aging: Aging) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.messages import HumanMessage
    from langchain_core.outputs import Generation

    from kvstore.integrations.langchain import (
        KVByteStore,
        KVCache,
        KVChatMessageHistory,
        KVVectorStore,
    )

    store = aging.store
    await KVByteStore(store).amset([("k", b"v")])
    await KVChatMessageHistory(store, "s").aadd_messages([HumanMessage("hello")])
    await KVVectorStore(store).aadd_texts(["a text"], ids=["1"])
    await KVCache(store).aupdate("prompt", "model", [Generation(text="answer")])
    await aging.age()
    assert await KVByteStore(store).amget(["k"]) == [b"v"]
    assert await KVChatMessageHistory(store, "s").aget_messages() == [HumanMessage("hello")]
    (found,) = await KVVectorStore(store).asimilarity_search("a text")
    assert found.page_content == "a text"
    assert await KVCache(store).alookup("prompt", "model") is None  # a cache is not for ever


async def test_openai_agents(aging: Aging) -> None:
    pytest.importorskip("agents.memory")
    from kvstore.integrations.openai_agents import KVSession

    session = KVSession(aging.store, "s")
    items: list[Any] = [{"role": "user", "content": "hello"}]
    await session.add_items(items)
    await aging.age()
    assert await session.get_items() == items


async def test_google_adk(aging: Aging) -> None:
    pytest.importorskip("google.adk.sessions")
    from google.adk.events.event import Event
    from google.genai import types

    from kvstore.integrations.google_adk import KVMemoryService, KVSessionService

    who: Any = {"app_name": "app", "user_id": "alice"}
    sessions, memories = KVSessionService(aging.store), KVMemoryService(aging.store)
    state = {"app:a": 1, "user:u": 2, "s": 3}
    session = await sessions.create_session(**who, session_id="s", state=state)
    for text in ("tea", "cat"):
        content = types.Content(role="user", parts=[types.Part(text=text)])
        await sessions.append_event(session, Event(author="user", content=content, id=text))
    await memories.add_session_to_memory(session)
    await memories.delete_memory(**who, memory_id="cat")
    await aging.age()
    found = await sessions.get_session(**who, session_id="s")
    assert found is not None
    assert (found.state, [each.id for each in found.events]) == (state, ["tea", "cat"])
    await memories.add_session_to_memory(session)  # and none that was deleted comes back
    for query, ids in (("tea", ["tea"]), ("cat", [])):
        response = await memories.search_memory(**who, query=query)
        assert [each.id for each in response.memories if each.id == query] == ids


async def test_llama_index(aging: Aging) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.llms import ChatMessage

    from kvstore.integrations.llama_index import KVChatStore, KVStore

    values, chats = KVStore(aging.store), KVChatStore(aging.store)
    await values.aput("k", {"n": 1})
    await values.aput_all([("many", {"n": 2})])
    await chats.aset_messages("set", [ChatMessage("a")])
    await chats.async_add_message("added", ChatMessage("b"))
    await aging.age()
    assert await values.aget_all() == {"k": {"n": 1}, "many": {"n": 2}}
    assert [each.content for each in await chats.aget_messages("set")] == ["a"]
    assert [each.content for each in await chats.aget_messages("added")] == ["b"]


async def test_haystack(aging: Aging) -> None:
    pytest.importorskip("haystack.document_stores")
    from haystack import Document

    from kvstore.integrations.haystack import KVDocumentStore

    documents = KVDocumentStore(aging.store)
    await documents.write_documents_async([Document(id="1", content="tea is green")])
    await aging.age()
    (found,) = await documents.find_by_words_async("green")
    assert found.id == "1"
