"""Copies, pickles and forks of stores and adapters: made anew, and not open."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import AsyncKeyValueStore, FlowScope, InMemoryStore, KeyValueStore, SQLiteStore
from kvstore.embeddings import HashingEmbeddings

NS = ("a",)
COPIES = [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
ways = pytest.mark.parametrize("way", COPIES, ids=["deepcopy", "pickle"])


def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


@ways
async def test_a_copy_of_a_store_is_unopened_and_has_its_options(
    way: Callable[[Any], Any], tmp_path: Path
) -> None:
    index = kvstore.IndexConfig(HashingEmbeddings(), fields=("text",))
    original = SQLiteStore(tmp_path / "a.db", index=index, default_ttl=60.0, durability="full")
    async with original as store:
        await store.put(NS, "k", {"text": "hello"})
        twin = way(store)
        with pytest.raises(kvstore.StoreClosedError):
            await twin.get(NS, "k")
        async with twin:
            found = await twin.search(NS, "hello", mode="semantic")
            assert [item.key for item in found] == ["k"]
            assert (await twin.put(NS, "other", 1)).expires_at is not None
        assert await store.count(NS) == 2
    assert type(twin) is SQLiteStore
    assert type(copy.copy(original)) is SQLiteStore


@ways
def test_a_copy_of_a_facade_opens_itself(way: Callable[[Any], Any], tmp_path: Path) -> None:
    with KeyValueStore(tmp_path / "a.db", scope=FlowScope(session="s")) as kv:
        kv.insert("$session.k", 1)
        twin = way(kv)
        assert twin.scope == kv.scope
        assert twin.retrieve("$session.k") == 1
    assert twin.increment("$session.k") == 2
    twin.close()
    with pytest.raises(kvstore.StoreClosedError):
        twin.retrieve("$session.k")


def test_a_plain_copy_of_a_facade_shares_the_open_store(tmp_path: Path) -> None:
    kv = KeyValueStore(tmp_path / "a.db")
    twin = copy.copy(kv)
    kv.close()
    with pytest.raises(kvstore.StoreClosedError):
        twin.retrieve("k")


@ways
async def test_a_copy_of_an_awaited_facade(way: Callable[[Any], Any], tmp_path: Path) -> None:
    async with AsyncKeyValueStore(tmp_path / "a.db", scope=FlowScope(flow="f")) as kv:
        await kv.insert("$flow.k", 1)
        async with copy.copy(kv) as shared:
            assert await shared.retrieve("$flow.k") == 1
        async with way(kv) as twin:
            assert await twin.retrieve("$flow.k") == 1
        assert await kv.retrieve("$flow.k") == 1


@ways
@pytest.mark.parametrize("make", [InMemoryStore, lambda: SQLiteStore(":memory:")])
def test_a_store_in_memory_has_no_copy(
    way: Callable[[Any], Any], make: Callable[[], kvstore.Store]
) -> None:
    for held in (make(), AsyncKeyValueStore(make()), KeyValueStore(make())):
        with pytest.raises(kvstore.InvalidArgumentError, match="in one process alone"):
            way(held)


def test_what_does_not_pickle_is_named() -> None:
    store = SQLiteStore("a.db", clock=lambda: 0.0)
    with pytest.raises(kvstore.InvalidArgumentError, match="its option 'clock'"):
        pickle.dumps(store)
    assert copy.deepcopy(store).settings.clock is store.settings.clock
    local = SQLiteStore("a.db", index=kvstore.IndexConfig(lambda texts: [[1.0] for _ in texts]))
    with pytest.raises(kvstore.InvalidArgumentError, match=r"its option 'index', of type Index"):
        pickle.dumps(KeyValueStore._unopened(local, FlowScope()))
    pickle.dumps(SQLiteStore("a.db", index=kvstore.IndexConfig(embed)))


def count(kv: Any, times: int) -> None:
    for _ in range(times):
        kv.increment("n")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_facade_goes_to_other_processes(method: str, is_indexed: bool, tmp_path: Path) -> None:
    index = kvstore.IndexConfig(HashingEmbeddings()) if is_indexed else None
    kv = KeyValueStore(SQLiteStore(tmp_path / "a.db", index=index))
    kv.insert("n", 0)
    context: Any = multiprocessing.get_context(method)
    children = [context.Process(target=count, args=(kv, 20)) for _ in range(3)]
    for child in children:
        child.start()
    count(kv, 20)
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert kv.retrieve("n") == 80
    kv.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_an_open_store_is_unopened_in_a_forked_child(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "a.db") as store, InMemoryStore() as memory:
        await store.put(NS, "k", 1)
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(store, memory))
        assert os.waitpid(pid, 0)[1] == 0
        assert (await store.get(NS, "child")) is not None
        await memory.put(NS, "k", 1)


def _in_child(store: kvstore.Store, memory: kvstore.Store) -> int:
    """Use what was inherited; the loop of the parent runs on in name only."""
    import asyncio
    import threading

    failed = []

    async def use() -> None:
        with pytest.raises(kvstore.StoreClosedError):
            await store.get(NS, "k")
        async with store:
            assert await store.get(NS, "k") is not None
            await store.put(NS, "child", 1)
        with pytest.raises(kvstore.StoreClosedError, match="forked"):
            await memory.open()

    def run() -> None:
        try:
            asyncio.run(use())
        except BaseException as exc:  # noqa: BLE001 - told to the parent
            failed.append(exc)
            print(repr(exc))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return len(failed)
