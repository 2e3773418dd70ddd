"""`LangGraphStore` means what LangGraph's own stores mean, over every backend."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import UserDict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import kvstore

pytest.importorskip("langgraph.store.base")

from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)

from kvstore.integrations.langgraph import LangGraphStore, index_config_of

ROOT = Path(kvstore.__file__).parents[1]
USERS = ("users", "alice")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, minutes: float) -> None:
        self.now += minutes * 60


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., kvstore.Store]


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Make:
    """Makes a store that is not open; always on the same file, or in the same schema."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""

    def make(**options: Any) -> kvstore.Store:
        options = {"clock": clock, "sweep_interval": None, **options}
        if request.param == "memory":
            return kvstore.InMemoryStore(**options)
        return kvstore.open(url or tmp_path / "agent.db", **options)

    return make


@pytest.fixture
async def store(make: Make) -> AsyncIterator[LangGraphStore]:
    async with make() as opened:
        yield LangGraphStore(opened)


# Items


async def test_it_is_a_base_store_with_lifetimes(store: LangGraphStore) -> None:
    assert isinstance(store, BaseStore)
    assert store.supports_ttl


async def test_what_was_put_is_got(store: LangGraphStore, clock: Clock) -> None:
    value = {"name": "Ada", "tags": ["a", 1, None, 2.5, {"deep": True}], "größe": "☃"}
    assert await store.aput(USERS, "profile", value) is None  # type: ignore[func-returns-value]
    item = await store.aget(USERS, "profile")
    assert type(item) is Item
    assert item == Item(
        value=value,
        key="profile",
        namespace=USERS,
        created_at=datetime.fromtimestamp(clock.now, UTC),
        updated_at=datetime.fromtimestamp(clock.now, UTC),
    )
    assert await store.aget(USERS, "other") is None
    assert await store.aget(("users",), "profile") is None


async def test_an_update_keeps_when_it_was_created(store: LangGraphStore, clock: Clock) -> None:
    await store.aput(USERS, "k", {"n": 1})
    before = await store.aget(USERS, "k")
    clock.advance(minutes=1)
    await store.aput(USERS, "k", {"n": 2})
    after = await store.aget(USERS, "k")
    assert before is not None
    assert after is not None
    assert after.created_at == before.created_at
    assert after.updated_at > before.updated_at


async def test_delete_is_idempotent(store: LangGraphStore) -> None:
    await store.aput(USERS, "k", {"n": 1})
    await store.adelete(USERS, "k")
    await store.adelete(USERS, "k")
    assert await store.aget(USERS, "k") is None


@pytest.mark.parametrize("key", [5, "", "a/b", "*", 1.5])
async def test_keys_are_made_strings(store: LangGraphStore, key: Any) -> None:
    await store.aput(USERS, key, {"n": 1})
    item = await store.aget(USERS, str(key))
    assert item is not None
    assert item.key == str(key)
    assert await store.aget(USERS, key) is not None
    await store.adelete(USERS, key)
    assert await store.aget(USERS, key) is None


@pytest.mark.parametrize("value", [UserDict({"a": 1}), MappingProxyType({"a": 1})])
async def test_any_mapping_is_a_value(store: LangGraphStore, value: Any) -> None:
    await store.aput(USERS, "k", value)
    item = await store.aget(USERS, "k")
    assert item is not None
    assert item.value == {"a": 1}


@pytest.mark.parametrize(
    "value", ["text", 5, [1], {"a": {1, 2}}, {1: 2}, {"a": 2**70}, {"a": float("nan")}]
)
async def test_what_is_no_value_is_refused(store: LangGraphStore, value: Any) -> None:
    await store.aput(USERS, "k", {"before": 1})
    with pytest.raises(TypeError):
        await store.aput(USERS, "k", value)
    with pytest.raises(TypeError):
        await store.abatch([PutOp(USERS, "other", {"a": 1}), PutOp(USERS, "k", value)])
    assert await store.aget(USERS, "other") is None
    item = await store.aget(USERS, "k")
    assert item is not None
    assert item.value == {"before": 1}


async def test_without_an_index_its_argument_is_ignored(store: LangGraphStore) -> None:
    await store.aput(USERS, "k1", {"text": "tea"}, index=False)
    await store.aput(USERS, "k2", {"text": "tea"}, index=["text", "no path ["])
    found = await store.asearch(USERS, query="coffee")
    assert [(item.key, item.score) for item in found] == [("k2", None), ("k1", None)]


