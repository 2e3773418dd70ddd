"""What is answered from memory obeys all rules that hold for what is read."""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import SQLiteStore
from kvstore.sqlite import statements
from kvstore.sqlite.engine import pace
from kvstore.testing import ManualClock

pytestmark = pytest.mark.skipif(
    not statements.READS_LENGTH_ALONE, reason="this SQLite reads nothing on the loop's thread"
)

NS = ("users", "ann")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "a.db") as it:
        await it.put(NS, "a", {"n": [1]})
        await it.get(NS, "absent")
        yield it


def hits(store: SQLiteStore) -> int:
    return store.metrics().cache_hits


def test_another_loop_on_the_same_thread_is_refused(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    with asyncio.Runner() as own:
        own.run(store.open())
        own.run(store.put(NS, "a", 1))
        for _ in range(2):  # the second is from memory; the loop stops in the middle of a turn
            assert own.run(store.get(NS, "a")) is not None
        with asyncio.Runner() as other:
            for key in ("a", "b"):
                with pytest.raises(kvstore.WrongLoopError):
                    other.run(store.get(NS, key))
        own.run(store.close())
        with pytest.raises(kvstore.StoreClosedError):
            own.run(store.get(NS, "a"))


async def test_another_thread_is_refused(store: SQLiteStore) -> None:
    await store.get(NS, "a")
    refused: list[BaseException] = []

    def look() -> None:
        try:
            asyncio.run(store.get(NS, "a"))
        except kvstore.WrongLoopError as exc:
            refused.append(exc)
        try:  # and without any loop
            store.get(NS, "a").send(None)
        except RuntimeError as exc:
            refused.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert len(refused) == 2


async def test_nothing_is_told_once_it_is_closing(store: SQLiteStore) -> None:
    await store.get(NS, "a")
    closing = asyncio.ensure_future(store.close())
    while store.is_open:  # noqa: ASYNC110 - a turn or two
        await asyncio.sleep(0)
    with pytest.raises(kvstore.StoreClosedError):
        await store.get(NS, "a")
    await closing


async def test_an_address_may_be_of_other_types(store: SQLiteStore) -> None:
    class Key(str, enum.Enum):  # noqa: UP042 - another kind than the labels
        A = "a"

    class Label(enum.StrEnum):
        USERS = "users"
        ANN = "ann"

    class Namespace(tuple[str, ...]):
        __slots__ = ()

    for namespace in (["users", "ann"], (Label.USERS, Label.ANN), Namespace(NS)):
        before = hits(store)
        item = await store.get(namespace, Key.A)
        assert item is not None
        assert (item.namespace, item.key, item.value) == (NS, "a", {"n": [1]})
        assert {type(part) for part in (item.key, *item.namespace)} == {str}
        assert type(item.namespace) is tuple
        assert hits(store) == before + 1


@pytest.mark.parametrize("namespace", ["users", ("users", ""), ("users", ["ann"]), 7, (1,), b"x"])
async def test_what_is_no_namespace_is_refused(store: SQLiteStore, namespace: object) -> None:
    with pytest.raises(kvstore.InvalidNamespaceError):
        await store.get(namespace, "a")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [None, 7, b"a", ["a"], "\ud800"])
async def test_what_is_no_key_is_refused(store: SQLiteStore, key: object) -> None:
    with pytest.raises(kvstore.InvalidKeyError):
        await store.get(NS, key)  # type: ignore[arg-type]
    with pytest.raises(kvstore.InvalidKeyError):
        await store.get_many(NS, ["a", key])  # type: ignore[list-item]


async def test_each_caller_has_a_value_of_his_own(store: SQLiteStore) -> None:
    first, other = await store.get(NS, "a"), await store.get(NS, "a")
    assert first is not None
    assert other is not None
    first.value["n"].append(2)
    assert other.value == {"n": [1]}
    assert (await store.get_many(NS, ["a", "absent"]))["a"].value == {"n": [1]}


async def test_what_has_expired_is_gone_at_its_instant(tmp_path: Path) -> None:
    now = 1_000.0
    async with SQLiteStore(tmp_path / "a.db", clock=lambda: now) as store:
        await store.put(NS, "a", 1, ttl=10)
        assert await store.get(NS, "a")
        now += 9.999
        before = hits(store)
        item = await store.get(NS, "a", refresh_ttl=False)
        assert item is not None
        assert await store.get_many(NS, ["a"]) == {"a": item}
        now += 0.001
        assert await store.get(NS, "a") is None
        assert await store.get_many(NS, ["a"]) == {}
        assert hits(store) >= before + 2  # those of `get_many` are if the turn has time left


async def test_a_read_from_memory_renews_a_lifetime(tmp_path: Path) -> None:
    now = 1_000.0
    async with SQLiteStore(tmp_path / "a.db", clock=lambda: now, refresh_ttl=True) as store:
        await store.put(NS, "a", 1, ttl=10)
        for _ in range(4):
            now += 6
            item = await store.get(NS, "a")
            assert item is not None
            assert item.expires_at is not None
            assert item.expires_at.timestamp() == now + 10


async def test_a_crowd_is_answered_without_a_statement(store: SQLiteStore) -> None:
    await store.get(NS, "a")
    before = hits(store)
    items = await asyncio.gather(*[store.get(NS, "a") for _ in range(2_000)])
    assert all(item is not None and item.value == {"n": [1]} for item in items)
    assert hits(store) == before + 2_000


async def test_tasks_that_go_on_and_on_leave_the_loop_room(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "TURN_S", 1e-9)
    before = hits(store)
    turns = done = 0

    async def go_on() -> None:
        nonlocal done
        for _ in range(50):
            assert await store.get(NS, "a")
            done += 1

    async def count_turns() -> None:
        nonlocal turns
        while done < 500:
            turns += 1
            await asyncio.sleep(0)

    await asyncio.gather(count_turns(), *[go_on() for _ in range(10)])
    assert turns >= 10
    assert hits(store) > before + 250  # of the others, a thread makes some after a slow moment


async def test_what_was_there_is_told_from_memory_by_the_same_rules(tmp_path: Path) -> None:
    clock = ManualClock()
    options: dict[str, Any] = {"history": 60, "clock": clock, "sweep_interval": None}
    async with SQLiteStore(tmp_path / "a.db", **options) as store:
        version = (await store.put(NS, "a", {"n": [1]}, ttl=10)).version
        await store.put(NS, "a", {"n": [2]})
        then = store.at(version)
        for place in (NS, list(NS), NS):
            item = await then.get(place, "a")
            assert item is not None
            assert item.value == {"n": [1]}
            item.value["n"].append("mine")
        assert await then.get(NS, "b") is None
        async with SQLiteStore(tmp_path / "a.db", **options) as other:
            await other.forget(NS, "a")
        assert await then.get(NS, "a") is None
        clock.advance(61)
        await store.put(NS, "b", 1)
        with pytest.raises(kvstore.HistoryExpiredError):
            await then.get(NS, "a")
        for namespace, key in ((("a\tb",), "a"), (NS, 7), ("users", "a")):
            with pytest.raises(kvstore.StoreError):
                await then.get(namespace, key)  # type: ignore[arg-type]
    with pytest.raises(kvstore.StoreClosedError):
        await then.get(NS, "a")
