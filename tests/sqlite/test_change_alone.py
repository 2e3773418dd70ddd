"""A change by itself takes a short way, and comes to what it would come to by the long one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore import (
    InMemoryStore,
    InvalidKeyError,
    KeyValueStore,
    SQLiteStore,
    Store,
    SyncStore,
    ValueEncodingError,
    ValueTypeError,
)
from kvstore.errors import StoreCorruptError
from kvstore.operations import Mutate
from kvstore.sqlite import driver, engine, statements
from kvstore.sqlite.series import Series
from kvstore.testing import ManualClock

pytestmark = pytest.mark.skipif(
    not statements.READS_LENGTH_ALONE, reason="nothing is written on the loop's thread"
)
NS = ("a", "b")


@pytest.fixture
def alone(unhurried: None, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Notes of each change that was tried the short way whether it went it."""
    gone: list[bool] = []
    change_alone = Series.change_alone

    def note(self: Series, op: Mutate, *args: Any) -> tuple[Any, int] | None:
        gone.append(False)
        done = change_alone(self, op, *args)
        gone[-1] = done is not None
        return done

    monkeypatch.setattr(Series, "change_alone", note)
    return gone


async def nothing(store: Store) -> None:
    assert await store.get(NS, "k") is None


async def a_plain_item(store: Store) -> None:
    await store.put(NS, "k", [1, 2])


async def one_with_a_lifetime(store: Store) -> None:
    await store.put(NS, "k", [1, 2], ttl=1_000)


async def one_whose_time_is_over(store: Store) -> None:
    await store.put(NS, "k", [1, 2], ttl=1)


async def one_that_is_not_indexed(store: Store) -> None:
    await store.put(NS, "k", [1, 2], index=False)
    await store.get(NS, "k")


async def a_long_value(store: Store) -> None:
    await store.put(NS, "k", ["x" * 2 * engine.INLINE_BYTES])


async def one_that_was_deleted(store: Store) -> None:
    await a_plain_item(store)
    await store.delete(NS, "k")


KINDS: dict[Callable[[Store], Awaitable[None]], bool] = {
    nothing: True,
    a_plain_item: True,
    one_with_a_lifetime: False,
    one_whose_time_is_over: False,
    one_that_is_not_indexed: False,
    a_long_value: False,
    one_that_was_deleted: True,
}


@pytest.mark.parametrize("history", [None, 3_600], ids=["alone", "history"])
@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_is_there_is_changed(
    tmp_path: Path,
    alone: list[bool],
    kind: Callable[[Store], Awaitable[None]],
    history: float | None,
) -> None:
    clock = ManualClock(1_000.0)
    options: dict[str, Any] = {"clock": clock, "history": history}
    found: list[Any] = []
    for store in (SQLiteStore(tmp_path / "store.db", **options), InMemoryStore(**options)):
        clock.seconds = 1_000.0
        async with store:
            await store.put(NS, "another", 0)
            await kind(store)
            clock.seconds += 10
            alone.clear()
            seen: list[Any] = [await store.append(NS, "k", 3)]
            if isinstance(store, SQLiteStore):
                assert alone == [KINDS[kind]]
            clock.seconds += 10
            seen += [await store.pop(NS, "k", -1), await store.pop(NS, "k", 100, default="none")]
            with pytest.raises(ValueTypeError):
                await store.increment(NS, "k")
            item = await store.get(NS, "k")
            assert item is not None
            seen += [item, await store.increment(NS, "n", 5, ttl=7), await store.get(NS, "n")]
            seen += [await store.increment(NS, "n", 0.5), await store.get(NS, "n")]
            if history is not None:
                seen += [await store.history(NS, "k"), await store.history(NS, "n")]
                seen.append(await store.at(item.version - 1).get(NS, "k"))
            assert (await store.check()).ok
            found.append(seen)
    assert found[0] == found[1]


async def test_a_change_that_fails_leaves_no_trace(tmp_path: Path, alone: list[bool]) -> None:
    async with SQLiteStore(tmp_path / "store.db", history=60) as store:
        await store.put(NS, "k", "text")
        last = await store.increment(NS, "n", 2**63)
        for _ in range(2):
            with pytest.raises(ValueTypeError, match="'k'"):
                await store.increment(NS, "k")
            with pytest.raises(ValueEncodingError):
                await store.increment(NS, "n", 2**63)
        assert alone[-4:] == [False] * 4
        assert await store.get(NS, "n") is not None
        assert await store.increment(NS, "n", 0) == last
        item = await store.get(NS, "n")
        assert item is not None
        assert item.version == 3
        assert len(await store.history(NS, "k")) == 1


