"""What a store takes of the machine, and when it gives it back."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import KeyValueStore, SQLiteStore
from kvstore.sqlite import statements
from kvstore.sqlite.engine import writer
from tests.running import python
from tests.waiting import until

NS = ("n",)
LARGE = {f"{n}": "x" * 1_000_000 for n in range(60)}


def log_bytes(path: Path) -> int:
    return Path(f"{path}-wal").stat().st_size


async def put_many(store: SQLiteStore, folder: Path) -> None:
    await store.put_many(NS, LARGE)


async def import_file(store: SQLiteStore, folder: Path) -> None:
    async with kvstore.open("memory://") as source:
        await source.put_many(NS, LARGE)
        await source.export_items(folder / "export")
    await store.import_items(folder / "export")


@pytest.mark.parametrize("write", [put_many, import_file])
async def test_the_log_is_cut_when_a_large_write_is_over(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "a.db"
    async with SQLiteStore(path) as store:
        await write(store, tmp_path)
        await until(lambda: log_bytes(path) <= statements.LOG_BYTES)
        assert await store.count(NS) == len(LARGE)


async def test_the_log_is_cut_once_a_reader_lets_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with SQLiteStore(path) as store:
        await store.put(NS, "k", 1)
        async with SQLiteStore(path) as other:
            scan = other.backend._scans.raw
            scan.execute("BEGIN")
            scan.execute("SELECT count(*) FROM items").fetchall()
            await store.put_many(NS, LARGE)
            assert log_bytes(path) > statements.LOG_BYTES
            scan.execute("ROLLBACK")
        for _ in range(3):
            await store.put_many(NS, dict(list(LARGE.items())[:10]))
        await until(lambda: log_bytes(path) <= statements.LOG_BYTES)


async def test_what_searches_write_is_copied_out_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a large namespace is kept in slices that no write is counted for."""
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 20)
    async with SQLiteStore(tmp_path / "store.db", sweep_interval=None) as store:
        await store.put_many(NS, {f"{n:05}": n for n in range(10_000)})
        await until(lambda: store.backend.opened.pages_to_copy == 0)
        for _ in range(2):
            await store.search(NS, limit=1)
        await until(lambda: store.backend.opened.pages_to_copy == 0)


def test_the_log_of_sync_code_is_cut_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = KeyValueStore(path)
    store.insert("large", "x" * 60_000_000)
    store.insert("small", 1)
    store.insert("small", 2)
    assert log_bytes(path) <= statements.LOG_BYTES
    store.close()


def open_files(folder: Path) -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(link.readlink()))
    return [each for each in found if each.startswith(str(folder))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("options", [{}, {"sweep_interval": None}], ids=["swept", "unswept"])
async def test_a_dropped_store_goes_with_its_threads_and_files(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    threads = threading.active_count()
    store: SQLiteStore | None = SQLiteStore(tmp_path / "a.db", **options)
    assert store is not None
    await store.open()
    await store.put(NS, "k", 1)
    await store.search(NS, "1")
    known = weakref.ref(store)
    store = None
    gc.collect()
    assert known() is None
    await until(lambda: threading.active_count() == threads and not open_files(tmp_path))
    async with SQLiteStore(tmp_path / "a.db") as again:
        assert await again.count(NS) == 1


DROPPER = """
import asyncio, gc, sys
import kvstore

async def main(path):
    for _ in range(3):
        store = await kvstore.open(path).open()
        await store.put(("n",), "k", 1)
        del store
        gc.collect()
    store = await kvstore.open(":memory:").open()
    await store.put(("n",), "k", 1)

asyncio.run(main(sys.argv[1]))
store = kvstore.KeyValueStore(sys.argv[1])
store.insert("k", 1)
del store
gc.collect()
store = kvstore.KeyValueStore(sys.argv[1])
store.insert("k", 2)
"""


def test_dropped_stores_make_no_noise(tmp_path: Path) -> None:
    """Neither as they go nor at the end of the program, even where each warning is an error."""
    done = python("-X", "dev", "-W", "error", "-c", DROPPER, tmp_path / "a.db")
    noise = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]
    assert (done.returncode, noise) == (0, [])
