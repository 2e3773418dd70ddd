"""A file that is removed, renamed or replaced under an open store: no write is acknowledged."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import KeyValueStore, SQLiteStore, StoreReplacedError
from kvstore.sqlite import openfile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there, open files stay")
NS = ("a",)


def remove(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    for file in list(path.parent.iterdir()):
        file.unlink()


def rename(path: Path) -> None:
    path.rename(path.with_name("other.db"))


def rename_and_back_as_a_copy(path: Path) -> None:
    path.rename(path.with_name("other.db"))
    shutil.copy2(path.with_name("other.db"), path)


def replace(path: Path) -> None:
    KeyValueStore(path.with_name("other.db")).close()
    path.with_name("other.db").replace(path)


def remove_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def replace_log(path: Path) -> None:
    log = Path(f"{path}-wal")
    shutil.copy2(log, path.with_name("copy"))
    path.with_name("copy").replace(log)


def remove_index(path: Path) -> None:
    Path(f"{path}-shm").unlink()


def replace_index(path: Path) -> None:
    index = Path(f"{path}-shm")
    shutil.copy2(index, path.with_name("copy"))
    path.with_name("copy").replace(index)


def rename_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def rename_directory_above(path: Path) -> None:
    path.parent.parent.rename(path.parent.parent.with_name("elsewhere"))


def remove_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


ACTS = [
    *(remove, remove_all, rename, rename_and_back_as_a_copy, replace),
    *(remove_log, replace_log, remove_index, replace_index),
    *(rename_directory, remove_directory),
]


def cut_log(path: Path) -> None:
    os.truncate(f"{path}-wal", 0)


def cut_log_in_half(path: Path) -> None:
    os.truncate(f"{path}-wal", Path(f"{path}-wal").stat().st_size // 2)


def copy_backup_over(path: Path) -> None:
    shutil.copyfile(path.parent.with_name("backup.db"), path)


IN_PLACE = [cut_log, cut_log_in_half, copy_backup_over, rename_directory_above]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "above" / "data"
    folder.mkdir(parents=True)
    return folder / "store.db"


@contextmanager
def at_once(store: SQLiteStore) -> Iterator[None]:
    """Have the next read look at the file, as one does that comes later."""
    store.backend.opened.next_look = 0.0
    with pytest.raises(StoreReplacedError, match=r"no longer the file that was opened"):
        yield


async def filled(path: Path, **options: Any) -> SQLiteStore:
    store = await SQLiteStore(path, sweep_interval=None, **options).open()
    await store.put(NS, "before", 1)
    await store.backup(path.parent.with_name("backup.db"))
    return store


@pytest.mark.parametrize("durability", ["normal", "full"])
@pytest.mark.parametrize("is_settled", [True, False])
@pytest.mark.parametrize("act", ACTS, ids=[act.__name__ for act in ACTS])
async def test_the_next_write_is_refused(
    path: Path, act: Callable[[Path], None], durability: str, is_settled: bool
) -> None:
    store = await filled(path, durability=durability)
    if is_settled:
        time.sleep(0.06)
        await store.put(NS, "later", 1)
    act(path)
    with pytest.raises(StoreReplacedError, match=r"no longer the file that was opened"):
        await store.put(NS, "after", 1)
    with pytest.raises(StoreReplacedError):
        await store.put_many(NS, {str(number): number for number in range(300)})
    with at_once(store):
        await store.get(NS, "before")
    await store.close()
    await store.close()


@pytest.mark.parametrize("act", IN_PLACE, ids=[act.__name__ for act in IN_PLACE])
async def test_what_is_done_to_the_content_is_noticed_by_the_next_look(
    path: Path, act: Callable[[Path], None]
) -> None:
    store = await filled(path)
    act(path)
    for call in (
        lambda: store.put(NS, "after", 1),
        lambda: store.get(NS, "before"),
        lambda: store.search(NS),
        store.check,
        store.stats,
        store.vacuum,
    ):
        with at_once(store):
            await call()
    await store.close()


async def test_every_read_looks(path: Path) -> None:
    store = await filled(path)
    path.unlink()
    for call in (
        lambda: store.get(NS, "before"),
        lambda: store.get_many(NS, ["before"]),
        lambda: store.keys(NS),
        lambda: store.count(NS),
        lambda: store.search(NS),
        store.list_namespaces,
        store.stats,
        store.check,
        lambda: store.backup(path.with_name("backup.db")),
        store.vacuum,
    ):
        with at_once(store):
            await call()
    with at_once(store):
        await anext(aiter(store.scan()))
    await store.close()


async def test_reads_look_within_a_second(path: Path) -> None:
    assert openfile.LOOK_S < 1
    store = await filled(path)
    path.unlink()
    ends = time.monotonic() + 1

    with pytest.raises(StoreReplacedError):  # noqa: PT012 - by one of them, the last at the latest
        while True:
            is_over = time.monotonic() > ends
            await store.get(NS, "before")
            assert not is_over
    await store.close()


@pytest.mark.parametrize("act", ACTS, ids=[act.__name__ for act in ACTS])
def test_the_facade_is_refused_too(path: Path, act: Callable[[Path], None]) -> None:
    facade = KeyValueStore(path)
    facade.insert("before", 1)
    act(path)
    with pytest.raises(StoreReplacedError):
        facade.insert("after", 1)
    facade.close()


async def test_other_names_in_the_directory_change_nothing(path: Path) -> None:
    store = await filled(path)
    for number in range(20):
        neighbour = path.with_name(f"neighbour-{number}")
        neighbour.touch()
        await store.put(NS, str(number), number)
        neighbour.unlink()
        assert await store.get(NS, "before") is not None
    time.sleep(0.06)
    await store.put(NS, "settled", 1)
    async with kvstore.open(path) as other:
        await other.put(NS, "other", 1)
    await store.put(NS, "after", 1)
    await store.vacuum()
    await store.put(NS, "at the end", 1)
    await store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db"]


async def test_a_file_that_comes_back_is_used_again(path: Path) -> None:
    store = await filled(path)
    path.rename(path.with_name("other.db"))
    with pytest.raises(StoreReplacedError):
        await store.put(NS, "between", 1)
    path.with_name("other.db").rename(path)
    await store.put(NS, "after", 1)
    assert await store.keys(NS) == ["after", "before"]
    await store.close()


async def test_closing_takes_nothing_from_the_file_that_came_instead(path: Path) -> None:
    store = await filled(path)
    for file in list(path.parent.iterdir()):
        file.unlink()
    async with kvstore.open(path) as other:
        await other.put(NS, "theirs", 1)
        await store.close()
        assert Path(f"{path}-wal").exists()
        await other.put(NS, "theirs, too", 1)
        assert await other.keys(NS) == ["theirs", "theirs, too"]
    async with kvstore.open(path) as other:
        assert await other.keys(NS) == ["theirs", "theirs, too"]
        assert (await other.check()).ok


async def test_closing_a_renamed_file_leaves_its_log(path: Path) -> None:
    store = await filled(path)
    path.rename(path.with_name("other.db"))
    await store.close()
    path.with_name("other.db").rename(path)
    async with kvstore.open(path) as again:
        assert await again.keys(NS) == ["before"]
    assert [file.name for file in path.parent.iterdir()] == ["store.db"]