# Namespaces

BAD = [("foo.bar",), ("foo\x00",), ("foo", ""), ("foo", 1), (["foo"],), "foo", 5]


@pytest.mark.parametrize("namespace", BAD)
async def test_a_bad_namespace_is_refused_everywhere(store: LangGraphStore, namespace: Any) -> None:
    await store.aput(("foo", "bar"), "k", {"kept": True})
    for call in (
        lambda: store.aget(namespace, "k"),
        lambda: store.aput(namespace, "k", {}),
        lambda: store.adelete(namespace, "k"),
        lambda: store.asearch(namespace),
        lambda: store.alist_namespaces(prefix=namespace),
        lambda: store.alist_namespaces(suffix=namespace),
        lambda: store.abatch([GetOp(namespace, "k")]),
        lambda: store.abatch([PutOp(("valid",), "k", {}), PutOp(namespace, "k", {})]),
        lambda: store.abatch([PutOp(namespace, "k", None)]),
        lambda: store.abatch([SearchOp(namespace)]),
        lambda: store.abatch([ListNamespacesOp((MatchCondition("prefix", namespace),))]),
    ):
        with pytest.raises(InvalidNamespaceError) as caught:
            await call()
        assert isinstance(caught.value, kvstore.InvalidNamespaceError)
    assert [item.namespace for item in await store.asearch(())] == [("foo", "bar")]


@pytest.mark.parametrize("namespace", [(), ("langgraph",), ("langgraph", "x")])
async def test_some_namespaces_are_not_for_puts(
    store: LangGraphStore, namespace: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidNamespaceError):
        await store.aput(namespace, "k", {})
    with pytest.raises(InvalidNamespaceError):
        await asyncio.to_thread(store.put, namespace, "k", {})
    assert await store.aget(namespace, "k") is None
    await store.aput(("x", "langgraph"), "k", {})
    await store.abatch([PutOp(namespace, "k", {"batched": True})])
    assert await store.aget(namespace, "k") is not None


async def test_lists_are_namespaces_as_well(store: LangGraphStore) -> None:
    await store.aput(["users", "alice"], "k", {"n": 1})
    item = await store.aget(["users", "alice"], "k")
    assert item is not None
    assert item.namespace == USERS
    assert len(await store.asearch(["users"])) == 1
    assert await store.abatch([GetOp(["users"], "k"), SearchOp(["users"])]) == [  # type: ignore[arg-type]
        None,
        [SearchItem(USERS, "k", {"n": 1}, item.created_at, item.updated_at)],
    ]


# Search


async def fill(store: LangGraphStore, clock: Clock) -> None:
    for number, namespace in enumerate(
        [("a",), ("a", "b"), ("ab",), ("a", "b", "c"), ("A",), ("a_",), ("ax",), ("*",), ("a\n",)]
    ):
        await store.aput(namespace, f"k{number}", {"n": number})
        clock.advance(minutes=1)


async def test_a_prefix_is_whole_labels(store: LangGraphStore, clock: Clock) -> None:
    await fill(store, clock)

    async def found(*prefix: str) -> set[tuple[str, ...]]:
        return {item.namespace for item in await store.asearch(prefix, limit=100)}

    assert await found("a") == {("a",), ("a", "b"), ("a", "b", "c")}
    assert await found("a", "b") == {("a", "b"), ("a", "b", "c")}
    assert await found("a_") == {("a_",)}
    assert await found("*") == {("*",)}
    assert await found("A") == {("A",)}
    assert await found("b") == set()
    assert len(await found()) == 9


async def test_the_latest_come_first_page_by_page(store: LangGraphStore, clock: Clock) -> None:
    await fill(store, clock)
    whole = await store.asearch((), limit=100)
    assert [item.value["n"] for item in whole] == list(range(8, -1, -1))
    assert all(type(item) is SearchItem and item.score is None for item in whole)
    paged = [
        item for start in range(0, 10, 4) for item in await store.asearch((), limit=4, offset=start)
    ]
    assert paged == whole
    assert await store.asearch((), limit=0) == []
    assert len(await store.asearch(())) == 9
    with pytest.raises(ValueError, match="limit"):
        await store.asearch((), limit=-1)
    with pytest.raises(ValueError, match="offset"):
        await store.asearch((), offset=-1)


