"""A put by itself takes a short way, and comes to what it would come to by the long one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore import (
    ConflictError,
    IndexConfig,
    InMemoryStore,
    InvalidKeyError,
    KeyValueStore,
    SQLiteStore,
    Store,
)
from kvstore.operations import Put
from kvstore.sqlite import engine, statements
from kvstore.sqlite.series import Series
from kvstore.testing import ManualClock
from kvstore.types import Item

pytestmark = pytest.mark.skipif(
    not statements.READS_LENGTH_ALONE, reason="nothing is written on the loop's thread"
)
NS = ("a", "b")


@pytest.fixture
def alone(unhurried: None, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Notes of each put that was tried the short way whether it went it."""
    gone: list[bool] = []
    put_alone = Series.put_alone

    def note(self: Series, op: Put, *args: Any) -> Item | None:
        item = put_alone(self, op, *args)
        gone.append(item is not None)
        return item

    monkeypatch.setattr(Series, "put_alone", note)
    return gone


async def nothing(store: Store) -> None:
    await store.get(NS, "k")


async def a_plain_item(store: Store) -> None:
    await store.put(NS, "k", "before")


async def one_that_was_read(store: Store) -> None:
    await store.put(NS, "k", "before")
    await store.get(NS, "k")


async def one_with_a_lifetime(store: Store) -> None:
    await store.put(NS, "k", "before", ttl=1_000)
    await store.get(NS, "k")


async def one_whose_time_is_over(store: Store) -> None:
    await store.put(NS, "k", "before", ttl=1)
    await store.get(NS, "k")


async def one_that_is_not_indexed(store: Store) -> None:
    await store.put(NS, "k", "before", index=False)
    await store.get(NS, "k")


async def a_long_value(store: Store) -> None:
    await store.put(NS, "k", "x" * 2 * engine.INLINE_BYTES)


async def one_that_was_deleted(store: Store) -> None:
    await store.put(NS, "k", "before")
    await store.delete(NS, "k")


KINDS: dict[Callable[[Store], Awaitable[None]], bool] = {
    nothing: True,
    a_plain_item: True,
    one_that_was_read: True,
    one_with_a_lifetime: False,
    one_whose_time_is_over: False,
    one_that_is_not_indexed: False,
    a_long_value: False,
    one_that_was_deleted: True,
}


@pytest.mark.parametrize("history", [None, 3_600], ids=["alone", "history"])
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_put_over_whatever_is_there(
    tmp_path: Path,
    alone: list[bool],
    kind: Callable[[Store], Awaitable[None]],
    history: float | None,
) -> None:
    clock = ManualClock(1_000.0)
    options: dict[str, Any] = {"clock": clock, "history": history}
    seen = []
    pasts: list[Any] = []
    for store in (SQLiteStore(tmp_path / "store.db", **options), InMemoryStore(**options)):
        clock.seconds = 1_000.0
        async with store:
            await store.put(NS, "another", 0)
            await kind(store)
            clock.seconds += 10
            alone.clear()
            item = await store.put(NS, "k", {"now": 1})
            seen.append(item)
            assert await store.get(NS, "k") == item
            assert await store.get(NS, "another")
            if history is not None:
                pasts.append(await store.history(NS, "k"))
                pasts.append(await store.at(item.version - 1).get(NS, "k"))
            assert (await store.check()).ok
        if isinstance(store, SQLiteStore):
            assert alone == [KINDS[kind]]
    assert seen[0] == seen[1]
    assert pasts[:2] == pasts[2:]


async def test_what_it_replaces_is_kept_once_and_not_before_what_came_first(
    tmp_path: Path, alone: list[bool]
) -> None:
    clock = ManualClock(1_000.0)
    async with SQLiteStore(tmp_path / "store.db", clock=clock, history=3_600) as store:
        await store.put(NS, "k", "x" * 1_000)
        for seconds in (10, -5, 1):  # the clock goes back, and no change does
            clock.seconds += seconds
            await store.put(NS, "k", "x" * 1_000)
        assert alone == [True] * 4
        changes = await store.history(NS, "k")
        assert [change.at.timestamp() for change in changes] == [1_010.0, 1_010.0, 1_010.0, 1_000.0]
        assert [change.item and change.item.updated_at.timestamp() for change in changes] == [
            *(1_006.0, 1_005.0, 1_010.0, 1_000.0)
        ]
        assert {change.item and change.item.value for change in changes} == {"x" * 1_000}
        stats = await store.stats()
        assert (stats.past, stats.past_bytes) == (3, 0)
        assert (await store.check()).ok


def test_sync_code_goes_it_too(tmp_path: Path, alone: list[bool]) -> None:
    with KeyValueStore(tmp_path / "store.db") as facade:
        for number in range(3):
            facade.insert("k", number)
            assert facade.retrieve("k") == number
    assert alone == [False, True, True]  # at first, nothing is known of the file


