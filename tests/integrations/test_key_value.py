"""`KVStoreBackend` means what py-key-value's own stores mean."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import kvstore

pytest.importorskip("key_value.aio")

from key_value.aio import errors
from key_value.aio.protocols.key_value import (
    AsyncCullProtocol,
    AsyncDestroyCollectionProtocol,
    AsyncDestroyStoreProtocol,
    AsyncEnumerateCollectionsProtocol,
    AsyncEnumerateKeysProtocol,
    AsyncKeyValue,
)
from key_value.aio.wrappers.limit_size import LimitSizeWrapper
from key_value.aio.wrappers.prefix_keys import PrefixKeysWrapper
from key_value.aio.wrappers.statistics import StatisticsWrapper

from kvstore.integrations.key_value import KVStoreBackend

ODD = [
    "!@#$%^&*()",
    "x" * 900,
    "a::b",
    "a/b",
    "https://host/path?q=1",
    "*",
    "H_x",
    "S_x",
    " ",
    "é\n",
]


@pytest.fixture(params=["memory", "file", pytest.param("postgres", marks=pytest.mark.slow)])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[KVStoreBackend]:
    targets: dict[str, Any] = {"memory": "memory://", "file": tmp_path / "a.db"}
    made = KVStoreBackend(targets.get(request.param) or request.getfixturevalue("postgres_url"))
    yield made
    await made.close()


def test_it_speaks_every_protocol() -> None:
    backend = KVStoreBackend("memory://")
    for protocol in (
        AsyncKeyValue,
        AsyncEnumerateKeysProtocol,
        AsyncEnumerateCollectionsProtocol,
        AsyncDestroyCollectionProtocol,
        AsyncDestroyStoreProtocol,
        AsyncCullProtocol,
    ):
        assert isinstance(backend, protocol)


async def test_what_was_put_is_got_until_it_is_deleted(backend: KVStoreBackend) -> None:
    assert await backend.get("k") is None
    assert await backend.ttl("k") == (None, None)
    assert await backend.delete("k") is False
    await backend.put("k", {"n": 1, "t": (1, "two"), "d": {"x": None}})
    assert await backend.get("k") == {"n": 1, "t": [1, "two"], "d": {"x": None}}
    assert await backend.ttl("k") == ({"n": 1, "t": [1, "two"], "d": {"x": None}}, None)
    await backend.put("k", {})
    assert await backend.get("k") == {}
    assert await backend.delete("k") is True
    assert await backend.get("k") is None


@pytest.mark.parametrize("odd", ["", *ODD])
async def test_any_text_is_a_key_and_a_collection(backend: KVStoreBackend, odd: str) -> None:
    await backend.put(odd, {"n": 1}, collection="c")
    assert await backend.get(odd, collection="c") == {"n": 1}
    assert await backend.keys("c") == [odd]
    await backend.put("k", {"n": 2}, collection=odd)
    assert await backend.get("k", collection=odd) == {"n": 2}
    assert await backend.get("k", collection="c") is None


async def test_no_collection_is_the_default_one(backend: KVStoreBackend) -> None:
    await backend.put("k", {"n": 1})
    assert await backend.get("k", collection="") == {"n": 1}
    assert await backend.get("k", collection="default_collection") == {"n": 1}
    assert await backend.collections() == ["default_collection"]


async def test_collections_whose_names_run_together_do_not_meet(backend: KVStoreBackend) -> None:
    await backend.put("b::c", {"n": 1}, collection="a")
    await backend.put("c", {"n": 2}, collection="a::b")
    assert await backend.get("b::c", collection="a") == {"n": 1}
    assert await backend.get("c", collection="a::b") == {"n": 2}


async def test_many_at_once(backend: KVStoreBackend) -> None:
    await backend.put_many(["a", "b", "a"], [{"n": 1}, {"n": 2}, {"n": 3}])
    assert await backend.get_many(["b", "none", "a", "b"]) == [{"n": 2}, None, {"n": 3}, {"n": 2}]
    assert await backend.ttl_many(["a", "none"]) == [({"n": 3}, None), (None, None)]
    assert await backend.delete_many(["a", "none", "b"]) == 2
    with pytest.raises(ValueError, match="different number"):
        await backend.put_many(["a"], [])
    assert await backend.get_many([]) == []


async def test_put_many_is_all_or_nothing(backend: KVStoreBackend) -> None:
    bad: Any = {"n": {1, 2}}
    with pytest.raises(errors.SerializationError):
        await backend.put_many(["a", "b"], [{"n": 1}, bad])
    assert await backend.keys() == []


@pytest.mark.parametrize(
    "value",
    [
        datetime(2025, 1, 1, tzinfo=UTC),
        uuid.UUID(int=1),
        b"bytes",
        {1, 2},
        object(),
        float("nan"),
        2**70,
        "\ud800",
    ],
)
async def test_what_is_no_json_is_a_serialization_error(
    backend: KVStoreBackend, value: Any
) -> None:
    await backend.put("k", {"before": True})
    with pytest.raises(errors.SerializationError, match="serialize"):
        await backend.put("k", {"value": [value]})
    assert await backend.get("k") == {"before": True}


@pytest.mark.parametrize("name", ["key", "collection"])
async def test_text_that_no_store_holds_is_an_invalid_key(
    backend: KVStoreBackend, name: str
) -> None:
    arguments: dict[str, Any] = {"key": "k", "collection": "c", name: "\ud800"}
    with pytest.raises(errors.InvalidKeyError):
        await backend.put(value={}, **arguments)


async def test_lifetimes_end(tmp_path: Path) -> None:
    now = [1_000_000.0]
    async with kvstore.InMemoryStore(clock=lambda: now[0]) as store:
        backend = KVStoreBackend(store)
        await backend.put("k", {"n": 1}, ttl=100)
        await backend.put_many(["m"], [{"n": 1}], ttl=100)
        assert await backend.put_if_absent("a", {"n": 1}, ttl=100)
        for key in "kma":
            item = await store.get(("key_value", "default_collection"), key)
            assert item is not None
            assert item.expires_at is not None
            assert item.expires_at.timestamp() == pytest.approx(now[0] + 100)
        now[0] += 100
        assert await backend.keys() == []
        assert await backend.collections() == []
        await backend.cull()
        assert await store.sweep() == 0


async def test_a_lifetime_is_told(backend: KVStoreBackend) -> None:
    await backend.put("k", {"n": 1}, ttl=1000)
    value, left = await backend.ttl("k")
    assert value == {"n": 1}
    assert left is not None
    assert 900 < left <= 1000


@pytest.mark.parametrize("ttl", [0, -1, True])
async def test_what_is_no_lifetime_is_refused(backend: KVStoreBackend, ttl: Any) -> None:
    with pytest.raises(errors.InvalidTTLError):
        await backend.put("k", {}, ttl=ttl)
    with pytest.raises(errors.InvalidTTLError):
        await backend.put_if_absent("k", {}, ttl=ttl)
    assert await backend.get("k") is None


async def test_put_if_absent_lets_one_win(backend: KVStoreBackend) -> None:
    won = await asyncio.gather(*(backend.put_if_absent("k", {"n": n}) for n in range(20)))
    assert won.count(True) == 1
    assert await backend.get("k") == {"n": won.index(True)}


async def test_collections_can_be_listed_and_destroyed(backend: KVStoreBackend) -> None:
    for collection in ("b", "a", "ab"):
        await backend.put_many(["k1", "k2"], [{}, {}], collection=collection)
    assert await backend.collections() == ["a", "ab", "b"]
    assert await backend.collections(limit=2) == ["a", "ab"]
    assert await backend.keys("a") == ["k1", "k2"]
    assert await backend.keys("a", limit=1) == ["k1"]
    assert await backend.destroy_collection("a") is True
    assert await backend.destroy_collection("a") is False
    assert await backend.collections() == ["ab", "b"]
    await backend.put("k", {}, collection="a")
    assert await backend.keys("a") == ["k"]
    assert await backend.destroy() is True
    assert await backend.collections() == []
    await backend.put("k", {}, collection="a")
    assert await backend.get("k", collection="a") == {}


async def test_seeds_are_sown(tmp_path: Path) -> None:
    async with KVStoreBackend("memory://", seed={"c": {"k": {"n": 1}}}) as backend:
        assert await backend.get("k", collection="c") == {"n": 1}


async def test_it_stays_itself_inside_wrappers(backend: KVStoreBackend) -> None:
    limited = LimitSizeWrapper(backend, max_size=100, raise_on_too_large=False)
    wrapped = StatisticsWrapper(PrefixKeysWrapper(limited, prefix="p"))
    await wrapped.put("k", {"n": 1})
    await wrapped.put("long", {"n": "x" * 200})
    assert await wrapped.get("k") == {"n": 1}
    assert await wrapped.get("long") is None
    assert await backend.keys() == ["p__k"]


async def test_the_store_underneath_sees_the_same(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "a.db") as store:
        backend = KVStoreBackend(store)
        await backend.put("k", {"status": "open"}, collection="tasks")
        (item,) = await store.search(("key_value", "tasks"), filter={"status": "open"})
        assert item.value == {"status": "open"}
        await store.put(("flow", "project"), "k", {})
        assert await backend.destroy()
        assert await store.get(("flow", "project"), "k") is not None
        await store.put(("key_value", "tasks"), "text", "no mapping")
        with pytest.raises(errors.DeserializationError):
            await backend.get("text", collection="tasks")


# Opening and closing


async def test_a_store_that_is_open_stays_open() -> None:
    async with kvstore.InMemoryStore() as store:
        async with KVStoreBackend(store) as backend:
            await backend.put("k", {})
        await backend.close()
        assert await store.count((), subtree=True) == 1


async def test_it_opens_by_itself_and_again_after_closing(tmp_path: Path) -> None:
    backend = KVStoreBackend(tmp_path / "a.db")
    await asyncio.gather(*(backend.put(f"k{n}", {"n": n}) for n in range(5)))
    await backend.close()
    await backend.close()
    assert len(asyncio.all_tasks()) == 1
    assert await backend.get("k3") == {"n": 3}
    async with backend:
        await backend.put("k3", {"n": 4})
    assert len(asyncio.all_tasks()) == 1
    async with backend:
        assert await backend.get("k3") == {"n": 4}


def test_a_file_works_on_one_loop_after_the_other(tmp_path: Path) -> None:
    backend = KVStoreBackend(tmp_path / "a.db")

    async def visit() -> int:
        seen = (await backend.get("visits") or {"n": 0})["n"] + 1
        await backend.put("visits", {"n": seen})
        await backend.close()
        return int(seen)

    assert [asyncio.run(visit()) for _ in range(3)] == [1, 2, 3]


async def test_a_path_that_cannot_be_opened_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(errors.StoreSetupError, match="missing"):
        await KVStoreBackend(tmp_path / "missing" / "a.db").get("k")