async def test_what_is_damaged_is_changed_by_nobody(tmp_path: Path, alone: list[bool]) -> None:
    async with SQLiteStore(tmp_path / "store.db") as store:
        await store.put(NS, "k", 1)
        connection = driver.connect(str(store.path))
        connection.execute("UPDATE items SET value = '2'")
        connection.commit()
        connection.close()
        await store.put(NS, "other", 1)
        with pytest.raises(StoreCorruptError):
            await store.increment(NS, "k")
        assert alone[-1] is False


def test_sync_code_goes_it_too(tmp_path: Path, alone: list[bool]) -> None:
    with KeyValueStore(tmp_path / "store.db") as facade:
        assert [facade.increment("n") for _ in range(3)] == [1, 2, 3]
        assert alone == [False, True, True]  # at first, nothing is known of the file
        with pytest.raises(ValueTypeError):
            facade.append("n", 1)
        assert facade.increment("n") == 4


async def test_it_adds_to_what_another_process_left(tmp_path: Path, alone: list[bool]) -> None:
    async with SQLiteStore(tmp_path / "store.db") as store:
        for _ in range(3):
            await store.increment(NS, "n")
        program = (
            "import asyncio, sys, kvstore\n"
            "async def main():\n"
            "    async with kvstore.SQLiteStore(sys.argv[1]) as store:\n"
            "        for _ in range(100): await store.increment(('a', 'b'), 'n')\n"
            "asyncio.run(main())"
        )
        command = [sys.executable, "-c", program, str(store.path)]
        process = await asyncio.create_subprocess_exec(*command)
        mine = 0
        while process.returncode is None:
            await store.increment(NS, "n")
            mine += 1
            await asyncio.sleep(0)
        assert process.returncode == 0
        assert mine
        assert await store.increment(NS, "n", 0) == 3 + 100 + mine
        assert True in alone
        assert (await store.check()).ok


async def test_an_entry_of_a_log_goes_the_long_way(tmp_path: Path, alone: list[bool]) -> None:
    async with SQLiteStore(tmp_path / "store.db") as store:
        await store.log(("log",)).append(1)
        await store.put(NS, "n", 0)
        assert await store.increment(NS, "n") == 1
        (key,) = await store.keys(("log",))
        assert await store.increment(("log",), key) == 2
        with pytest.raises(InvalidKeyError):
            await store.increment(("log",), "7".zfill(len(key)))  # nobody gave it
        assert alone == [True, False, False]


@pytest.mark.parametrize("number", [40, 500])  # on the loop's thread, and on the writer's
@pytest.mark.parametrize("options", [{}, {"history": 60}], ids=["alone", "history"])
async def test_each_of_a_crowd_gets_its_own_answer(
    tmp_path: Path, options: dict[str, Any], number: int
) -> None:
    async with SQLiteStore(tmp_path / "store.db", **options) as store:
        await store.put(NS, "n0", 0, ttl=1_000)
        await store.put(NS, "n1", 0, index=False)
        await store.put(NS, "text", "text")
        before = await store.get(NS, "n0")
        for turn in range(2):
            calls = [
                asyncio.ensure_future(
                    store.increment(NS, "text" if n % 20 == 19 else f"n{n % 10}")
                    if n % 7
                    else store.put(NS, f"p{n % 10}", n)
                )
                for n in range(number)
            ]
            await asyncio.sleep(0)
            calls[3].cancel()
            answers: dict[str, list[Any]] = {}
            for n, found in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
                if n % 7 == 0 or n == 3:
                    continue
                if n % 20 == 19:
                    assert isinstance(found, ValueTypeError)
                else:
                    answers.setdefault(f"n{n % 10}", []).append(found)
            for key, totals in answers.items():
                if key != "n3":
                    begin = len(totals) * turn + 1
                    assert totals == list(range(begin, begin + len(totals)))
                item = await store.get(NS, key)
                assert item is not None
                assert item.value >= totals[-1]
        after = await store.get(NS, "n0")
        assert before is not None
        assert after is not None
        assert (after.created_at, after.expires_at) == (before.created_at, before.expires_at)
        assert (await store.check()).ok


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys, kvstore\n"
        "async def main():\n"
        "    async with kvstore.SQLiteStore(sys.argv[1]) as store:\n"
        "        for _ in range(20):\n"
        "            await asyncio.gather(*(store.increment(('a',), f'n{n % 5}')"
        " for n in range(25)))\n"
        "            for n in range(5): await store.append(('a',), 'list', n)\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "store.db")]
    for process in [subprocess.Popen(command) for _ in range(2)]:
        assert process.wait(60) == 0
    with SyncStore(tmp_path / "store.db") as store:
        found = store.get_many(("a",), [f"n{n}" for n in range(5)])
        assert [item.value for item in found.values()] == [2 * 20 * 5] * 5
        listed = store.get(("a",), "list")
        assert listed is not None
        assert sorted(listed.value) == sorted(2 * 20 * list(range(5)))
        assert store.check().ok
