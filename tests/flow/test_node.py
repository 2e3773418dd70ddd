"""The flow node, called as a graph calls it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kvstore
from kvstore import AsyncKeyValueStore, FlowScope, KeyValueStore, KeyValueStoreNode
from kvstore.runtime import ToolRuntime

SESSION = {"configurable": {"session_id": "s1", "flow_id": "f1"}, "run_id": "r1"}


@pytest.fixture
async def store() -> Any:
    async with kvstore.InMemoryStore() as opened:
        yield opened


async def test_what_a_node_inserts_a_node_and_the_facade_retrieve(store: kvstore.Store) -> None:
    runtime = ToolRuntime(store=store)
    assert await KeyValueStoreNode("insert", "config")({"value": {"a": 1}}, runtime) == {}
    assert await KeyValueStoreNode("retrieve", "config")({}, runtime) == {"value": {"a": 1}}
    assert await AsyncKeyValueStore(store).retrieve("config") == {"a": 1}
    assert await KeyValueStoreNode("remove", "conf*")({}, runtime) == {"removed": 1}
    assert await KeyValueStoreNode("retrieve", "config")({}, runtime) == {"value": None}


async def test_the_state_may_name_the_key_and_the_entity(store: kvstore.Store) -> None:
    runtime = ToolRuntime(store=store)
    state = {"key": "prefs", "entity_id": "alice", "value": "dark"}
    await KeyValueStoreNode("insert", data_type="text")(state, runtime)
    assert await AsyncKeyValueStore(store).retrieve("prefs", entity_id="alice") == "dark"
    found = await KeyValueStoreNode("retrieve", "prefs", entity_id="alice")({}, runtime)
    assert found == {"value": "dark"}
    assert await KeyValueStoreNode("retrieve", "prefs")({}, runtime) == {"value": None}


async def test_a_node_uses_the_field_that_it_is_given(store: kvstore.Store) -> None:
    runtime = ToolRuntime(store=store)
    await KeyValueStoreNode("insert", "a", field="answer")({"answer": 42, "value": 0}, runtime)
    assert await KeyValueStoreNode("retrieve", "a", field="found")({}, runtime) == {"found": 42}


async def test_a_state_may_be_an_object(store: kvstore.Store) -> None:
    @dataclass
    class State:
        value: Any
        entity_id: str | None = None

    await KeyValueStoreNode("insert", "a")(State([1]), ToolRuntime(store=store))
    assert await AsyncKeyValueStore(store).retrieve("a") == [1]


async def test_the_scope_comes_from_the_run(store: kvstore.Store) -> None:
    runtime = ToolRuntime(store=store, config=SESSION)
    for key in ("$flow.x", "$session.x", "$run.x"):
        await KeyValueStoreNode("insert", key)({"value": key}, runtime)
    scope = FlowScope(flow="f1", session="s1", run="r1")
    keys = await AsyncKeyValueStore(store, scope=scope).list_keys()
    assert keys == ["$flow.x", "$run.x", "$session.x"]
    with pytest.raises(kvstore.InvalidKeyError, match="session"):
        await KeyValueStoreNode("retrieve", "$session.x")({}, ToolRuntime(store=store))


async def test_the_scope_may_come_from_a_graph(store: kvstore.Store) -> None:
    runtime = SimpleNamespace(
        store=store,
        context={"entity_id": "alice"},
        execution_info=SimpleNamespace(thread_id="t1", run_id=7),
    )
    await KeyValueStoreNode("insert", "$session.x")({"value": 1}, runtime)
    await KeyValueStoreNode("insert", "$run.x")({"value": 2}, runtime)
    facade = AsyncKeyValueStore(store, scope=FlowScope(session="t1", run="7"))
    assert await facade.list_keys(entity_id="alice") == ["$run.x", "$session.x"]


async def test_the_nearest_id_wins(store: kvstore.Store) -> None:
    runtime = ToolRuntime(store=store, config={"configurable": {"entity_id": "from the run"}})
    facade = AsyncKeyValueStore(store)
    await KeyValueStoreNode("insert", "a", entity_id="node's")(
        {"value": 1, "entity_id": "state's"}, runtime
    )
    await KeyValueStoreNode("insert", "b")({"value": 1, "entity_id": "state's"}, runtime)
    await KeyValueStoreNode("insert", "c")({"value": 1}, runtime)
    assert await facade.list_keys(entity_id="node's") == ["a"]
    assert await facade.list_keys(entity_id="state's") == ["b"]
    assert await facade.list_keys(entity_id="from the run") == ["c"]


@pytest.mark.parametrize("half", ["sync", "async"])
async def test_a_runtime_may_hold_a_facade(half: str) -> None:
    scope = FlowScope(session="s1")
    with KeyValueStore("memory://", scope=scope) as kv:
        async with AsyncKeyValueStore("memory://", scope=scope) as akv:
            runtime = ToolRuntime(store=kv if half == "sync" else akv)
            await KeyValueStoreNode("insert", "$session.x")({"value": 1}, runtime)
            found = await KeyValueStoreNode("retrieve", "$session.x")({}, runtime)
            assert found == {"value": 1}
            assert await KeyValueStoreNode("remove", "*")({}, runtime) == {"removed": 1}


GOOD: dict[str, list[Any]] = {
    "text": ["", "text"],
    "number": [0, -1.5, 10**18],
    "json": [None, True, {"a": [1, "x", None]}],
    "bytes": [b"", b"\x00\xff"],
    "segments": [[], ["one", "two"], [{"text": "one", "page": 1}, "two"]],
    "embedding": [[0.5], [1, 2.5, -3]],
}
BAD: dict[str, list[Any]] = {
    "text": [None, 1, b"text", ["text"]],
    "number": ["1", True, None, float("nan"), float("inf"), [1]],
    "bytes": ["text", [1, 2], None],
    "segments": ["text", [1], [{"page": 1}], [{"text": 1}], {"text": "one"}, None],
    "embedding": [[], ["x"], [0.5, None], [float("inf")], "text", 0.5, [True], [[0.5]]],
}


@pytest.mark.parametrize("number", [2**70, 10**400], ids=["2**70", "10**400"])
async def test_a_number_of_more_than_64_bits_is_refused(store: kvstore.Store, number: int) -> None:
    node = KeyValueStoreNode("insert", "k", "number")
    with pytest.raises(kvstore.ValueEncodingError, match="64 bits"):
        await node({"value": number}, ToolRuntime(store=store))


@pytest.mark.parametrize(
    ("data_type", "value"), [(kind, value) for kind, values in GOOD.items() for value in values]
)
async def test_a_value_of_the_data_type_comes_back(
    store: kvstore.Store, data_type: str, value: Any
) -> None:
    runtime = ToolRuntime(store=store)
    await KeyValueStoreNode("insert", "k", data_type)({"value": value}, runtime)
    assert await KeyValueStoreNode("retrieve", "k", data_type)({}, runtime) == {"value": value}


@pytest.mark.parametrize(
    ("data_type", "value"), [(kind, value) for kind, values in BAD.items() for value in values]
)
async def test_a_value_of_another_type_is_refused(
    store: kvstore.Store, data_type: str, value: Any
) -> None:
    with pytest.raises(kvstore.ValueTypeError, match=data_type):
        await KeyValueStoreNode("insert", "k", data_type)(
            {"value": value}, ToolRuntime(store=store)
        )
    assert await AsyncKeyValueStore(store).list_keys() == []


async def test_arrays_are_embeddings(store: kvstore.Store) -> None:
    runtime = ToolRuntime(store=store)
    vector = np.array([0.5, -2.0], dtype=np.float32)
    await KeyValueStoreNode("insert", "v", "embedding")({"value": vector}, runtime)
    found = await KeyValueStoreNode("retrieve", "v", "embedding")({}, runtime)
    assert found == {"value": [0.5, -2.0]}


async def test_what_is_stored_is_checked_as_well(store: kvstore.Store) -> None:
    await AsyncKeyValueStore(store).insert("k", {"secret": 1})
    with pytest.raises(kvstore.ValueTypeError) as caught:
        await KeyValueStoreNode("retrieve", "k", "number")({}, ToolRuntime(store=store))
    assert "object" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_unknown_operation_or_type_is_refused_at_once() -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="insert, retrieve, remove"):
        KeyValueStoreNode("upsert", "k")
    with pytest.raises(kvstore.InvalidArgumentError, match="embedding"):
        KeyValueStoreNode("insert", "k", "vector")
    with pytest.raises(kvstore.InvalidArgumentError):
        KeyValueStoreNode("insert", "k", entity_id="")
    with pytest.raises(kvstore.InvalidArgumentError):
        KeyValueStoreNode(None, "k")  # type: ignore[arg-type]


async def test_what_a_node_needs_is_asked_for(store: kvstore.Store) -> None:
    runtime = ToolRuntime(store=store)
    with pytest.raises(kvstore.InvalidKeyError, match="names a key"):
        await KeyValueStoreNode("retrieve")({}, runtime)
    with pytest.raises(kvstore.InvalidArgumentError, match="no 'value'"):
        await KeyValueStoreNode("insert", "k")({}, runtime)
    with pytest.raises(kvstore.InvalidArgumentError, match="no store"):
        await KeyValueStoreNode("retrieve", "k")({}, ToolRuntime())
    with pytest.raises(kvstore.InvalidArgumentError, match="no store"):
        await KeyValueStoreNode("retrieve", "k")({}, None)
