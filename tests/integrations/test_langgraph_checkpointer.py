"""`LangGraphCheckpointer` is a checkpoint saver for graphs, sync and async."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest

import kvstore
from tests.running import python

pytest.importorskip("langgraph.graph")

from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt

from kvstore.integrations.langgraph import LangGraphCheckpointer, LangGraphStore
from kvstore.integrations.langgraph_checkpoints import Checkpoints

ROOT = Path(kvstore.__file__).parents[1]
TEXT = "Somebody once told me that the files of a chat grow with the square of its length. "


def thread(id: Any = "t1", **more: Any) -> Any:
    return {"configurable": {"thread_id": id, **more}}


def chat(checkpointer: BaseCheckpointSaver[str]) -> Any:
    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(f"{len(state['messages'])} {TEXT}" * 3)]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", answer)
    graph.add_edge(START, "model")
    return graph.compile(checkpointer=checkpointer)


def say(text: str) -> Any:
    return {"messages": [HumanMessage(text * 3)]}


@pytest.fixture
async def saver(tmp_path: Path) -> AsyncIterator[LangGraphCheckpointer]:
    async with LangGraphCheckpointer(tmp_path / "agent.db") as opened:
        yield opened


def put(
    saver: LangGraphCheckpointer, id: str, values: dict[str, Any], *, parent: str | None = None
) -> Any:
    """Put a checkpoint all of whose channels are new."""
    versions: Any = {channel: saver.get_next_version(None, None) for channel in values}
    checkpoint: Any = {
        "v": 4,
        "id": id,
        "ts": "2026-11-28T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": versions,
        "versions_seen": {},
        "updated_channels": None,
    }
    before = {} if parent is None else {"checkpoint_id": parent}
    return saver.put(thread(checkpoint_ns="", **before), checkpoint, {"step": 1}, versions)


# The public suite


POSTGRES: Any = pytest.param("postgresql://", marks=pytest.mark.slow)


@pytest.mark.parametrize("target", ["agent.db", "memory://", POSTGRES])
async def test_langgraphs_conformance_suite(
    tmp_path: Path, target: str, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres") if target == "postgresql://" else None
    conformance = pytest.importorskip("langgraph.checkpoint.conformance")
    made: list[int] = []

    @conformance.checkpointer_test(name=target)  # type: ignore[untyped-decorator]
    async def savers() -> AsyncIterator[LangGraphCheckpointer]:
        made.append(1)
        folder = tmp_path / str(len(made))
        folder.mkdir()
        url = target if ":" in target else str(folder / target)
        with nullcontext(url) if server is None else server.schema() as place:
            async with LangGraphCheckpointer.from_conn_string(place) as saver:
                yield saver

    report = await conformance.validate(savers)
    results = report.results.values()
    assert [failure for result in results for failure in result.failures] == []
    assert [result.passed for result in results] == [True] * 8


# Graphs: what they say of their past is what they say with LangGraph's saver in memory


class State(TypedDict, total=False):
    items: Annotated[list[Any], lambda old, new: [*old, *new]]
    facts: Annotated[list[Any], DeltaChannel(lambda old, new: [*old, *chain(*new)], list)]
    answer: str


def workflow(checkpointer: BaseCheckpointSaver[str] | None) -> Any:
    """A graph that fans out, asks somebody, and has a graph inside."""

    def ask(state: State) -> State:
        return {"answer": interrupt({"question": "go on?"}), "facts": ["asked"]}

    inner = StateGraph(State)
    inner.add_node("ask", ask)
    inner.add_node("note", lambda state: {"items": [{"noted": TEXT}], "facts": ["noted"]})
    inner.add_edge(START, "ask")
    inner.add_edge("ask", "note")
    outer = StateGraph(State)
    outer.add_node("fan", lambda state: {"facts": ["fanned"]})
    outer.add_node("leaf", lambda state: {"items": [{"leaf": state, "text": TEXT * 3}]})
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "fan")
    outer.add_conditional_edges("fan", lambda state: [Send("leaf", n) for n in range(4)], ["leaf"])
    outer.add_edge("leaf", "inner")
    outer.add_edge("inner", END)
    return outer.compile(checkpointer=checkpointer)


def told(graph: Any, config: Any) -> list[Any]:
    """Return what a graph knows of a thread, without ids and times."""
    return [
        (
            state.values,
            state.next,
            {key: state.metadata.get(key) for key in ("source", "step")},
            sorted(
                (task.name, str(task.interrupts and task.interrupts[0].value), str(task.result))
                for task in state.tasks
            ),
            state.parent_config is None,
        )
        for state in graph.get_state_history(config)
    ]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_graph_remembers_as_with_the_saver_in_memory(tmp_path: Path, durability: str) -> None:
    savers: list[BaseCheckpointSaver[str]] = [
        LangGraphCheckpointer(tmp_path / "agent.db"),
        InMemorySaver(),
    ]
    stories = []
    for saver in savers:
        graph = workflow(saver)
        for _ in range(2):
            graph.invoke({"items": [TEXT], "facts": ["said"]}, thread(), durability=durability)
            graph.invoke(Command(resume="yes"), thread(), durability=durability)
        past = list(graph.get_state_history(thread()))
        fork = graph.update_state(past[1].config, {"items": [{"forked": TEXT * 4}]})
        forked = graph.get_state(fork).values
        subgraphs = [graph.get_state(each.config, subgraphs=True).values for each in past]
        stories.append((told(graph, thread()), forked, subgraphs))
    assert stories[0] == stories[1]


async def test_a_chat_goes_on_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with LangGraphCheckpointer(path) as saver:
        await chat(saver).ainvoke(say("one"), thread())
    async with LangGraphCheckpointer(path) as saver:
        state = await chat(saver).ainvoke(say("two"), thread())
        assert [message.content[:3] for message in state["messages"]] == [
            "one",
            "1 S",
            "two",
            "3 S",
        ]


def test_sync_graphs_need_no_loop(tmp_path: Path) -> None:
    with LangGraphCheckpointer.from_conn_string(str(tmp_path / "agent.db")) as saver:
        saver.setup()  # as for LangGraph's SqliteSaver; does no harm
        graph = workflow(saver)
        graph.invoke({"items": []}, thread())
        assert graph.get_state(thread()).next == ("inner",)
        assert asyncio.run(graph.aget_state(thread())).next == ("inner",)
    assert graph.get_state(thread()).next == ("inner",)  # it opens again
    saver.close()


async def test_sync_nodes_of_an_async_graph_may_look(saver: LangGraphCheckpointer) -> None:
    await chat(saver).ainvoke(say("hello"), thread())
    found = await asyncio.to_thread(saver.get_tuple, thread())
    assert found is not None
    assert len(list(await asyncio.to_thread(lambda: list(saver.list(thread()))))) == 3


async def test_a_sync_call_on_the_loop_raises(saver: LangGraphCheckpointer) -> None:
    with pytest.raises(asyncio.InvalidStateError, match="aget_tuple"):
        saver.get_tuple(thread())
    with pytest.raises(asyncio.InvalidStateError, match="await"):
        saver.delete_thread("t1")


def test_one_saver_serves_loops_one_after_the_other_and_at_once(tmp_path: Path) -> None:
    saver = LangGraphCheckpointer(tmp_path / "agent.db")

    async def once() -> int:
        async with saver:
            state = await chat(saver).ainvoke(say("hello"), thread())
            return len(state["messages"])

    assert [asyncio.run(once()) for _ in range(3)] == [2, 4, 6]

    async def talk(name: str) -> int:
        for _ in range(5):
            state = await chat(saver).ainvoke(say("hello"), thread(name))
        return len(state["messages"])

    lengths: list[int] = []
    threads = [
        threading.Thread(target=lambda name=name: lengths.append(asyncio.run(talk(name))))
        for name in ("a", "b", "c")
    ]

    async def hold() -> None:  # one loop has the store, the others come to it
        async with saver:
            for each in threads:
                each.start()
            for each in threads:
                await asyncio.to_thread(each.join)

    asyncio.run(hold())
    assert lengths == [10, 10, 10]


async def test_listing_holds_nothing_up(saver: LangGraphCheckpointer) -> None:
    for _ in range(20):
        await chat(saver).ainvoke(say("hello"), thread())
    seen = []
    async with asyncio.timeout(30):
        async for found in saver.alist(thread()):
            assert await saver.aget_tuple(found.config)
            await saver.aput_writes(found.config, [("x", 1)], "task")
            seen.append(found.config["configurable"]["checkpoint_id"])
    assert len(seen) == 60
    assert seen == sorted(seen, reverse=True)


def test_strict_msgpack_keeps_the_store(tmp_path: Path) -> None:
    """LangGraph copies a saver there, by `copy.copy`."""
    program = """
