"""A backup takes a store's place, and never meets the log of another."""

from __future__ import annotations

import asyncio
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kvstore import (
    InvalidArgumentError,
    KeyValueStore,
    SQLiteStore,
    StoreAccessError,
    StoreBusyError,
    StoreCorruptError,
    StoreReplacedError,
    WatchExpiredError,
    restore_backup,
)
from kvstore.sqlite import guard

ROOT = Path(__file__).parents[2]
NS = ("n",)

DIE = """
import asyncio, os, sys
import kvstore

async def main(path, era):
    store = await kvstore.open(path).open()
    await store.put_many(("n",), {f"{n:03}": "x" * 300 for n in range(300)})
    await store.put(("n",), "era", era)
    os._exit(9)

asyncio.run(main(*sys.argv[1:]))
"""


def die(path: Path, era: str) -> None:
    """Write in another process that is killed, and leaves its log."""
    subprocess.run([sys.executable, "-c", DIE, path, era], cwd=ROOT, check=False)
    assert Path(f"{path}-wal").stat().st_size > 0


async def write(path: Path, era: str, *, backup: Path | None = None) -> int:
    """Write and close; return the version of the store."""
    async with SQLiteStore(path) as store:
        await store.put(NS, "era", era)
        if backup is not None:
            await store.backup(backup)
        return (await store.stats()).version


async def era(path: Path) -> object:
    async with SQLiteStore(path) as store:
        assert (await store.check()).ok
        item = await store.get(NS, "era")
    return None if item is None else item.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


async def test_a_backup_takes_the_place_of_a_store(path: Path, backup: Path) -> None:
    first = await write(path, "first", backup=backup)
    later = await write(path, "later")
    with pytest.raises(StoreAccessError, match="overwrite"):
        await restore_backup(backup, path)
    assert await era(path) == "later"
    seen: list[tuple[int, int | None]] = []
    await restore_backup(backup, path, overwrite=True, progress=lambda *each: seen.append(each))
    assert seen[-1][0] == seen[-1][1]
    assert await era(path) == "first"
    assert await era(backup) == "first"
    async with SQLiteStore(path) as store:
        restored = (await store.stats()).version
        assert restored > later > first
        assert (await store.put(NS, "k", 1)).version > restored


async def test_a_backup_becomes_a_store_where_there_was_none(path: Path, backup: Path) -> None:
    await write(path, "first", backup=backup)
    target = path.with_name("new.db")
    await restore_backup(backup, f"sqlite:///{target}")
    assert await era(target) == "first"
    assert sorted(file.name for file in path.parent.iterdir()) == [
        *("backup.db", "new.db", "store.db")
    ]


async def test_what_a_dead_process_left_goes(path: Path, backup: Path) -> None:
    await write(path, "first", backup=backup)
    die(path, "later")
    for number in range(3):  # as it is, then with the backup copied over, then without the file
        if number == 1:
            die(path, "later")
            shutil.copy(backup, path)
        if number == 2:
            die(path, "later")
            path.unlink()
        with pytest.raises(StoreAccessError, match="overwrite"):
            await restore_backup(backup, path)
        await restore_backup(backup, path, overwrite=True)
        assert sorted(file.name for file in path.parent.iterdir()) == ["backup.db", "store.db"]
        assert await era(path) == "first"


async def test_a_store_that_is_open_is_refused(path: Path, backup: Path) -> None:
    await write(path, "first", backup=backup)
    await write(path, "later")
    facade = KeyValueStore(path)
    for _ in range(2):
        with pytest.raises(StoreBusyError, match="is open"):
            await restore_backup(backup, path, overwrite=True)
    facade.insert("k", 1)
    facade.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreBusyError, match="is open"):
            await restore_backup(backup, path, overwrite=True)
        holder.communicate(b"\n")
    assert holder.returncode == 0
    assert await era(path) == "later"
    assert not list(path.parent.glob("*partial*"))
    await restore_backup(backup, path, overwrite=True)
    assert await era(path) == "first"