async def test_it_knows_what_another_process_did_meanwhile(
    tmp_path: Path, alone: list[bool]
) -> None:
    clock = ManualClock(1_000.0)
    async with SQLiteStore(tmp_path / "store.db", clock=clock) as store:
        first = await store.put(NS, "k", 1)
        await store.put(NS, "k", 2)
        assert alone[-1]
        program = (
            "import asyncio, sys, kvstore\n"
            "async def main():\n"
            "    async with kvstore.SQLiteStore(sys.argv[1]) as store:\n"
            "        await store.delete(('a', 'b'), 'k')\n"
            "        print((await store.put(('a', 'b'), 'other', 1)).version)\n"
            "asyncio.run(main())"
        )
        command = [sys.executable, "-c", program, str(store.path)]
        theirs = int(subprocess.run(command, check=True, capture_output=True).stdout)
        clock.seconds += 10
        item = await store.put(NS, "k", 3)
        assert not alone[-1]  # what the other one has left is yet to be read
        assert item.version == theirs + 1
        assert item.created_at > first.created_at
        assert (await store.put(NS, "k", 4)).created_at == item.created_at
        assert alone[-1]


@pytest.mark.parametrize("options", [{"index": IndexConfig()}, {"read_cache_bytes": 0}])
async def test_a_file_that_keeps_more_goes_the_long_way(
    tmp_path: Path, alone: list[bool], options: dict[str, Any]
) -> None:
    async with SQLiteStore(tmp_path / "store.db", **options) as store:
        for number in range(3):
            await store.put(NS, "k", f"number {number}")
        assert True not in alone
        assert [item.value for item in await store.search(NS, "number")] == ["number 2"]


async def test_beside_a_log_it_goes_the_short_way_and_in_a_log_the_long_one(
    tmp_path: Path, alone: list[bool]
) -> None:
    async with SQLiteStore(tmp_path / "store.db") as store:
        last = await store.log(("log",)).append("entry")
        for number in range(3):
            await store.put(NS, "k", number)
        assert alone == [True, True, True]
        entries = [item async for item in store.scan(("log",))]
        await store.put(("log",), entries[0].key, "changed")
        with pytest.raises(InvalidKeyError):
            await store.put(("log",), "7".zfill(len(entries[0].key)), 1)  # nobody gave it
        assert alone[3:] == [False, False]
        assert await store.log(("log",)).append("next") == last + 1
        assert (await store.check()).ok


@pytest.mark.parametrize("history", [None, 3_600])
async def test_those_who_watch_hear_of_it_at_once(
    tmp_path: Path, alone: list[bool], history: float | None
) -> None:
    async with SQLiteStore(tmp_path / "store.db", history=history) as store:
        store.backend.bell.patience_s = 60.0  # so that they wait for the bell
        await store.put(NS, "k", 0)
        async with store.watch(NS) as changes:
            for number in range(1, 4):
                following = asyncio.ensure_future(anext(aiter(changes)))
                await asyncio.sleep(0.01)  # it waits
                await store.put(NS, "k", number)
                change = await asyncio.wait_for(following, 10)
                assert change.item is not None
                assert change.item.value == number
        assert alone[-2:] == [True, True]


@pytest.mark.parametrize("number", [40, 500])  # on the loop's thread, and on the writer's
@pytest.mark.parametrize("options", [{}, {"history": 60}], ids=["alone", "history"])
async def test_each_of_a_crowd_gets_its_own_answer(
    tmp_path: Path, options: dict[str, Any], number: int
) -> None:
    async with SQLiteStore(tmp_path / "store.db", **options) as store:
        await store.put(NS, "k0", "first", ttl=1_000)
        await store.put(NS, "k1", "first", index=False)
        before = await store.get(NS, "k0")
        for _ in range(2):
            calls = [
                asyncio.ensure_future(store.put(NS, f"k{n % 10}", n, if_version=n % 20 or None))
                if n % 20 in (0, 19)  # a conflict, and a put that comes to the same as the others
                else asyncio.ensure_future(store.put(NS, f"k{n % 10}", n))
                for n in range(number)
            ]
            await asyncio.sleep(0)
            calls[3].cancel()
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(found[3], asyncio.CancelledError)
            items = {}
            for n, item in enumerate(found):
                if n % 20 == 19:
                    assert isinstance(item, ConflictError)
                elif n != 3:
                    assert isinstance(item, Item)
                    assert (item.key, item.value) == (f"k{n % 10}", n)
                    items[item.version] = item
            assert len(items) == number - number // 20 - 1
            assert sorted(items, key=lambda version: items[version].value) == sorted(items)
            for key in {item.key for item in items.values()}:
                last = max(item.version for item in items.values() if item.key == key)
                assert await store.get(NS, key) == items[last]
        after = await store.get(NS, "k0")
        assert before is not None
        assert after is not None
        assert (after.created_at, after.expires_at) == (before.created_at, None)
        if options:
            changes = await store.history(NS, "k5")
            assert len(changes) == 2 * number // 10
        assert (await store.check()).ok