import asyncio
import sys
from kvstore.integrations.langgraph import LangGraphCheckpointer
from tests.integrations.test_langgraph_checkpointer import chat, say, thread

async def main():
    async with LangGraphCheckpointer(sys.argv[1]) as saver:
        for _ in range(2):
            state = await chat(saver).ainvoke(say("hello"), thread())
        print(len(state["messages"]))

asyncio.run(main())
"""
    done = python(
        "-c",
        program,
        str(tmp_path / "agent.db"),
        env={"LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONPATH": str(ROOT)},
    )
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr


async def test_a_copy_shares_the_open_store(tmp_path: Path) -> None:
    async with LangGraphCheckpointer("memory://") as saver:
        await chat(saver).ainvoke(say("hello"), thread())
        twin = copy.copy(saver)
        twin.serde = JsonPlusSerializer(pickle_fallback=True)
        assert await twin.aget_tuple(thread())


# What lies in the file


async def file_of(path: Path, turns: int) -> float:
    """Return how many times its texts the file of a chat is."""
    texts = 0
    async with LangGraphCheckpointer(path) as saver:
        graph = chat(saver)
        for number in range(turns):
            state = await graph.ainvoke(say(f"{number} {TEXT}"), thread())
        texts = sum(len(message.content) for message in state["messages"])
    return path.stat().st_size / texts


@pytest.mark.slow
async def test_a_chat_grows_with_its_texts(tmp_path: Path) -> None:
    short, middle, long = [
        await file_of(tmp_path / f"{turns}.db", turns) for turns in (50, 100, 200)
    ]
    assert middle < 10
    assert long < 1.3 * short


async def test_what_is_removed_or_mended_in_the_middle_costs_what_is_new(tmp_path: Path) -> None:
    store = kvstore.open(tmp_path / "agent.db")
    async with store:
        saver = LangGraphCheckpointer(store)
        graph = chat(saver)
        for number in range(10):
            state = await graph.ainvoke(say(f"{number} {TEXT}"), thread())
        pieces = ("langgraph", "threads", "t1", "\0", "pieces")
        before = await store.count(pieces)
        gone, mended = state["messages"][3], state["messages"][6]
        await graph.aupdate_state(
            thread(),
            {"messages": [RemoveMessage(gone.id), AIMessage(TEXT * 9, id=mended.id)]},
        )
        assert await store.count(pieces) == before + 1
        after = (await graph.aget_state(thread())).values["messages"]
        assert [message.id for message in after] == [
            message.id for message in state["messages"] if message is not gone
        ]
        await saver.aprune(["t1"])
        assert await store.count(pieces) == len(after)


def test_branches_of_one_checkpoint_keep_to_themselves(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    first = [HumanMessage(TEXT * 9, id="first")]
    put(LangGraphCheckpointer(path), "1", {"messages": first})
    for id in ("2", "3", "4"):  # each by a saver that knows nothing of the others
        put(
            LangGraphCheckpointer(path),
            id,
            {"messages": [*first, AIMessage(TEXT, id=id)]},
            parent="1",
        )
    saver = LangGraphCheckpointer(path)
    for id in ("2", "3", "4"):
        found = saver.get_tuple(thread(checkpoint_id=id))
        assert found is not None
        assert [each.id for each in found.checkpoint["channel_values"]["messages"]] == ["first", id]


async def test_what_is_pruned_under_a_run_is_written_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with LangGraphCheckpointer(path) as saver, LangGraphCheckpointer(path) as other:
        graph = chat(saver)
        for number in range(4):
            await graph.ainvoke(say(f"{number} {TEXT}"), thread())
        past = [each async for each in graph.aget_state_history(thread())]
        await other.aprune(["t1"])
        assert len([each async for each in saver.alist(thread())]) == 1
        old = past[6].config  # the run goes on from what is gone now
        values = past[6].values["messages"]
        versions: Any = {"messages": saver.get_next_version(None, None)}
        checkpoint: Any = {
            "v": 4,
            "id": "9",
            "ts": "",
            "versions_seen": {},
            "updated_channels": None,
            "channel_values": {"messages": [*values, AIMessage(TEXT)]},
            "channel_versions": versions,
        }
        await saver.aput(old, checkpoint, {}, versions)
        found = await other.aget_tuple(thread(checkpoint_id="9"))
        assert found is not None
        assert len(found.checkpoint["channel_values"]["messages"]) == len(values) + 1


async def test_a_store_beside_sees_nothing_of_it(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.db")
    async with (
        LangGraphStore.from_conn_string(path) as store,
        LangGraphCheckpointer.from_conn_string(path) as saver,
    ):
        await store.aput(("users", "alice"), "k", {"n": 1})
        for number in range(50):
            await chat(saver).ainvoke(say("hello"), thread(f"t{number}"))
        await store.aput(("langgraphs",), "k", {"n": 2})
        found = await store.asearch(())
        assert [item.namespace for item in found] == [("langgraphs",), ("users", "alice")]
        assert await store.asearch((), limit=1, offset=1) == found[1:]
        assert await store.asearch((), query="hello") == found
        assert await store.alist_namespaces() == [("langgraphs",), ("users", "alice")]
        assert await store.alist_namespaces(max_depth=1) == [("langgraphs",), ("users",)]
        assert await store.alist_namespaces(suffix=("pieces",)) == []


async def test_langgraphs_own_saver_may_have_tables_there(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite.aio")
    path = tmp_path / "agent.db"
    async with LangGraphCheckpointer(path) as saver:
        await chat(saver).ainvoke(say("hello"), thread())
    async with sqlite.AsyncSqliteSaver.from_conn_string(str(path)) as theirs:
        await chat(theirs).ainvoke(say("hello"), thread())
    async with LangGraphCheckpointer(path) as saver:
        state = await chat(saver).ainvoke(say("hello"), thread())
        assert len(state["messages"]) == 4
    async with kvstore.open(path) as store:
        assert (await store.check()).ok


# Bad input


@pytest.mark.parametrize("bad", [b"\x01x", b"\x02", 7, {}, {"data": b"\0\x90"}])
@pytest.mark.parametrize("kind", ["pieces", "writes", "checkpoints"])
async def test_damage_is_named(tmp_path: Path, kind: str, bad: Any) -> None:
    path = tmp_path / "agent.db"
    with LangGraphCheckpointer(path) as saver:
        messages = [HumanMessage(TEXT * 9), AIMessage(TEXT * 9)]
        await asyncio.to_thread(put, saver, "1", {"messages": messages})
        config = thread(checkpoint_ns="", checkpoint_id="1")
        await saver.aput_writes(config, [("x", 1)], "task")
    place = ("langgraph", "threads", "t1", "\0")
    namespace = place if kind == "checkpoints" else (*place, kind)
    async with kvstore.open(path) as store:
        (key, *_) = await store.keys(namespace)
        await store.put(namespace, key, bad)
        async with LangGraphCheckpointer(store) as saver:
            with pytest.raises(kvstore.StoreCorruptError, match=kind[:-1]) as raised:
                await saver.aget_tuple(thread())
            assert "'t1'" in str(raised.value)
            assert key in str(raised.value)


async def test_a_missing_piece_is_named(tmp_path: Path) -> None:
    pieces = ("langgraph", "threads", "t1", "\0", "pieces")
    async with kvstore.open(tmp_path / "agent.db") as store:
        saver = LangGraphCheckpointer(store)
        await chat(saver).ainvoke(say(TEXT), thread())
        (key, *_) = await store.keys(pieces)
        await store.delete(pieces, key)
        saver = LangGraphCheckpointer(store)  # the one that wrote it remembers it
        with pytest.raises(kvstore.StoreCorruptError, match=f"{key}.*'messages'.* is missing"):
            await saver.aget_tuple(thread())


def test_what_the_serializer_does_not_take_is_named(tmp_path: Path) -> None:
    with LangGraphCheckpointer(tmp_path / "agent.db") as saver:
        with pytest.raises(kvstore.ValueEncodingError, match=r"'t1'.* channel 'odd'"):
            put(saver, "1", {"odd": object()})
        with pytest.raises(kvstore.ValueEncodingError, match=r"'t1'.* channel 'odd'"):
            put(saver, "1", {"odd": [TEXT * 9, object()]})
        with pytest.raises(kvstore.ValueEncodingError, match=r"'t1'.* channel 'odd'"):
            saver.put_writes(thread(checkpoint_id="1"), [("odd", object())], "task")
        assert saver.get_tuple(thread()) is None
        assert list(saver.list(None)) == []


def test_what_is_not_there(tmp_path: Path) -> None:
    with LangGraphCheckpointer(tmp_path / "agent.db") as saver:
        assert saver.get_tuple(thread("nobody")) is None
        assert saver.get_tuple(thread(checkpoint_id="none")) is None
        saver.delete_thread("nobody")
        saver.copy_thread("nobody", "t2")
        saver.prune(["nobody"])
        saver.delete_for_runs(["none"])
        put(saver, "2", {"messages": [TEXT * 9]}, parent="unknown")
        found = saver.get_tuple(thread())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"messages": [TEXT * 9]}
        assert found.parent_config == thread(checkpoint_ns="", checkpoint_id="unknown")


def test_a_bad_call_is_told(tmp_path: Path) -> None:
    with LangGraphCheckpointer(tmp_path / "agent.db") as saver:
        with pytest.raises(kvstore.InvalidArgumentError, match="thread_id"):
            saver.get_tuple({"configurable": {}})
        with pytest.raises(kvstore.InvalidArgumentError, match="names none"):
            saver.put_writes(thread(), [("x", 1)], "task")
        with pytest.raises(kvstore.InvalidArgumentError, match="keep_latest"):
            saver.prune(["t1"], strategy="keep_all")
        nothing: Any
        for nothing in ({}, None):
            with pytest.raises(kvstore.InvalidArgumentError, match="thread_id"):
                saver.put_writes(nothing, [("x", 1)], "task")
        for call in (saver.get_tuple, lambda config: saver.put_writes(config, [], "task")):
            with pytest.raises(kvstore.InvalidArgumentError, match="is a text, not 5"):
                call(thread(checkpoint_id=5))
        with pytest.raises(kvstore.InvalidArgumentError, match="has an id"):
            saver.put(thread(), {"v": 4}, {}, {})  # type: ignore[typeddict-item]
        with pytest.raises(kvstore.InvalidArgumentError, match="limit"):
            next(saver.list(thread(), limit="5"))  # type: ignore[arg-type]
        assert list(saver.list(thread(), before={})) == []
    with pytest.raises(kvstore.InvalidArgumentError):
        LangGraphCheckpointer("ftp://nowhere")


def test_a_threads_id_is_taken_as_text(tmp_path: Path) -> None:
    ids: Iterator[Any] = iter(["", "\0", "\0\0", "a\tb\n", "ü*[?]/%", 7])
    with LangGraphCheckpointer(tmp_path / "agent.db") as saver:
        for number, id in enumerate(ids):
            for ns in ("", "\0", "a:1|b"):
                config = thread(id, checkpoint_ns=ns)
                saver.put_writes(
                    {"configurable": {**config["configurable"], "checkpoint_id": "1"}},
                    [("x", number)],
                    "task",
                )
                checkpoint: Any = {
                    "v": 4,
                    "id": "1",
                    "ts": "",
                    "channel_values": {},
                    "channel_versions": {},
                    "versions_seen": {},
                }
                saver.put(config, checkpoint, {"step": number}, {})
        assert len(list(saver.list(None))) == 18
        found = saver.get_tuple(thread(7, checkpoint_ns="\0"))
        assert found is not None
        assert found.pending_writes == [("task", "x", 5)]
        assert [each.metadata["step"] for each in saver.list(thread(""))] == [0, 0, 0]
        saver.delete_thread("")
        assert len(list(saver.list(None))) == 15


async def test_the_newest_are_listed_over_all_namespaces() -> None:
    async with kvstore.open("memory://") as store:
        saver = LangGraphCheckpointer(store)
        for n in range(30):
            place = thread("t", checkpoint_ns="" if n % 3 else "sub")
            await saver.aput(place, {**empty_checkpoint(), "id": f"{n:03}"}, {"step": n}, {})
        for config in (None, thread("t"), thread("t", checkpoint_ns="sub")):
            for before in (None, "020", "000"):
                last = None if before is None else thread("t", checkpoint_id=before)
                whole = [each.checkpoint["id"] async for each in saver.alist(config, before=last)]
                assert whole == sorted(whole, reverse=True)
                assert all(before is None or id < before for id in whole)
                for limit in (1, 7, 100):
                    some = saver.alist(config, before=last, limit=limit)
                    assert [each.checkpoint["id"] async for each in some] == whole[:limit]
        odd = saver.alist(thread("t"), filter={"step": 3}, limit=1)
        assert [each.checkpoint["id"] async for each in odd] == ["003"]
        latest = await saver.aget_tuple(thread("t"))
        assert latest is not None
        assert latest.checkpoint["id"] == "029"


ODD: list[Any] = ["loop", "", 0, 1, True, False, 1.0, 2.5, None, 2**53 + 1, [1], {"a": 1}]


@pytest.mark.parametrize("target", ["agent.db", "memory://", POSTGRES])
async def test_a_filter_compares_as_python_does(
    tmp_path: Path, target: str, request: pytest.FixtureRequest
) -> None:
    if target == "postgresql://":
        target = request.getfixturevalue("postgres_url")
    async with kvstore.open(target if ":" in target else tmp_path / target) as store:
        saver, model = LangGraphCheckpointer(store), InMemorySaver()
        for n, value in enumerate([*ODD, "\ud800"]):
            metadata: Any = {"step": n, "odd": value, "a.b": value, "": value}
            for each in (saver, model):
                checkpoint: Any = {**empty_checkpoint(), "id": f"{n:03}"}
                await each.aput(thread(checkpoint_ns=""), checkpoint, metadata, {})
        for key in ("odd", "a.b", "", "absent"):
            for value in [*ODD, 2**70, 10**400, "\ud800", float("inf"), "x"]:
                asked = [
                    [found.checkpoint["id"] async for found in each.alist(thread(), filter=wanted)]
                    for each in (saver, model)
                    for wanted in [{key: value}]
                ]
                if value is not None:  # which the model takes for no filter
                    assert asked[0] == asked[1], (key, value)


async def test_a_filter_is_the_stores_to_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    known = Checkpoints.saved

    def counting(self: Checkpoints, item: kvstore.Item) -> Any:
        read.append(item.key)
        return known(self, item)

    async with kvstore.open(tmp_path / "agent.db") as store:
        saver = LangGraphCheckpointer(store)
        for n in range(300):
            metadata: Any = {"step": n, "run_id": f"run{n // 3}"}
            checkpoint: Any = {**empty_checkpoint(), "id": f"{n:03}"}
            await saver.aput(thread(checkpoint_ns=""), checkpoint, metadata, {})
        monkeypatch.setattr(Checkpoints, "saved", counting)
        found = [each async for each in saver.alist(thread(), filter={"run_id": "run7"})]
        assert [each.checkpoint["id"] for each in found] == read == ["023", "022", "021"]
        read.clear()
        before = thread(checkpoint_id="200")
        pages = saver.alist(thread(), before=before)
        assert [(await anext(pages)).checkpoint["id"] for _ in range(3)] == ["199", "198", "197"]
        assert len(read) == 50


async def test_what_is_deleted_while_it_is_read_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.db"
    async with LangGraphCheckpointer(path) as other:
        await chat(other).ainvoke(say(TEXT), thread())
        await chat(other).ainvoke(say(TEXT), thread("t2"))
        async with kvstore.open(path) as store, LangGraphCheckpointer(store) as saver:
            read = store.get_many

            async def late(*args: Any) -> Any:
                await other.adelete_thread("t1")
                return await read(*args)

            monkeypatch.setattr(store, "get_many", late)
            there = [each.config["configurable"] async for each in saver.alist(None)]
            whole = [each async for each in other.alist(thread("t2"))]
            assert sum(each["thread_id"] == "t2" for each in there) == len(whole)
            assert await saver.aget_tuple(thread()) is None
            await chat(other).ainvoke(say(TEXT), thread())
            assert await saver.aget_tuple(thread()) is None
