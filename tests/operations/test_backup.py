"""Backup and vacuum: consistent copies and smaller files, while others write."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore
from kvstore import InMemoryStore, SQLiteStore, Store, StoreAccessError

ROOT = Path(__file__).parents[2]


async def fill(store: Store, number: int = 3_000) -> None:
    await store.put_many(("n",), {f"{n:05}": {"n": n, "text": "x" * 400} for n in range(number)})


async def test_a_backup_is_the_store_of_one_instant(sqlite: SQLiteStore, tmp_path: Path) -> None:
    """Pairs of items are always written together; a backup has both or neither."""
    await fill(sqlite)
    long = {str(number): "x" * 100_000 for number in range(200)}  # so that it takes a while
    await sqlite.put_many(("long",), long)
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "backup.db"
    number = written = 0
    async with SQLiteStore(sqlite.path) as other:
        while written < 2:  # while it was made, which may be done at once on a busy machine
            written = 0
            backing_up = asyncio.create_task(
                sqlite.backup(target, progress=lambda done, total: seen.append((done, total)))
            )
            while not backing_up.done():
                number += 1
                writer = (sqlite, other)[number % 2]
                await writer.put_many(("pairs",), {"one": number, "two": number})
                written += 1
            await backing_up
    assert seen[-1][0] == seen[-1][1]
    assert sorted(path.name for path in tmp_path.glob("backup*")) == ["backup.db"]
    async with kvstore.open(target) as copy:
        pairs = await copy.get_many(("pairs",), ["one", "two"])
        assert len({item.value for item in pairs.values()}) <= 1
        assert await copy.count(("n",)) == 3_000
        assert (await copy.check()).ok


async def test_a_backup_takes_the_place_of_an_older_one(
    sqlite: SQLiteStore, tmp_path: Path
) -> None:
    target = tmp_path / "backup.db"
    for number in range(3):
        await sqlite.put(("n",), "k", number)
        await sqlite.backup(str(target))
        async with kvstore.open(target) as copy:
            item = await copy.get(("n",), "k")
            assert item is not None
            assert item.value == number


async def test_a_backup_refuses_to_do_harm(sqlite: SQLiteStore, tmp_path: Path) -> None:
    await sqlite.put(("n",), "k", 1)
    with pytest.raises(StoreAccessError, match="the store itself"):
        await sqlite.backup(sqlite.path)
    with pytest.raises(StoreAccessError, match="No such file"):
        await sqlite.backup(tmp_path / "absent" / "backup.db")
    with pytest.raises(StoreAccessError, match="directory"):
        await sqlite.backup(tmp_path)
    async with kvstore.open(tmp_path / "open.db") as other:
        await other.put(("n",), "k", "theirs")
        with pytest.raises(StoreAccessError, match="is in use"):
            await sqlite.backup(tmp_path / "open.db")
        item = await other.get(("n",), "k")
        assert item is not None
        assert item.value == "theirs"
    assert not list(tmp_path.glob("*partial*"))


async def test_a_backup_that_is_stopped_leaves_nothing(sqlite: SQLiteStore, tmp_path: Path) -> None:
    await fill(sqlite)
    target = tmp_path / "backup.db"

    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sqlite.backup(target, progress=fail)
    for turns in (0, 1, 5, 20):
        backing_up = asyncio.create_task(sqlite.backup(target))
        for _ in range(turns):
            await asyncio.sleep(0)
        backing_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backing_up
        assert not list(tmp_path.glob("backup*"))
    await sqlite.backup(target)
    assert target.exists()


async def test_a_backup_has_the_permissions_of_the_store(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "private.db", file_mode=0o600) as store:
        await store.put(("n",), "k", 1)
        await store.backup(tmp_path / "backup.db")
    assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o600


async def test_the_backup_of_a_store_in_memory_is_an_export(tmp_path: Path) -> None:
    file = tmp_path / "backup.jsonl"
    async with InMemoryStore() as store:
        await fill(store)
        seen: list[tuple[int, int | None]] = []
        backing_up = asyncio.create_task(
            store.backup(file, progress=lambda *each: seen.append(each))
        )
        await asyncio.sleep(0)
        await store.remove(("n",), "*")
        await backing_up
        assert seen[-1] == (3_000, 3_000)
        assert await store.import_items(file) == 3_000
        log = store.log(("log",))
        await log.append("a", "b", "c")
        await log.pop()
        held = await store.queue(("jobs",)).put("later", delay=3_600, unique="u")
        await store.backup(file)
    async with InMemoryStore() as restored:
        await restored.import_items(file)
        assert await restored.log(("log",)).append("d") == 4  # no position twice
        assert await restored.queue(("jobs",)).put("again", unique="u") == held


BACKUP = """
import asyncio, sys
import kvstore