async def test_filters(store: LangGraphStore) -> None:
    await store.aput(USERS, "1", {"status": "open", "score": 4.5, "user": {"name": "Ada"}})
    await store.aput(USERS, "2", {"status": "done", "score": 3, "user.name": "Ada"})
    await store.aput(USERS, "3", {"status": "open", "score": "4", "tags": ["a", "b"]})

    async def found(**filter: Any) -> list[str]:
        return sorted(item.key for item in await store.asearch((), filter=filter))

    assert await found(status="open") == ["1", "3"]
    assert await found(status="open", score={"$gt": 3}) == ["1"]
    assert await found(score={"$gte": 3, "$lt": 4}) == ["2"]
    assert await found(status={"$ne": "open"}) == ["2"]
    assert await found(tags=["a", "b"]) == ["3"]
    assert await found(tags="a") == []
    assert await found(tags=None) == ["1", "2"]
    assert await found(**{"user.name": "Ada"}) == ["1", "2"]
    assert await found(user={"name": "Ada"}) == ["1"]
    assert await found() == ["1", "2", "3"]
    for bad in ({"score": {"$regex": "x"}}, {"a') OR 1": 1}, {"$or": [{"status": "open"}]}):
        with pytest.raises(ValueError, match=r"Unsupported operator|Invalid filter key"):
            await found(**bad)


# Namespaces listed


async def test_listing_namespaces(store: LangGraphStore, clock: Clock) -> None:
    for namespace in [
        ("a", "b", "c"),
        ("a", "b", "d", "e"),
        ("a", "b", "d", "i"),
        ("a", "b", "f"),
        ("a", "c", "f"),
        ("b", "a", "f"),
        ("a-x",),
    ]:
        await store.aput(namespace, "k", {})
    listed = store.alist_namespaces
    assert await listed(prefix=("a", "b"), max_depth=3) == [
        ("a", "b", "c"),
        ("a", "b", "d"),
        ("a", "b", "f"),
    ]
    assert await listed(suffix=("f",)) == [("a", "b", "f"), ("a", "c", "f"), ("b", "a", "f")]
    assert await listed(prefix=("a", "*"), suffix=["*", "f"]) == [("a", "b", "f"), ("a", "c", "f")]
    assert await listed(prefix=("a", "b"), limit=2, offset=1) == [
        ("a", "b", "d", "e"),
        ("a", "b", "d", "i"),
    ]
    assert await listed(max_depth=1) == [("a",), ("a-x",), ("b",)]
    assert len(await listed()) == 7
    assert await listed(prefix=(), suffix=()) == await listed()
    two: Any = (MatchCondition("prefix", ("a", "*")), MatchCondition("prefix", ("*", "b", "c")))
    assert await store.abatch([ListNamespacesOp(two)]) == [[("a", "b", "c")]]
    none: Any = (MatchCondition("suffix", ("f",)), MatchCondition("suffix", ("c",)))
    assert await store.abatch([ListNamespacesOp(none)]) == [[]]
    with pytest.raises(ValueError, match="max_depth"):
        await listed(max_depth=0)
    await store.adelete(("a-x",), "k")
    assert ("a-x",) not in await listed()


# Batches


async def test_a_batch_answers_in_order_and_reads_before_it_writes(store: LangGraphStore) -> None:
    await store.aput(USERS, "k", {"n": 1})
    put, got, found, namespaces, gone = await store.abatch(
        [
            PutOp(USERS, "k", {"n": 2}),
            GetOp(USERS, "k"),
            SearchOp(("users",), filter={"n": {"$lt": 5}}),
            ListNamespacesOp(),
            PutOp(("other",), "k", {}),
        ]
    )
    assert put is gone is None
    assert isinstance(got, Item)
    assert got.value == {"n": 1}
    assert [item.value for item in found] == [{"n": 1}]  # type: ignore[union-attr]
    assert namespaces == [USERS]
    assert [item.value for item in await store.asearch(USERS)] == [{"n": 2}]
    assert await store.abatch([]) == []


async def test_the_last_put_of_a_batch_wins(store: LangGraphStore) -> None:
    await store.abatch(
        [PutOp(USERS, "a", {"n": 1}), PutOp(USERS, "b", {"n": 1}), PutOp(USERS, "a", {"n": 2})]
    )
    await store.abatch([PutOp(USERS, "b", {"n": 2}), PutOp(USERS, "b", None)])
    assert [item.value for item in await store.asearch(())] == [{"n": 2}]


