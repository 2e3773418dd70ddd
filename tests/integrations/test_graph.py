"""LangGraphStore and the flow node inside real LangGraph graphs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

import kvstore
from kvstore import AsyncKeyValueStore, FlowScope, KeyValueStore, KeyValueStoreNode

pytest.importorskip("langgraph.graph")

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedStore, ToolNode, ToolRuntime
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore

from kvstore.integrations.langgraph import LangGraphStore

USERS = ("users", "alice")


class State(TypedDict, total=False):
    key: str
    entity_id: str
    value: Any
    removed: int


def chain(*nodes: tuple[str, Any], **options: Any) -> Any:
    """Make a graph of nodes that follow each other."""
    graph = StateGraph(State)
    names = [name for name, _ in nodes]
    for name, node in nodes:
        graph.add_node(name, node)
    for name, following in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(name, following)
    return graph.compile(**options)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LangGraphStore]:
    async with LangGraphStore.from_conn_string(str(tmp_path / "agent.db")) as opened:
        yield opened


async def test_nodes_insert_retrieve_and_remove(store: LangGraphStore) -> None:
    flow = chain(
        ("save", KeyValueStoreNode("insert", data_type="text")),
        ("load", KeyValueStoreNode("retrieve", "greeting", "text")),
        ("clear", KeyValueStoreNode("remove", "temp_*")),
        store=store,
    )
    facade = await store.key_value_store()
    assert isinstance(facade, AsyncKeyValueStore)
    await facade.insert("temp_1", 1)
    state = await flow.ainvoke({"key": "greeting", "value": "hello"})
    assert state == {"key": "greeting", "value": "hello", "removed": 1}
    assert await facade.list_keys() == ["greeting"]


async def test_a_node_names_itself(store: LangGraphStore) -> None:
    graph = StateGraph(State)
    graph.add_node(KeyValueStoreNode("retrieve", "config"))
    graph.add_edge(START, "retrieve_config")
    assert await graph.compile(store=store).ainvoke({"key": ""}) == {"key": "", "value": None}


async def test_the_thread_is_the_session_and_the_run_the_run(store: LangGraphStore) -> None:
    flow = chain(
        ("session", KeyValueStoreNode("insert", "$session.last")),
        ("run", KeyValueStoreNode("insert", "$run.draft")),
        store=store,
        checkpointer=InMemorySaver(),
    )
    for thread in ("t1", "t2"):
        config = {"configurable": {"thread_id": thread}, "run_id": uuid.UUID(int=7)}
        await flow.ainvoke({"value": thread}, config)
    for thread in ("t1", "t2"):
        facade = await store.key_value_store(FlowScope(session=thread))
        assert isinstance(facade, AsyncKeyValueStore)
        assert await facade.retrieve("$session.last") == thread
    run = await store.key_value_store(FlowScope(run=str(uuid.UUID(int=7))))
    assert isinstance(run, AsyncKeyValueStore)
    assert await run.list_keys() == ["$run.draft"]


async def test_the_entity_may_come_from_the_context(store: LangGraphStore) -> None:
    class Context(TypedDict):
        entity_id: str

    graph = StateGraph(State, context_schema=Context)
    graph.add_node("save", KeyValueStoreNode("insert", "prefs"))
    graph.add_edge(START, "save")
    flow = graph.compile(store=store)
    await flow.ainvoke({"value": "dark"}, context={"entity_id": "alice"})
    await flow.ainvoke({"value": "light", "entity_id": "bob"}, context={"entity_id": "alice"})
    facade = await store.key_value_store()
    assert isinstance(facade, AsyncKeyValueStore)
    assert await facade.retrieve("prefs", entity_id="alice") == "dark"
    assert await facade.retrieve("prefs", entity_id="bob") == "light"


async def test_a_value_of_the_wrong_type_ends_the_flow(store: LangGraphStore) -> None:
    flow = chain(("save", KeyValueStoreNode("insert", "vector", "embedding")), store=store)
    with pytest.raises(kvstore.ValueTypeError, match="embedding"):
        await flow.ainvoke({"value": "not a vector"})


async def test_a_graph_without_a_store_is_told_so() -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="LangGraphStore"):
        await chain(("load", KeyValueStoreNode("retrieve", "k"))).ainvoke({"key": "k"})


async def test_a_flow_may_open_the_store_by_its_first_node(tmp_path: Path) -> None:
    store = LangGraphStore(kvstore.open(tmp_path / "agent.db"))
    flow = chain(("load", KeyValueStoreNode("retrieve", "k")), store=store)
    assert await flow.ainvoke({"key": "k"}) == {"key": "k", "value": None}
    await store.aclose()


async def test_sync_and_async_nodes_share_the_store(store: LangGraphStore) -> None:
    def sync_node(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.store is store
        runtime.store.put(USERS, "sync", {"n": 1})
        item = runtime.store.get(USERS, "sync")
        assert item is not None
        return {"value": item.value["n"]}

    async def async_node(state: State, *, store: BaseStore) -> State:
        await store.aput(USERS, "async", {"n": state["value"] + 1})
        return {"value": [item.key for item in await store.asearch(("users",))]}

    flow = chain(("one", sync_node), ("two", async_node), store=store)
    assert sorted((await flow.ainvoke({"value": 0}))["value"]) == ["async", "sync"]


def test_a_sync_program_needs_no_loop(tmp_path: Path) -> None:
    def node(state: State, runtime: Runtime[Any]) -> State:
        assert runtime.store is not None
        runtime.store.put(USERS, "k", {"n": 1})
        return {"value": len(runtime.store.search(("users",)))}

    store = LangGraphStore(kvstore.open(tmp_path / "agent.db"))
    flow = chain(("node", node), store=store)
    assert flow.invoke({"value": 0}) == {"value": 1}
    assert asyncio.run(flow.ainvoke({"value": 0})) == {"value": 1}
    store.close()


def test_a_sync_program_may_use_the_facade_beside(tmp_path: Path) -> None:
    store = LangGraphStore(kvstore.InMemoryStore())
    store.put(USERS, "k", {"n": 1})
    facade = asyncio.run(store.key_value_store(FlowScope(session="s1")))
    assert isinstance(facade, KeyValueStore)
    facade.insert("$session.x", 1)
    assert store.list_namespaces() == [("flow", "project", "session", "s1"), USERS]
    store.close()


@tool
async def remember(fact: str, runtime: ToolRuntime) -> str:
    """Remember a fact."""
    assert runtime.store is not None
    await runtime.store.aput(USERS, runtime.tool_call_id or "", {"fact": fact})
    return "noted"


@tool
def recall(store: Annotated[BaseStore, InjectedStore()]) -> str:
    """Recall all facts."""
    return ", ".join(sorted(item.value["fact"] for item in store.search(USERS)))


async def test_tools_reach_the_store_without_being_passed_it(store: LangGraphStore) -> None:
    def call(name: str, **args: Any) -> Any:
        return {"name": name, "args": args, "id": f"{name}{args}", "type": "tool_call"}

    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([remember, recall]))
    graph.add_edge(START, "tools")
    agent = graph.compile(store=store)
    calls = [call("remember", fact="tea"), call("remember", fact="a cat")]
    state = await agent.ainvoke({"messages": [AIMessage("", tool_calls=calls)]})
    assert [message.content for message in state["messages"][1:]] == ["noted", "noted"]
    state = await agent.ainvoke({"messages": [AIMessage("", tool_calls=[call("recall")])]})
    assert state["messages"][-1].content == "a cat, tea"
    assert "runtime" not in remember.tool_call_schema.model_json_schema()["properties"]  # type: ignore[union-attr]
