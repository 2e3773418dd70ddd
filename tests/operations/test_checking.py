"""Check finds every damage there can be, stats count right."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest

import kvstore
from kvstore import InMemoryStore, RootStats, SQLiteStore, Store
from kvstore.sqlite import driver
from kvstore.testing import ManualClock

NS = ("n",)


async def fill(store: Store) -> None:
    await store.put_many(NS, {f"{number:04}": {"n": number} for number in range(2_500)})
    await store.put((), "root", 1, ttl=100)
    await store.put(("odd\t\n", "x"), "k", b"\x00")


async def test_a_sound_store_has_no_problems(store: Store) -> None:
    await fill(store)
    seen: list[tuple[int, int | None]] = []
    report = await store.check(progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.problems == ()
    assert report.items == 2_502
    assert seen[-1] == (2_502, 2_502)


async def test_an_empty_store_has_no_problems(store: Store) -> None:
    assert (await store.check()).ok


DAMAGES = {
    "value": ("UPDATE items SET value = '{\"n\":8}' WHERE key = '0007'", "'0007'.*checksum"),
    "key": ("UPDATE items SET key = '000x' WHERE key = '0007'", "'000x'.*checksum"),
    "moved": ("UPDATE items SET path = 'm\t' WHERE key = '0007'", "'0007'.*checksum"),
    "version": ("UPDATE items SET version = 1 WHERE key = '0007'", "'0007'.*checksum"),
    "path": ("UPDATE items SET path = 'm' WHERE key = '0007'", "path is no namespace"),
    "bytes": ("UPDATE items SET key = CAST(x'ff' AS TEXT) WHERE key = '0007'", "is no text"),
    "times": ("UPDATE items SET created_at = 1 << 60 WHERE key = '0007'", "'0007'.*created_at"),
    "indexing": ("UPDATE items SET indexing = '[' WHERE key = '0007'", "'0007'.*not what kvstore"),
    "behind": ("UPDATE meta SET value = 5 WHERE name = 'version'", "ahead of the store's, 5"),
    "no number": ("UPDATE meta SET value = NULL WHERE name = 'changes_begin'", "meta: a number"),
    "feed": (
        "INSERT INTO changes (version, kind, path, key, at) VALUES (99999, 'put', '', '', 0)",
        "feed is ahead",
    ),
    "index": (
        """
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'meta')
        WHERE name = 'items_expiry'
        """,
        "file: ",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "store.db"
    script, expected = DAMAGES[damage]
    async with kvstore.open(path) as store:
        await fill(store)
    connection = driver.connect(f"file:{path}")
    connection.executescript(script)
    connection.close()
    async with kvstore.open(path, sweep_interval=None) as store:
        report = await store.check()
    assert not report.ok
    assert any(re.search(expected, problem) for problem in report.problems), report
    assert "8}" not in "".join(report.problems), "a report holds no value"


def holds_schema(page: bytes) -> bool:
    """Whether a page of a file is one of those that say which tables there are."""
    return b"CREATE TABLE" in page


async def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    """Wherever in the file a page is overwritten, `check` says so, and does not raise.

    Where the schema is, there is nothing to check: opening says so.
    """
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await fill(store)
    whole = path.read_bytes()
    found = 0
    for page in range(1, len(whole) // 4096, 7):
        damaged = bytearray(whole)
        damaged[page * 4096 : page * 4096 + 300] = b"\xa5" * 300
        path.write_bytes(damaged)
        try:
            async with kvstore.open(path, sweep_interval=None) as store:
                found += not (await store.check()).ok
        except kvstore.StoreCorruptError:
            assert holds_schema(whole[page * 4096 : (page + 1) * 4096])
            found += 1
    assert found == len(range(1, len(whole) // 4096, 7))


async def test_the_list_of_problems_ends(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await fill(store)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE items SET value = '0'")
    connection.close()
    async with kvstore.open(path) as store:
        problems = (await store.check()).problems
    assert len(problems) == 101
    assert problems[-1] == "and more of them"


async def test_a_check_can_be_cancelled_while_others_write(sqlite: SQLiteStore) -> None:
    await fill(sqlite)
    for turns in (0, 1, 3, 10):
        checking = asyncio.create_task(sqlite.check())
        for number in range(turns):
            await sqlite.put(NS, str(number), number)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
    assert (await sqlite.check()).ok


async def test_writes_during_a_check_are_no_problems(sqlite: SQLiteStore) -> None:
    await fill(sqlite)
    for _ in range(5):
        checking = asyncio.create_task(sqlite.check())
        number = 0
        while not checking.done():
            number += 1
            await sqlite.put(NS, f"{number % 3_000:04}", number)
        assert (await checking).ok


async def test_damage_in_memory_is_found() -> None:
    async with InMemoryStore() as store:
        await store.put(NS, "k", 1)
        next(iter(store.backend._rows.values())).data = b"{"
        assert (await store.check()).problems == (
            "('n',) / 'k': its value is not what kvstore writes",
        )


async def test_stats_count_what_is_there(store: Store, clock: ManualClock) -> None:
    await store.put((), "root", "x")
    await store.put(("a",), "k", "ä")
    await store.put(("a", "b"), "k", "yy")
    await store.put(("a", "c"), "k", "yy")
    await store.put(("ab",), "k", 12)
    await store.put(("a",), "gone", "yy", ttl=1)
    clock.advance(2)
    stats = await store.stats()
    assert stats.roots == {
        (): RootStats(1, 1, 3),
        ("a",): RootStats(3, 3, 12),
        ("ab",): RootStats(1, 1, 2),
    }
    assert (stats.items, stats.namespaces, stats.bytes) == (5, 5, 17)
    assert (stats.version, stats.expired, stats.changes) == (6, 1, 0)
    assert stats.indexed is None
    assert stats.index_coverage is None
    if isinstance(store, SQLiteStore):
        assert stats.file_bytes == store.path.stat().st_size
        assert stats.wal_bytes


async def test_stats_of_nothing(store: Store) -> None:
    stats = await store.stats()
    assert (stats.items, stats.namespaces, stats.bytes, stats.roots) == (0, 0, 0, {})


async def test_stats_tell_what_waits_for_reindex(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await store.put_many(NS, {"a": "one", "b": "two"})
        assert (await store.stats()).index_coverage is None
    async with kvstore.open(path, index=kvstore.IndexConfig()) as store:
        await store.put(NS, "c", "three")
        assert (await store.stats()).index_coverage == 1 / 3
        await store.reindex()
        assert (await store.stats()).index_coverage == 1.0
