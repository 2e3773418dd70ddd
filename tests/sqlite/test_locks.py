"""What is locked stays locked, whatever a program does by the library's own doors."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

import kvstore
from kvstore import KeyValueStore, SQLiteStore, Store
from kvstore.embeddings import HashingEmbeddings
from kvstore.sqlite import driver, guard

pytestmark = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system does not list its locks"
)
NS = ("a", "b")


def locks(path: Path) -> Counter[tuple[str, ...]]:
    """Return this process's locks on a file and its index: kind, access, inode, first and last."""
    inodes = {Path(f"{path}{suffix}").stat().st_ino for suffix in ("", "-shm")}
    found: Counter[tuple[str, ...]] = Counter()
    for line in Path("/proc/locks").read_text().splitlines():
        kind, _, access, process, file, first, last = line.replace("->", "").split()[1:]
        if int(file.split(":")[-1]) in inodes and process in (str(os.getpid()), "-1"):
            found[kind, access, file, first, last] += 1
    return found


def descriptors(folder: Path) -> list[str]:
    """Name what this process has open in a folder; what it has elsewhere may go at any time."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return [each for each in found if each.startswith(f"{folder}/")]


async def drain(items: object) -> None:
    async for _ in items:  # type: ignore[attr-defined]
        pass


async def another_store(store: Store, folder: Path) -> None:
    async with SQLiteStore(folder / "store.db") as other:
        await other.put(NS, "other", 1)


async def refused_stores(store: Store, folder: Path) -> None:
    for path in (folder, folder / "absent" / "store.db"):
        with pytest.raises(kvstore.StoreError):
            await SQLiteStore(path).open()


async def forked(store: Store, folder: Path) -> None:
    child = os.fork()
    if child == 0:
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)


async def to_memory(store: Store, folder: Path) -> None:
    async with kvstore.open("memory://") as other:
        await kvstore.copy(store, other)


Door = Callable[[Store, Path], Awaitable[object]]
DOORS: dict[str, Door] = {
    "put": lambda store, _: store.put(NS, "k", 1),
    "put_many": lambda store, _: store.put_many(NS, {str(n): n for n in range(500)}),
    "large": lambda store, _: store.put(NS, "k", "x" * 1_000_000),
    "get": lambda store, _: store.get(NS, "k"),
    "get_many": lambda store, _: store.get_many(NS, ["k", "l"]),
    "delete": lambda store, _: store.delete(NS, "k"),
    "remove": lambda store, _: store.remove((), "*", subtree=True),
    "keys": lambda store, _: store.keys(NS),
    "count": lambda store, _: store.count((), subtree=True),
    "list_namespaces": lambda store, _: store.list_namespaces(),
    "scan": lambda store, _: drain(store.scan()),
    "filter": lambda store, _: store.search(NS, filter={"n": 1}),
    "search": lambda store, _: store.search(NS, "word", mode="hybrid"),
    "increment": lambda store, _: store.increment(NS, "n"),
    "append": lambda store, _: store.append(NS, "list", 1),
    "pop": lambda store, _: store.pop(NS, "list"),
    "update": lambda store, _: store.update(NS, "u", lambda value: value, default=1),
    "transact": lambda store, _: store.transact(lambda tx: tx.get(NS, "k")),
    "sweep": lambda store, _: store.sweep(),
    "check": lambda store, _: store.check(),
    "stats": lambda store, _: store.stats(),
    "vacuum": lambda store, _: store.vacuum(),
    "reindex": lambda store, _: store.reindex(),
    "backup": lambda store, folder: store.backup(folder / "backup.db"),
    "export_items": lambda store, folder: store.export_items(folder / "items.jsonl"),
    "import_items": lambda store, folder: store.import_items(folder / "items.jsonl"),
    "copy": to_memory,
    "another store": another_store,
    "another facade": lambda store, folder: asyncio.to_thread(
        lambda: KeyValueStore(folder / "store.db").close()
    ),
    "a facade, used": lambda store, folder: asyncio.to_thread(
        lambda: KeyValueStore(folder / "store.db").insert("k", 1)
    ),
    "the store again": lambda store, _: store.open(),
    "refused stores": refused_stores,
    "a fork": forked,
}


async def test_no_public_method_and_no_door_costs_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    index = kvstore.IndexConfig(HashingEmbeddings())
    async with SQLiteStore(path, index=index, sweep_interval=None) as store:
        await store.put(NS, "k", {"text": "word"})
        await store.export_items(tmp_path / "items.jsonl")
        await store.search(NS, "word")
        held = locks(path)
        assert sum(held.values()) >= 4  # SQLite's own on each file, and those of the guard
        assert {kind for kind, *_ in held} == {"POSIX", "OFDLCK"}
        for name, door in DOORS.items():
            await door(store, tmp_path)
            assert not held - locks(path), name
    assert not [file.name for file in tmp_path.glob("store.db-*")]


async def test_the_locks_go_with_the_last_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    first, second = SQLiteStore(path), SQLiteStore(path)
    await first.open()
    await second.open()
    facade = KeyValueStore(path)
    for close in (first.close, second.close):
        await close()
        assert ("OFDLCK", "READ") in {each[:2] for each in locks(path)}
        assert Path(f"{path}-wal").exists()
    facade.close()
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]
    assert str(path.stat().st_ino) not in Path("/proc/locks").read_text()


async def test_many_files_take_no_descriptors(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / f"{number}.db"
        async with SQLiteStore(path) as store:
            await store.put(NS, "k", number)
        KeyValueStore(path).close()
        with pytest.raises(kvstore.SchemaError):
            await SQLiteStore(foreign(tmp_path / f"{number}.foreign")).open()
    assert descriptors(tmp_path) == []


def foreign(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    return path


async def test_a_closed_store_that_is_gone_has_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SQLiteStore(path, sweep_interval=None).open()
    await store.put(NS, "k", 1)
    assert descriptors(tmp_path)
    hold, opened = store.backend._hold, store.backend.opened
    await store.close()
    del store, hold, opened
    gc.collect()
    assert descriptors(tmp_path) == []


needs_two_libraries = pytest.mark.skipif(
    sqlite3.__name__ == driver.NAME,
    reason="this Python has but one SQLite library",
)


@needs_two_libraries
async def test_another_library_in_the_process_never_takes_the_log_away(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put(NS, "before", 1)
        for _ in range(3):
            look(path)
            assert {f"store.db{suffix}" for suffix in ("", "-wal", "-shm")} <= {
                file.name for file in tmp_path.iterdir()
            }
            assert ("OFDLCK", "READ") in {each[:2] for each in locks(path)}
        await store.put(NS, "after", 2)
        assert look(path) == look_from_outside(path) == 2
    assert look_from_outside(path) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


@needs_two_libraries
async def test_the_last_store_leaves_the_log_to_another_library_that_uses_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put(NS, "k", 1)
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (1,)
    assert Path(f"{path}-wal").exists()
    connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'version'")
    connection.commit()
    assert look_from_outside(path) == 1
    assert Path(f"{path}-wal").exists()
    connection.close()
    async with SQLiteStore(path) as store:
        assert (await store.stats()).version == 2
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


def look(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        found: int = connection.execute("SELECT count(*) FROM items").fetchone()[0]
    finally:
        connection.close()
    return found


def look_from_outside(path: Path) -> int:
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "print(c.execute('SELECT count(*) FROM items').fetchone()[0]); c.close()"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True)
    return int(done.stdout)


def test_a_hold_of_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="no regular file"):
            guard.Hold(path).is_there()
    assert not guard.Hold(tmp_path / "absent").is_there()


def test_a_file_that_others_use_cannot_be_locked_against_them(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    facade = KeyValueStore(path)
    with guard.Hold(path) as hold:
        assert hold.is_used
        assert not hold.lock_out()
    facade.close()
    with guard.Hold(path) as hold:
        assert not hold.is_used
        assert hold.lock_out()
        with pytest.raises(kvstore.StoreBusyError):
            KeyValueStore(SQLiteStore(path, busy_timeout=0.01))
    KeyValueStore(path).close()
