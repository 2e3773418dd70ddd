"""Adapters are copied and pickled as what made them; `copy.copy` shares the open store."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("langgraph.graph")

from langgraph.checkpoint.base import empty_checkpoint

from kvstore.integrations.key_value import KVStoreBackend
from kvstore.integrations.langgraph import LangGraphCheckpointer, LangGraphStore

THREAD: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}


def checkpoint(id: str) -> Any:
    """Return what `put` takes."""
    return THREAD, {**empty_checkpoint(), "id": id}, {"step": 1}, {}


ways = pytest.mark.parametrize(
    "way",
    [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
    ids=["deepcopy", "pickle"],
)


@ways
async def test_langgraph(way: Callable[[Any], Any], tmp_path: Path) -> None:
    ttl: Any = {"default_ttl": 5.0}
    async with LangGraphStore(kvstore.open(tmp_path / "a.db"), ttl=ttl) as store:
        await store.aput(("a",), "k", {"n": 1})
        shared = copy.copy(store)
        assert (await shared.aget(("a",), "k")) is not None
        async with way(store) as twin:
            assert twin.ttl_config == store.ttl_config
            assert (await twin.aget(("a",), "k")) is not None
        assert (await store.aget(("a",), "k")) is not None


@ways
async def test_py_key_value(way: Callable[[Any], Any], tmp_path: Path) -> None:
    async with KVStoreBackend(tmp_path / "a.db", default_collection="c") as store:
        await store.put("k", {"n": 1})
        assert await copy.copy(store).get("k") == {"n": 1}
        async with way(store) as twin:
            assert await twin.get("k") == {"n": 1}
        assert await store.get("k") == {"n": 1}


@ways
async def test_checkpointer(way: Callable[[Any], Any], tmp_path: Path) -> None:
    async with LangGraphCheckpointer(tmp_path / "a.db") as saver:
        await saver.aput(*checkpoint("1"))
        assert await copy.copy(saver).aget_tuple(THREAD) is not None
        async with way(saver) as twin:
            assert await twin.aget_tuple(THREAD) is not None
            await twin.aput(*checkpoint("2"))
        assert len([each async for each in saver.alist(THREAD)]) == 2


@ways
def test_langchain(way: Callable[[Any], Any], tmp_path: Path) -> None:
    from kvstore.integrations.langchain import KVByteStore

    store = KVByteStore(tmp_path / "a.db", namespace=("mine",))
    store.mset([("k", b"v")])
    twin = way(store)
    assert twin.mget(["k"]) == [b"v"]
    for each in (store, twin):
        each.close()


@pytest.mark.parametrize("kind", [LangGraphStore, KVStoreBackend, LangGraphCheckpointer])
def test_one_in_memory_has_no_copy(kind: Any) -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="in one process alone"):
        pickle.dumps(kind(kvstore.open("memory://")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_langgraph_after_a_fork(tmp_path: Path) -> None:
    """What a server that loads its application before it forks does with sync nodes."""
    store = LangGraphStore(kvstore.open(tmp_path / "a.db"))
    store.put(("a",), "parent", {})
    pid = os.fork()
    if pid == 0:
        seen = store.get(("a",), "parent")
        store.put(("a",), "child", {})
        store.close()
        os._exit(seen is None)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.get(("a",), "child") is not None
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("is_sync", [True, False])
def test_checkpointer_after_a_fork(is_sync: bool, tmp_path: Path) -> None:
    """A worker goes on where its parent was, whether that used a loop or none."""
    saver = LangGraphCheckpointer(tmp_path / "a.db")
    loop = asyncio.new_event_loop()
    if is_sync:
        saver.put(*checkpoint("1"))
    else:
        loop.run_until_complete(saver.aput(*checkpoint("1")))
    pid = os.fork()
    if pid == 0:
        try:
            saver.put(*checkpoint("2"))
            saver.close()
            asyncio.run(_see(saver, 2))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    if is_sync:
        assert len([*saver.list(THREAD)]) == 2
        saver.close()
    else:
        loop.run_until_complete(_see(saver, 2))
    loop.close()


async def _see(saver: LangGraphCheckpointer, count: int) -> None:
    assert len([each async for each in saver.alist(THREAD)]) == count
    await saver.aclose()


def test_langgraph_used_first_by_several_loops(tmp_path: Path) -> None:
    store = LangGraphStore(kvstore.open(tmp_path / "a.db"))

    async def use() -> None:
        await store.aput(("a",), "k", {})
        with pytest.raises(kvstore.WrongLoopError, match="sync facade"):
            await asyncio.to_thread(asyncio.run, store.aget(("a",), "k"))
        await store.aclose()

    asyncio.run(use())