async def test_a_call_that_fails_fails_alone(store: LangGraphStore) -> None:
    outcomes = await asyncio.gather(
        *(store.aput(USERS, f"k{number}", {"n": number}) for number in range(50)),
        store.aput(USERS, "bad", {"n": {1, 2}}),
        store.aget(("foo.bar",), "k"),
        *(store.aget(USERS, f"k{number}") for number in range(50)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 2
    assert len(await store.asearch((), limit=100)) == 50


async def test_a_cancelled_call_leaves_the_others_be(store: LangGraphStore) -> None:
    tasks = [asyncio.create_task(store.aput(USERS, f"k{number}", {})) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1::2] == [None] * 10
    assert {f"k{number}" for number in range(1, 20, 2)} <= {
        item.key for item in await store.asearch((), limit=100)
    }


async def test_many_puts_at_once(store: LangGraphStore) -> None:
    await store.abatch([PutOp(("many",), str(number), {}) for number in range(10_000)])
    assert len(await store.asearch(("many",), limit=20_000)) == 10_000


# Lifetimes


async def test_a_lifetime_is_in_minutes_and_ends_at_its_instant(
    store: LangGraphStore, clock: Clock
) -> None:
    await store.aput(USERS, "brief", {}, ttl=0.5)
    await store.aput(USERS, "kept", {})
    clock.advance(minutes=0.49)
    assert await store.aget(USERS, "brief") is not None
    clock.advance(minutes=0.01)
    assert await store.aget(USERS, "brief") is None
    assert [item.key for item in await store.asearch(())] == ["kept"]
    assert await store.sweep_ttl() == 1
    assert await store.sweep_ttl() == 0


async def test_a_put_without_a_lifetime_clears_the_old_one(
    store: LangGraphStore, clock: Clock
) -> None:
    await store.aput(USERS, "k", {}, ttl=1)
    await store.aput(USERS, "k", {})
    clock.advance(minutes=5)
    assert await store.aget(USERS, "k") is not None


@pytest.mark.parametrize("where", ["ttl settings", "store"])
async def test_none_is_for_ever_whatever_the_default(make: Make, clock: Clock, where: str) -> None:
    of_store = {"default_ttl": 60.0} if where == "store" else {}
    ttl: Any = None if where == "store" else {"default_ttl": 1}
    async with make(**of_store) as opened:
        store = LangGraphStore(opened, ttl=ttl)
        await store.aput(USERS, "default", {})
        await store.aput(USERS, "kept", {}, ttl=None)
        await store.aput(USERS, "brief", {}, ttl=0.5)
        await store.abatch([PutOp(USERS, "batched", {}), PutOp(USERS, "briefly", {}, ttl=0.5)])
        clock.advance(minutes=0.75)
        left = {item.key for item in await store.asearch((), refresh_ttl=False)}
        assert left == {"default", "kept", "batched"}
        clock.advance(minutes=0.75)
        assert {item.key for item in await store.asearch(())} == {"kept", "batched"}


@pytest.mark.parametrize(
    ("settings", "argument", "refreshes"),
    [
        ({"refresh_on_read": True}, None, True),
        ({"refresh_on_read": True}, False, False),
        ({"refresh_on_read": False}, None, False),
        ({"refresh_on_read": False}, True, True),
        ({}, None, False),
        (None, None, False),
        (None, True, True),
    ],
)
async def test_reads_refresh_as_they_are_told(
    make: Make, clock: Clock, settings: Any, argument: bool | None, refreshes: bool
) -> None:
    async with make() as opened:
        store = LangGraphStore(opened, ttl=settings)
        await store.aput(USERS, "got", {}, ttl=1)
        await store.aput(("found",), "found", {}, ttl=1)
        await store.aput(USERS, "left alone", {}, ttl=1)
        clock.advance(minutes=0.75)
        await store.aget(USERS, "got", refresh_ttl=argument)
        await store.asearch(("found",), refresh_ttl=argument)
        clock.advance(minutes=0.75)
        left = {item.key for item in await store.asearch((), refresh_ttl=False)}
        assert left == ({"got", "found"} if refreshes else set())
        clock.advance(minutes=0.75)
        assert await store.aget(USERS, "got", refresh_ttl=True) is None  # never revived


@pytest.mark.parametrize("ttl", [0, -1, True, float("inf"), float("nan"), "5"])
async def test_what_is_no_lifetime_is_refused(store: LangGraphStore, ttl: Any) -> None:
    with pytest.raises(kvstore.InvalidTTLError):
        await store.aput(USERS, "k", {}, ttl=ttl)
    assert await store.aget(USERS, "k") is None


async def test_the_sweeper_sweeps_until_it_is_stopped(store: LangGraphStore, clock: Clock) -> None:
    await store.aput(USERS, "k", {}, ttl=1)
    clock.advance(minutes=2)
    swept = asyncio.Event()
    sweep = store.sweep_ttl

    async def watched() -> int:
        count = await sweep()
        swept.set()
        return count

    store.sweep_ttl = watched  # type: ignore[method-assign]
    task = await store.start_ttl_sweeper(sweep_interval_minutes=1e-6)
    assert await store.start_ttl_sweeper() is task
    await asyncio.wait_for(swept.wait(), timeout=10)
    assert await sweep() == 0
    assert await store.stop_ttl_sweeper(timeout=10)
    assert task.done()
    assert await store.stop_ttl_sweeper()


# Threads and loops


async def test_sync_calls_work_from_other_threads(store: LangGraphStore) -> None:
    def work() -> Any:
        store.put(USERS, "k", {"n": 1}, ttl=5)
        store.put(USERS, "gone", {})
        store.delete(USERS, "gone")
        item = store.get(USERS, "k", refresh_ttl=True)
        assert item is not None
        found = store.search(("users",), filter={"n": 1}, limit=5)
        with pytest.raises(InvalidNamespaceError):
            store.get(("a.b",), "k")
        return item.value, [item.key for item in found], store.list_namespaces(prefix=("users",))

    assert await asyncio.to_thread(work) == ({"n": 1}, ["k"], [USERS])
    assert await asyncio.to_thread(store.batch, [GetOp(USERS, "none")]) == [None]


async def test_sync_calls_on_the_loop_itself_are_refused(store: LangGraphStore) -> None:
    for call in (
        lambda: store.put(USERS, "k", {}),
        lambda: store.get(USERS, "k"),
        lambda: store.delete(USERS, "k"),
        lambda: store.search(()),
        store.list_namespaces,
        lambda: store.batch([GetOp(USERS, "k")]),
        lambda: store.get(("bad.label",), "k"),
    ):
        with pytest.raises(asyncio.InvalidStateError, match=r"await .* such as a"):
            call()


FIRST: list[Callable[[LangGraphStore], Any]] = [
    lambda store: store.aget(USERS, "k"),
    lambda store: store.aput(USERS, "k", {}),
    lambda store: store.asearch(()),
    lambda store: store.adelete(USERS, "k"),
    lambda store: store.alist_namespaces(),
    lambda store: store.abatch([GetOp(USERS, "k")]),
    lambda store: store.sweep_ttl(),
    lambda store: store.setup(),
]


@pytest.mark.parametrize("first", FIRST)
async def test_the_first_awaited_call_opens_the_store(make: Make, first: Any) -> None:
    store = LangGraphStore(make())
    await asyncio.gather(first(store), first(store))
    await store.aput(USERS, "k", {"n": 1})
    assert await store.aget(USERS, "k") is not None
    await store.aclose()
    with pytest.raises(kvstore.StoreClosedError):
        await store.aget(USERS, "k")
    assert len(asyncio.all_tasks()) == 1


SYNC_FIRST: list[Callable[[LangGraphStore], Any]] = [
    lambda store: store.get(USERS, "k"),
    lambda store: store.put(USERS, "k", {}),
    lambda store: store.search(()),
    lambda store: store.delete(USERS, "k"),
    lambda store: store.list_namespaces(),
    lambda store: store.batch([GetOp(USERS, "k")]),
]


@pytest.mark.parametrize("first", SYNC_FIRST)
def test_sync_code_needs_no_loop(make: Make, first: Any) -> None:
    store = LangGraphStore(make(), ttl={"default_ttl": 5})
    first(store)
    store.put(USERS, "k", {"n": 1})
    item = store.get(USERS, "k")
    assert item is not None
    assert item.value == {"n": 1}

    async def awaited() -> Any:
        await store.aput(USERS, "k2", {"n": 2})
        await store.setup()
        return await store.asearch(())

    assert {item.key for item in asyncio.run(awaited())} == {"k", "k2"}
    assert {item.key for item in asyncio.run(awaited())} == {"k", "k2"}  # on another loop
    store.close()
    with pytest.raises(kvstore.StoreClosedError):
        store.get(USERS, "k")


async def test_a_closed_store_is_refused(make: Make) -> None:
    async with make() as opened:
        store = LangGraphStore(opened)
        await store.aput(USERS, "k", {})
    for call in FIRST[:-1]:
        with pytest.raises(kvstore.StoreClosedError):
            await call(store)
    with pytest.raises(kvstore.StoreClosedError):
        await asyncio.to_thread(store.get, USERS, "k")


@pytest.mark.parametrize("bad", [None, "agent.db", {}])
def test_only_a_store_is_adapted(bad: Any) -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="kvstore Store"):
        LangGraphStore(bad)


# From a path


async def test_from_conn_string_lasts(tmp_path: Path) -> None:
    path = str(tmp_path / "agent.db")
    async with LangGraphStore.from_conn_string(path, ttl={"default_ttl": 5}) as store:
        await store.setup()
        await store.aput(USERS, "k", {"n": 1})
        assert store.ttl_config == {"default_ttl": 5}
    assert len(asyncio.all_tasks()) == 1
    async with LangGraphStore.from_conn_string(f"sqlite:///{path}") as store:
        assert await store.aget(USERS, "k") is not None
    async with LangGraphStore.from_conn_string(":memory:") as store:
        assert await store.aget(USERS, "k") is None


async def test_kvstores_own_methods_see_the_same_items(make: Make, clock: Clock) -> None:
    async with make() as opened:
        store = LangGraphStore(opened)
        await store.aput(USERS, "k", {"n": 1})
        assert await opened.increment(USERS, "k", field="n") == 2
        clock.advance(minutes=1)
        await opened.put(("with.dot",), "k", "no mapping")
        assert [item.value for item in await store.asearch(())] == ["no mapping", {"n": 2}]


# Settings for semantic search


def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


def test_the_index_settings_become_kvstores() -> None:
    settings: Any = {"dims": 2, "embed": embed, "fields": ["title", "{tags[*],a.{b,c}}.x", ""]}
    config = index_config_of(settings)
    assert config.fields == ("title", "tags[*].x", "a.b.x", "a.c.x", "$")
    assert config.dimensions == 2
    assert config.embeddings is embed
    plain: Any = {"dims": 2, "embed": embed}
    assert index_config_of(plain).fields == ("$",)
    both: Any = {"dims": 2, "embed": embed, "fields": ["a"], "text_fields": ["b"]}
    assert index_config_of(both).fields == ("b",)
    neither: Any = {"dims": 2, "embed": embed, "text_fields": None}
    assert index_config_of(neither).fields == ("$",)


@pytest.mark.parametrize(
    "bad",
    [
        {"dims": 2},
        {"dims": 2, "embed": embed, "distance_type": "l2"},
        {"dims": 2, "embed": embed, "fields": ["meta.*"]},
        {"dims": 2, "embed": embed, "fields": ["a["]},
        {"dims": 2, "embed": embed, "ann_index_config": {}},
    ],
)
def test_index_settings_that_kvstore_does_not_have_are_refused(bad: Any) -> None:
    with pytest.raises(kvstore.InvalidArgumentError):
        index_config_of(bad)


async def test_the_settings_can_be_read_back() -> None:
    index: Any = {"dims": 2, "embed": embed, "fields": ["text"]}
    async with LangGraphStore.from_conn_string("memory://", index=index) as store:
        assert store.index_config == index
        assert store.index_config is not index
        assert store.embeddings is not None
        assert (await store.embeddings.aembed_query("four")) == [4.0, 1.0]
        assert store._store.index is not None
        assert store._store.index.fields == ("text",)


def test_the_settings_of_a_store_are_told() -> None:
    config = kvstore.IndexConfig(embed, fields=["text"], dimensions=2)
    adapter = LangGraphStore(kvstore.InMemoryStore(index=config))
    assert adapter.index_config == {"dims": 2, "embed": embed, "fields": ["text"]}
    assert LangGraphStore(kvstore.InMemoryStore()).index_config is None


def test_settings_for_a_store_without_an_index_are_refused() -> None:
    settings: Any = {"dims": 2, "embed": embed}
    with pytest.raises(kvstore.InvalidArgumentError, match="index_config_of"):
        LangGraphStore(kvstore.InMemoryStore(), index=settings)


def test_without_langgraph_the_error_names_what_to_install() -> None:
    program = (
        "import sys; sys.modules['langgraph.store.base'] = None\n"
        "try:\n    import kvstore.integrations.langgraph\n"
        "except ImportError as exc: print(type(exc).__name__, exc)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.startswith("MissingDependencyError")
    assert "'agent-kvstore[langgraph]', or pip install 'langgraph-checkpoint>=4" in done.stdout
