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
from kvstore.integrations.key_value import KVStoreBackend
from kvstore.integrations.langgraph import LangGraphStore

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


@pytest.mark.parametrize("kind", [LangGraphStore, KVStoreBackend])
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


def test_langgraph_used_first_by_several_loops(tmp_path: Path) -> None:
    store = LangGraphStore(kvstore.open(tmp_path / "a.db"))

    async def use() -> None:
        await store.aput(("a",), "k", {})
        with pytest.raises(kvstore.WrongLoopError, match="sync facade"):
            await asyncio.to_thread(asyncio.run, store.aget(("a",), "k"))
        await store.aclose()

    asyncio.run(use())