def progress(done, total):
    if done > total // 4:
        print("copying", flush=True)

async def main(path, target):
    async with kvstore.open(path) as store:
        while True:
            await store.backup(target, progress=progress)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_a_killed_backup_leaves_the_one_before(tmp_path: Path) -> None:
    path, target = tmp_path / "store.db", tmp_path / "backup.db"
    async with kvstore.open(path) as store:
        await fill(store, 20_000)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", BACKUP, path, target], stdout=subprocess.PIPE, cwd=ROOT
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"copying\n"
            process.send_signal(signal.SIGKILL)
        if target.exists():
            async with kvstore.open(target) as copy:
                assert await copy.count(("n",)) == 20_000
    async with kvstore.open(path) as store:
        assert await store.count(("n",)) == 20_000
        await store.backup(target)


async def test_vacuum_gives_space_back_while_others_wait(sqlite: SQLiteStore) -> None:
    await fill(sqlite, 10_000)
    await sqlite.remove(("n",), "[1-9]*")
    await sqlite.remove(("n",), "0[1-9]*")
    before = await sqlite.stats()
    vacuuming = asyncio.create_task(sqlite.vacuum())
    for number in range(20):
        await sqlite.put(("other",), str(number), number)
    freed = await vacuuming
    after = await sqlite.stats()
    assert freed > 3_000_000
    assert before.file_bytes is not None
    assert after.file_bytes is not None
    assert after.file_bytes < 1_000_000
    assert await sqlite.count(("n",)) == 1_000
    assert await sqlite.count(("other",)) == 20
    assert (await sqlite.check()).ok
    assert await sqlite.vacuum() == 0


async def test_vacuum_of_a_store_in_memory_has_nothing_to_do() -> None:
    async with InMemoryStore() as store:
        assert await store.vacuum() == 0


def test_the_umask_does_not_widen_a_backup(tmp_path: Path) -> None:
    async def main() -> None:
        async with SQLiteStore(tmp_path / "s.db", file_mode=0o640) as store:
            await store.backup(tmp_path / "b.db")

    before = os.umask(0)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b.db").stat().st_mode) == 0o640


def spellings(path: Path, folder: Path) -> list[Path]:
    """Return other names of a file: with dots, through links, by a hard link."""
    folder.mkdir()
    (folder / "symbolic").symlink_to(path)
    (folder / "directory").symlink_to(path.parent)
    (folder / "hard").hardlink_to(path)
    dotted = path.parent / ".." / path.parent.name / path.name
    return [path, dotted, folder / "symbolic", folder / "directory" / path.name, folder / "hard"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
async def test_a_store_never_writes_over_its_own_files(
    sqlite: SQLiteStore, tmp_path: Path, suffix: str
) -> None:
    await sqlite.put(("n",), "k", 1)
    own = Path(f"{sqlite.path}{suffix}")
    inode = own.stat().st_ino
    for target in spellings(own, tmp_path / "names"):
        for call in (sqlite.backup, sqlite.export_items, sqlite.import_items):
            with pytest.raises(StoreAccessError, match="name another file"):
                await call(target)
    assert own.stat().st_ino == inode
    await sqlite.put(("n",), "after", 2)
    async with SQLiteStore(sqlite.path) as other:
        assert await other.keys(("n",)) == ["after", "k"]


async def test_names_that_sqlite_would_take_for_its_own_are_refused(
    sqlite: SQLiteStore, tmp_path: Path
) -> None:
    for target in (f"{sqlite.path}-journal", f"{sqlite.path}-WAL"):
        with pytest.raises(StoreAccessError, match="that SQLite uses"):
            await sqlite.backup(target)
    async with InMemoryStore() as memory:
        for suffix in ("", "-wal", "-shm", "-journal"):
            for call in (memory.backup, memory.export_items, memory.import_items):
                with pytest.raises(StoreAccessError, match="name another file"):
                    await call(f"{sqlite.path}{suffix}")
    await sqlite.put(("n",), "k", 1)


async def test_an_export_takes_no_database_s_place(tmp_path: Path) -> None:
    path = tmp_path / "closed.db"
    async with SQLiteStore(path) as store:
        await store.put(("n",), "k", 1)
    before = path.read_bytes()
    async with InMemoryStore() as memory:
        with pytest.raises(StoreAccessError, match="is a database"):
            await memory.export_items(path)
        (tmp_path / "old.jsonl").write_text("an older export")
        assert await memory.export_items(tmp_path / "old.jsonl") == 0
    assert path.read_bytes() == before
