"""`SyncStore`: what `Store` does, without await, over every kind of store."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import IndexConfig, InMemoryStore, KeyValueStore, SQLiteStore, Store, SyncStore
from kvstore.sqlite import driver
from kvstore.sync import (
    SyncLog,
    SyncPast,
    SyncQueue,
    SyncTransaction,
    SyncTransactionLog,
    SyncTransactionQueue,
    SyncWatch,
)

NS = ("n", "a")
Make = Callable[[], SyncStore]
# What is not for sync code, or is otherwise there.
OTHERS = {
    "open",
    "apply",
    "submit",
    "tell",
    "room",
    "find",
    "prepare_put",
    "blocking",
    "cross_fork",
}
OTHERS |= {"require_open", "require_writable", "prepare_append", "prepare_job", "renewed"}


def guest(path: Path) -> tuple[SyncStore, Callable[[], None]]:
    """Return a sync view of a store that is open on the loop of another thread."""
    loop, store = asyncio.new_event_loop(), SQLiteStore(path)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(store.open(), loop).result()

    def end() -> None:
        asyncio.run_coroutine_threadsafe(store.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    return SyncStore(store), end


@pytest.fixture(params=["file", "memory", "file with an index", "open elsewhere"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SyncStore]:
    path, end = tmp_path / "store.db", None
    match request.param:
        case "file":
            made = SyncStore(path)
        case "memory":
            made = SyncStore("memory://")
        case "file with an index":
            made = SyncStore(path, index=IndexConfig())
        case _:
            made, end = guest(path)
    yield made
    made.close()
    if end is not None:
        end()


def test_it_has_the_methods_of_a_store_with_the_same_arguments() -> None:
    def methods(cls: type) -> dict[str, Any]:
        return {
            name: [(each.name, each.kind, each.default) for each in signature.parameters.values()]
            for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_") and name not in OTHERS
            for signature in (inspect.signature(member),)
        }

    assert methods(SyncStore) == methods(Store)


def test_it_reads_and_writes(store: SyncStore) -> None:
    item = store.put(NS, "k", {"n": 1}, ttl=1000)
    assert store.get(NS, "k") == item
    assert [each.value for each in store.put_many(NS, {"a": 1, "b": 2})] == [1, 2]
    assert set(store.get_many(NS, ["a", "k", "none"])) == {"a", "k"}
    assert store.increment(NS, "count", 5) == 5
    assert store.append(NS, "list", 1, 2) == 2
    assert store.pop(NS, "list") == 1
    assert store.keys(NS, "[ab]") == ["a", "b"]
    assert store.count(("n",), subtree=True) == 5
    assert store.list_namespaces() == [NS]
    assert [each.key for each in store.search(NS, filter={"n": 1})] == ["k"]
    assert store.remove(NS, "[ab]") == 2
    assert store.delete(NS, "k")
    assert store.get(NS, "k") is None
    with pytest.raises(kvstore.ConflictError):
        store.put(NS, "list", 1, if_version=999)
    with pytest.raises(kvstore.InvalidNamespaceError):
        store.get("n", "k")
    assert store.check().ok
    assert store.stats().items == 2
    assert store.sweep() == 0


def test_a_scan_is_an_iterator(store: SyncStore) -> None:
    store.put_many(NS, {f"{n:04}": n for n in range(250)})
    assert [item.value for item in store.scan(NS, batch_size=7)] == list(range(250))
    items = store.scan()
    assert next(items).value == 0
    store.put(NS, "0001", "changed")
    store.put(NS, "object", {"n": 1})
    assert [item.key for item in store.scan(filter={"n": 1}, pattern="o*")] == ["object"]
    with pytest.raises(kvstore.InvalidPatternError):
        store.scan(pattern="[")


def test_a_watch_waits_for_the_next_change(store: SyncStore) -> None:
    with store.watch(NS) as changes, ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, changes)
        store.put(("other",), "k", 1)
        version = store.put(NS, "k", 1).version
        assert first.result(10).version == version
        store.delete(NS, "k")
        change = next(changes)
        assert (change.kind, change.key) == ("delete", "k")
        assert changes.version == change.version
    assert list(changes) == []
    with store.watch(since=version) as changes:
        assert next(changes).kind == "delete"


def test_a_function_may_use_the_store_meanwhile(store: SyncStore) -> None:
    store.put(NS, "k", 1)

    def double(value: int) -> int:
        store.put(NS, "seen", value)
        return value * 2

    assert store.update(NS, "k", double).value == 2
    assert store.update(NS, "new", lambda value: value, default=7).value == 7

    def transfer(tx: SyncTransaction) -> int:
        item = tx.get(NS, "k")
        assert item is not None
        if item.value < 10:  # another writer comes between, once
            store.put(NS, "k", 10)
        assert tx.put(NS, "to", item.value).value == item.value
        tx.delete(NS, "new")
        steps: list[Callable[[], object]] = [
            lambda: tx.log(("log",)).append("moved"),
            lambda: tx.queue(("jobs",)).put("tell"),
        ]
        assert [step() for step in steps] == [None, None]
        return int(item.value)

    assert store.transact(transfer) == 10
    assert {key: item.value for key, item in store.get_many(NS, ["to", "new"]).items()} == {
        "to": 10
    }
    with pytest.raises(ZeroDivisionError):
        store.transact(lambda tx: tx.put(NS, "k", 1 // 0))
    with pytest.raises(kvstore.InvalidArgumentError, match="function"):
        store.transact(5)  # type: ignore[arg-type]
    with pytest.raises(kvstore.InvalidArgumentError, match="function"):
        store.update(NS, "k", None)  # type: ignore[arg-type]
    with pytest.raises(kvstore.ConflictError, match="2 times"):
        store.transact(lambda tx: (tx.get(NS, "k"), store.increment(NS, "k")), attempts=2)


def test_items_in_bulk_and_their_progress(store: SyncStore, tmp_path: Path) -> None:
    store.put_many(NS, {f"{n:04}": n for n in range(2_500)})
    seen: list[tuple[int, int | None]] = []
    file = tmp_path / "items.jsonl"
    assert store.export_items(file, progress=lambda *told: seen.append(told)) == 2_500
    assert seen[-1] == (2_500, 2_500)
    assert store.import_items(file, on_conflict="skip", progress=lambda *_: None) == 0
    assert store.import_items(file) == 2_500

    def stop(done: int, total: int | None) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        store.export_items(file, progress=stop)
    store.backup(tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_size
    assert store.vacuum() >= 0


@pytest.mark.parametrize("kind", ["SyncStore", "with a loop"])
def test_vacuum_says_that_another_program_keeps_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.db"
    index = None if kind == "SyncStore" else IndexConfig()
    with SyncStore(SQLiteStore(path, busy_timeout=0, index=index)) as store:
        store.put(NS, "k", 1)
        other = driver.connect(f"file:{path}?mode=rw")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(kvstore.StoreBusyError):
            store.vacuum()
        other.execute("ROLLBACK")
        other.close()
        assert store.vacuum() >= 0


def test_threads_share_it(store: SyncStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.increment(NS, "n"), range(200)))
    assert store.increment(NS, "n", 0) == 200


async def test_inside_a_running_loop_too(tmp_path: Path) -> None:
    with SyncStore(tmp_path / "a.db") as store:
        store.put(NS, "k", 1)
        assert [item.value for item in store.scan()] == [1]
        seen: list[int] = []
        store.export_items(tmp_path / "x", progress=lambda done, _: seen.append(done))
        assert seen[-1] == 1  # told before the call returns
    async with InMemoryStore() as own:
        with pytest.raises(kvstore.WrongLoopError):
            SyncStore(own).get(NS, "k")


def test_it_closes_and_copies(tmp_path: Path) -> None:
    with SyncStore(tmp_path / "a.db", default_ttl=50) as store:
        store.put(NS, "k", 1)
        copied = pickle.loads(pickle.dumps(store))
        assert copied.get(NS, "k") == store.get(NS, "k")
        copied.close()
    for call in (lambda: store.get(NS, "k"), lambda: next(store.scan()), store.watch):
        with pytest.raises(kvstore.StoreClosedError):
            call()
    store.close()
    assert "a.db-wal" not in {path.name for path in tmp_path.iterdir()}


def test_options_are_for_what_it_opens(tmp_path: Path) -> None:
    with pytest.raises(kvstore.InvalidArgumentError, match="default_ttl"):
        SyncStore(InMemoryStore(), default_ttl=5)
    with SyncStore(tmp_path / "a.db"):
        pass
    with SyncStore(tmp_path / "a.db", read_only=True) as store:
        assert store.get(NS, "k") is None
        with pytest.raises(kvstore.ReadOnlyError):
            store.put(NS, "k", 1)


def test_a_thread_that_began_after_the_end_is_not_taken_for_the_stores_own() -> None:
    """The system gives the number of a thread that has ended to the next one."""
    for _ in range(5):
        store = SyncStore(InMemoryStore())
        store.put(NS, "k", 1)
        store.close()
        with ThreadPoolExecutor(1) as pool, pytest.raises(kvstore.StoreClosedError):
            pool.submit(store.get, NS, "k").result()


@pytest.mark.parametrize(
    ("method", "returns"),
    [
        (SyncStore.at, SyncPast),
        (SyncStore.watch, SyncWatch),
        (SyncStore.log, SyncLog),
        (SyncStore.queue, SyncQueue),
        (SyncStore.scan, "Iterator[Item]"),
        (SyncStore.update, "Item"),
        (SyncLog.read, "Iterator[Entry]"),
        (SyncLog.follow, "Iterator[Entry]"),
        (SyncTransaction.put, "Item"),
        (SyncTransaction.delete, "None"),
        (SyncTransaction.log, SyncTransactionLog),
        (SyncTransactionQueue.put, "None"),
        (KeyValueStore.log, SyncLog),
        (KeyValueStore.update, "Any"),
    ],
    ids=lambda given: getattr(given, "__qualname__", given),
)
def test_help_shows_what_code_that_does_not_await_gets(method: Any, returns: Any) -> None:
    assert inspect.signature(method).return_annotation == returns


def test_update_takes_its_function_in_any_place(store: SyncStore) -> None:
    update: Any = store.update
    assert update(NS, "k", lambda value: [value], default=1).value == [1]
    assert update(NS, "k", fn=lambda value: [value]).value == [[1]]
    assert update(fn=lambda value: [value], key="k", namespace=NS).value == [[[1]]]
    for args, options in (
        ((NS,), {}),
        ((NS, "k"), {}),
        ((NS, "k", len), {"fn": len}),
        ((NS, "k", len, 3), {}),
        ((NS, "k", len), {"other": 3}),
    ):
        with pytest.raises(TypeError):
            update(*args, **options)