HOLD = """
import asyncio, sys
import kvstore

async def main(path):
    async with kvstore.open(path) as store:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await store.put(("n",), "k", 1)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_store_may_be_restored_from_one_that_is_open(path: Path, backup: Path) -> None:
    async with SQLiteStore(backup) as store:
        await store.put(NS, "era", "in the log")
        await restore_backup(backup, path)
        await store.put(NS, "era", "later")
    assert await era(path) == "in the log"


async def test_versions_are_not_given_twice_though_the_old_store_is_damaged(
    path: Path, backup: Path
) -> None:
    await write(path, "first", backup=backup)
    version = await write(path, "later")
    content = bytearray(path.read_bytes())
    content[200:] = bytes(len(content) - 200)
    path.write_bytes(content)
    await restore_backup(backup, path, overwrite=True)
    async with SQLiteStore(path) as store:
        assert (await store.stats()).version > version


async def test_a_watch_does_not_resume_across_a_restore(path: Path, backup: Path) -> None:
    async with SQLiteStore(path) as store, store.watch() as watch:
        await store.put(NS, "era", "first")
        await anext(watch)
        await store.backup(backup)
        await store.put(NS, "era", "later")
        last = await anext(watch)
    await restore_backup(backup, path, overwrite=True)
    async with SQLiteStore(path) as store:
        for since in (last.version - 1, last.version):
            with pytest.raises(WatchExpiredError):
                await anext(store.watch(since=since))
        version = (await store.stats()).version
        async with asyncio.timeout(10), store.watch(since=version) as watch:
            await store.put(NS, "k", 1)
            assert (await anext(watch)).key == "k"


async def test_what_is_no_backup_is_refused(path: Path, backup: Path) -> None:
    await write(path, "first", backup=backup)
    await write(path, "later")
    before = path.read_bytes()
    damaged = path.with_name("damaged.db")
    content = bytearray(backup.read_bytes())
    content[4096:8192] = bytes(4096)
    damaged.write_bytes(content)
    (path.parent / "text").write_text("some notes")
    for source, error in (
        (damaged, StoreCorruptError),
        (path.parent / "text", StoreCorruptError),
        (path.parent / "absent", StoreAccessError),
        (path.parent, StoreCorruptError),
        (path, StoreAccessError),
    ):
        with pytest.raises(error):
            await restore_backup(source, path, overwrite=True)
    with pytest.raises(InvalidArgumentError):
        await restore_backup(backup, "memory://")
    with pytest.raises(StoreAccessError, match="that SQLite uses"):
        await restore_backup(backup, f"{path}-wal")
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*partial*"))
    assert await era(path) == "later"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions as POSIX has them")
async def test_the_restored_store_keeps_its_permissions_and_links(
    path: Path, backup: Path, tmp_path: Path
) -> None:
    await write(path, "first", backup=backup)
    path.chmod(0o640)
    backup.chmod(0o400)
    (tmp_path / "link.db").symlink_to(path)
    await restore_backup(backup, tmp_path / "link.db", overwrite=True)
    assert (tmp_path / "link.db").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert await era(path) == "first"


# Opening a file that was put in place by hand


async def test_a_backup_that_was_copied_over_a_log_is_refused(path: Path, backup: Path) -> None:
    await write(path, "first", backup=backup)
    die(path, "later")
    shutil.copy(backup, path)
    for _ in range(2):
        with pytest.raises(StoreReplacedError, match=r"store\.db-wal.*kvstore restore"):
            await era(path)
        with pytest.raises(StoreReplacedError, match=r"store\.db-wal.*kvstore restore"):
            KeyValueStore(path)
    assert path.read_bytes() == backup.read_bytes()


needs_locks = pytest.mark.skipif(
    not guard.CAN_LOCK, reason="the system cannot tell who uses a file"
)


@needs_locks
@pytest.mark.parametrize("is_copied", [True, False])
async def test_an_older_copy_beside_a_log_is_refused(path: Path, is_copied: bool) -> None:
    """One that is in WAL mode itself: the file of a closed store."""
    old = path.with_name("old.db")
    await write(path, "first")
    shutil.copy(path, old)
    await write(path, "second")
    die(path, "later")
    shutil.copy(old, path) if is_copied else old.replace(path)
    with pytest.raises(StoreReplacedError, match="of an earlier time"):
        await era(path)


@needs_locks
@pytest.mark.parametrize("eras", [("first",), ("first", "second")])
async def test_another_store_beside_a_log_is_refused(path: Path, eras: tuple[str, ...]) -> None:
    other = path.with_name("other.db")
    for each in (path, other):
        for name in eras:
            await write(each, name)
    die(path, "later")
    other.replace(path)
    with pytest.raises(StoreReplacedError, match="another store's"):
        await era(path)


@pytest.mark.slow
async def test_a_log_that_a_dead_process_left_is_its_own(path: Path) -> None:
    for number in range(4):
        die(path, f"after death {number}")
        if number % 2:
            assert await era(path) == f"after death {number}"
    die(path, "moved")
    moved = path.parent / "moved"
    moved.mkdir()
    for file in list(path.parent.glob("store.db*")):
        file.rename(moved / file.name)
    assert await era(moved / path.name) == "moved"


async def test_positions_of_a_log_go_on_above_both(tmp_path: Path) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    async with SQLiteStore(path) as store:
        await store.log(("log",)).append("a", "b")
        await store.queue(("queue",)).put("a")
        await store.backup(backup)
        assert await store.log(("log",)).append("c", "d") == 4
        last = await store.queue(("queue",)).put("b")
    await restore_backup(backup, path, overwrite=True)
    async with SQLiteStore(path) as store:
        log = store.log(("log",))
        assert await log.append("e") > 4
        assert [entry.value for entry in await log.tail()] == ["a", "b", "e"]
        assert await store.queue(("queue",)).put("c") > last
