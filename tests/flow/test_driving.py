"""Sync code over an async store: threads, event loops, closing, exit and fork."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import KeyValueStore
from kvstore.embeddings import HashingEmbeddings
from kvstore.memory import InMemoryBackend
from kvstore.sqlite.direct import DirectBackend
from tests.flow.conftest import Make, open_elsewhere
from tests.running import python

ROOT = Path(kvstore.__file__).parents[1]


def program(text: str, *arguments: object) -> str:
    """Run a program in a process of its own, and return what it prints."""
    done = python("-W", "error", "-c", text, *map(str, arguments), env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# Where it may be called


async def test_it_works_inside_a_running_loop(make: Make) -> None:
    kv = make()
    kv.insert("a", 1)
    assert kv.retrieve("a") == 1
    assert kv.update("a", lambda value: value + 1) == 2
    with kv.run("r1"):
        kv.insert("$run.x", 1)
    assert kv.list_keys() == ["a"]


async def test_tasks_of_one_loop_have_runs_of_their_own(make: Make) -> None:
    kv = make()

    async def work(number: int) -> Any:
        with kv.run(f"r{number}"):
            kv.insert("$run.x", number)
            await asyncio.sleep(0)
            return kv.retrieve("$run.x")

    assert await asyncio.gather(*map(work, range(5))) == [0, 1, 2, 3, 4]


def test_threads_inherit_a_run_from_to_thread(make: Make) -> None:
    kv = make()

    async def main() -> Any:
        with kv.run("r1"):
            await asyncio.to_thread(kv.insert, "$run.x", 1)
            return kv.retrieve("$run.x")

    assert asyncio.run(main()) == 1


@pytest.mark.parametrize("backend", [kvstore.InMemoryStore, kvstore.SQLiteStore])
async def test_a_call_on_the_loop_of_its_own_store_is_refused(backend: Any, tmp_path: Path) -> None:
    store = backend(tmp_path / "a.db") if backend is kvstore.SQLiteStore else backend()
    async with store:
        kv = KeyValueStore(store)
        with pytest.raises(kvstore.WrongLoopError, match="AsyncKeyValueStore"):
            kv.insert("a", 1)
        await asyncio.to_thread(kv.insert, "a", 1)
        assert await asyncio.to_thread(kv.retrieve, "a") == 1
        with pytest.raises(kvstore.WrongLoopError):
            kv.retrieve("a")


def test_a_store_whose_loop_stands_still_is_refused() -> None:
    loop = asyncio.new_event_loop()
    store = kvstore.InMemoryStore()
    loop.run_until_complete(store.open())
    kv = KeyValueStore(store)
    with pytest.raises(kvstore.WrongLoopError, match="does not run"):
        kv.insert("a", 1)
    loop.run_until_complete(store.close())
    with pytest.raises(kvstore.StoreClosedError):
        kv.insert("a", 1)
    loop.close()


def test_a_call_ends_when_the_loop_of_its_store_does() -> None:
    begun = threading.Event()

    class Stuck(InMemoryBackend):
        async def apply(self, ops: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

    async def main(store: kvstore.Store, pool: ThreadPoolExecutor) -> Any:
        await store.open()
        waiting = pool.submit(KeyValueStore(store).insert, "a", 1)
        await asyncio.to_thread(begun.wait)
        return waiting

    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as pool:
        waiting = loop.run_until_complete(main(kvstore.Store(Stuck()), pool))
        with pytest.raises(kvstore.WrongLoopError, match="ended before"):
            waiting.result(timeout=10)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_a_store_of_another_kind_refuses_a_call_from_its_own_thread() -> None:
    class Calling(InMemoryBackend):
        async def apply(self, ops: Any) -> Any:
            kv.retrieve("a")
            return await super().apply(ops)

    kv = KeyValueStore(kvstore.Store(Calling()))
    with pytest.raises(kvstore.WrongLoopError):
        kv.insert("a", 1)
    kv.close()


def test_an_update_takes_a_plain_function(tmp_path: Path) -> None:
    async def later(value: Any) -> Any:
        await asyncio.sleep(0.001)
        return value

    async def at_once(value: Any) -> Any:
        return 5

    with KeyValueStore(tmp_path / "a.db") as kv:
        assert kv.update("a", at_once) == 5
        with pytest.raises((kvstore.InvalidArgumentError, RuntimeError)):
            kv.update("a", later)
        assert kv.retrieve("a") == 5


def test_threads_see_what_others_have_written(make: Make) -> None:
    kv = make()
    seen: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        for number in range(100):
            kv.insert("n", number)
            seen.append(pool.submit(kv.retrieve, "n").result())
    assert seen == list(range(100))


# Opening and closing


@pytest.fixture(params=["file", "memory"])
def closed(request: pytest.FixtureRequest, tmp_path: Path) -> KeyValueStore:
    kv = KeyValueStore(tmp_path / "a.db" if request.param == "file" else "memory://")
    kv.insert("a", 1)
    kv.close()
    return kv


def test_a_closed_store_is_refused(closed: KeyValueStore) -> None:
    for call in (
        lambda: closed.insert("a", 1),
        lambda: closed.retrieve("a"),
        closed.list_keys,
        lambda: closed.scoped(session="s1").remove("*"),
        lambda: closed.update("a", lambda value: value),
        closed.list_entities,
    ):
        with pytest.raises(kvstore.StoreClosedError):
            call()
    closed.close()


def test_a_with_block_closes(tmp_path: Path) -> None:
    with KeyValueStore(tmp_path / "a.db") as kv:
        kv.insert("a", 1)
    with pytest.raises(kvstore.StoreClosedError):
        kv.retrieve("a")


def test_closing_finishes_what_has_begun() -> None:
    begun = threading.Event()

    class Slow(InMemoryBackend):
        async def apply(self, ops: Any) -> Any:
            begun.set()
            for _ in range(100):
                await asyncio.sleep(0)
            return await super().apply(ops)

    store = kvstore.Store(Slow())
    kv = KeyValueStore(store)
    with ThreadPoolExecutor(1) as pool:
        insert = pool.submit(kv.insert, "a", 1)
        begun.wait()
        kv.close()
        insert.result()
    with KeyValueStore(store) as again:
        assert again.retrieve("a") == 1


@pytest.mark.parametrize("place", ["file", "memory"])
@pytest.mark.parametrize("wait", ["follow", "watch", "take", "jobs"])
def test_closing_ends_what_waits(place: str, wait: str, tmp_path: Path) -> None:
    begun = threading.Event()
    store = kvstore.SyncStore(tmp_path / "a.db" if place == "file" else "memory://")
    store.log(("log",)).append("a")

    def waiting() -> Any:
        if wait == "follow":
            for _ in store.log(("log",)).follow():
                begun.set()
        elif wait == "watch":
            with store.watch() as changes:
                begun.set()
                return next(changes)
        begun.set()
        queue = store.queue(("jobs",))
        return queue.take() if wait == "take" else next(queue.jobs())

    with ThreadPoolExecutor(2) as pool:
        waiter = pool.submit(waiting)
        begun.wait()
        pool.submit(store.close).result(timeout=10)
        with pytest.raises(kvstore.StoreClosedError):
            waiter.result(timeout=10)


def test_a_path_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(kvstore.StoreAccessError):
        KeyValueStore(tmp_path / "missing" / "a.db")
    (tmp_path / "text.db").write_text("no database at all, but a text " * 100)
    with pytest.raises(kvstore.StoreCorruptError):
        KeyValueStore(tmp_path / "text.db")
    with pytest.raises(kvstore.InvalidArgumentError):
        KeyValueStore("ftp://host/db")


def test_a_store_that_is_not_open_is_opened_with_its_options(tmp_path: Path) -> None:
    now = [1000.0]
    store = kvstore.SQLiteStore(tmp_path / "a.db", clock=lambda: now[0], max_value_bytes=100)
    with KeyValueStore(store) as kv:
        kv.insert("brief", 1, ttl=5)
        with pytest.raises(kvstore.ValueTooLargeError):
            kv.insert("long", "x" * 100)
        now[0] += 5
        assert not kv.exists("brief")


def test_a_file_in_memory(tmp_path: Path) -> None:
    with KeyValueStore(":memory:") as kv:
        kv.insert("a", 1)
        assert kv.list_keys() == ["a"]
    with KeyValueStore(":memory:") as kv:
        assert kv.list_keys() == []


def test_expired_rows_are_swept_behind_a_write(tmp_path: Path) -> None:
    now = [1000.0]
    store = kvstore.SQLiteStore(tmp_path / "a.db", clock=lambda: now[0], sweep_interval=1e-6)
    with KeyValueStore(store) as kv:
        kv.insert("brief", 1, ttl=5)
        now[0] += 10
        kv.insert("other", 1)

    async def rows() -> int:
        early = kvstore.SQLiteStore(tmp_path / "a.db", clock=lambda: 1000.0, sweep_interval=None)
        async with early as store:  # by this clock nothing has expired
            return await store.count((), subtree=True)

    assert asyncio.run(rows()) == 1


def test_a_search_index_in_the_file_stays_true(tmp_path: Path) -> None:
    async def found(query: str, reindex: bool = False) -> list[str]:
        index = kvstore.IndexConfig(HashingEmbeddings())
        async with kvstore.SQLiteStore(tmp_path / "a.db", index=index) as store:
            if reindex:
                await store.reindex()
            items = await store.search(("flow",), query, mode="text", subtree=True)
            semantic = await store.search(("flow",), query, mode="semantic", subtree=True)
            assert not items or items[0].key == semantic[0].key
            return [item.key for item in items]

    assert asyncio.run(found("tea")) == []
    with KeyValueStore(tmp_path / "a.db") as kv:
        kv.insert("drink", {"text": "green tea"})
    assert asyncio.run(found("tea", reindex=True)) == ["drink"]
    with KeyValueStore(tmp_path / "a.db") as kv:
        kv.insert("drink", {"text": "black coffee"})
        kv.insert("gone", {"text": "cold coffee"})
        kv.remove("gone")
    assert asyncio.run(found("tea")) == []
    assert asyncio.run(found("coffee", reindex=True)) == ["drink"]


@pytest.mark.parametrize("target", ["a.db", "memory://"])
def test_nothing_is_left_when_a_facade_is_forgotten(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(threading.enumerate())
    kv = KeyValueStore(target)
    kv.insert("a", 1)
    gone = weakref.ref(kv._runner)
    del kv
    gc.collect()
    assert gone() is None
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert set(threading.enumerate()) == before
    assert not Path("a.db-wal").exists()


def test_many_threads_leave_few_connections(tmp_path: Path) -> None:
    with KeyValueStore(tmp_path / "a.db") as kv:
        kv.insert("a", 1)
        for _ in range(20):
            with ThreadPoolExecutor(10) as pool:
                assert list(pool.map(lambda _: kv.retrieve("a"), range(30))) == [1] * 30
        assert isinstance(kv._runner.store.backend, DirectBackend)
        assert len(kv._runner.store.backend.idle) <= 8


_AT_EXIT = """
import sys, threading
from kvstore import KeyValueStore
import kvstore

kv = KeyValueStore({target})
kv.insert("a", 1)
print(kv.retrieve("a"))
thread = threading.Thread(target=lambda: kv.insert("b", 2))
thread.start()
"""


@pytest.mark.parametrize(
    "target",
    [
        "sys.argv[1]",
        "'memory://'",
        "kvstore.SQLiteStore(sys.argv[1], index=kvstore.IndexConfig())",
    ],
)
def test_it_closes_at_exit_without_help(target: str, tmp_path: Path) -> None:
    assert program(_AT_EXIT.format(target=target), tmp_path / "a.db") == "1\n"
    assert not (tmp_path / "a.db-wal").exists()


_GOES_ON = """
import sys
from kvstore import FlowScope, KeyValueStore

keyValueStore = KeyValueStore(sys.argv[1], scope=FlowScope(session="s1"))
print(keyValueStore.increment("visits"), keyValueStore.append("$session.seen", sys.argv[2]))
"""


def test_the_next_process_goes_on_where_this_one_stopped(tmp_path: Path) -> None:
    assert program(_GOES_ON, tmp_path / "a.db", "x") == "1 1\n"
    assert program(_GOES_ON, tmp_path / "a.db", "y") == "2 2\n"


_CROWD = """
import sys
from kvstore import KeyValueStore

keyValueStore = KeyValueStore(sys.argv[1])
for _ in range(100):
    keyValueStore.increment("visits")
    keyValueStore.update("seen", lambda seen: seen + 1, default=0)
"""


def test_counters_are_exact_across_processes(tmp_path: Path) -> None:
    KeyValueStore(tmp_path / "a.db").close()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: program(_CROWD, tmp_path / "a.db"), range(3)))
    with KeyValueStore(tmp_path / "a.db") as kv:
        assert (kv.retrieve("visits"), kv.retrieve("seen")) == (300, 300)


# Fork


_FORKS = """
import asyncio, os, sys, threading, warnings
import kvstore
from kvstore import KeyValueStore
from kvstore.embeddings import HashingEmbeddings

warnings.simplefilter("ignore", DeprecationWarning)  # to fork a process with threads

def check(kv, lives_on):
    kv.insert("a", 1)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        if lives_on:
            assert kv.retrieve("a") == 1
            threads = [threading.Thread(target=kv.increment, args=("a",)) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        else:
            for call in (lambda: kv.retrieve("a"), lambda: kv.insert("a", 2), kv.list_keys):
                try:
                    call()
                except kvstore.StoreClosedError as exc:
                    assert "fork" in str(exc), exc
                else:
                    os._exit(3)
            del call
        kv.close()
        del kv
        sys.exit(0)  # with all that happens at exit
    assert os.waitpid(pid, 0)[1] == 0
    assert kv.increment("a") == (6 if lives_on else 2)

which, path = sys.argv[1:]
if which == "file":
    check(KeyValueStore(path), True)
elif which == "indexed":
    store = kvstore.SQLiteStore(path, index=kvstore.IndexConfig(HashingEmbeddings()))
    check(KeyValueStore(store), True)
elif which == "memory":
    check(KeyValueStore("memory://"), False)
elif which == "file in memory":
    check(KeyValueStore(":memory:"), False)
else:
    store = kvstore.SQLiteStore(path)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(store.open(), loop).result()
    check(KeyValueStore(store), False)
    asyncio.run_coroutine_threadsafe(store.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
print("done")
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@needs_fork
@pytest.mark.parametrize("which", ["file", "indexed", "memory", "file in memory", "guest"])
def test_a_forked_child_opens_the_store_anew_or_is_refused(which: str, tmp_path: Path) -> None:
    assert program(_FORKS, which, tmp_path / "a.db") == "done\n"


_FORKS_AND_OPENS = """
import os, sys
from kvstore import KeyValueStore

path = sys.argv[1]
kv = KeyValueStore(path)
kv.insert("parent", 1)
ready, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    own = KeyValueStore(os.path.join(os.path.dirname(path), ".", os.path.basename(path)))
    own.insert("child", 1)
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    for number in range(50):
        own.insert(f"child-{number}", number)
    assert own.retrieve("parent") == 1
    os._exit(0)  # as if it was killed
os.read(ready[0], 1)
kv.insert("parent-2", 1)
assert kv.retrieve("child") == 1
kv.close()  # the parent's last connection, while the child goes on
os.write(go[1], b"x")
assert os.waitpid(pid, 0)[1] == 0
print(len(KeyValueStore(path).list_keys()))
"""


@needs_fork
def test_a_forked_child_may_open_the_file_anew_and_loses_nothing(tmp_path: Path) -> None:
    assert program(_FORKS_AND_OPENS, tmp_path / "a.db") == "53\n"


_FORKS_AT_WORK = """
import os, sys, threading, warnings
import kvstore
from kvstore import KeyValueStore

warnings.simplefilter("ignore", DeprecationWarning)  # to fork a process with threads

path = sys.argv[1]
kv = KeyValueStore(path)
forked = threading.Event()

def write():
    with kv._runner.store.backend._lock:
        kv._runner.store.backend._is_writing = True
        begun.set()
        forked.wait()
        kv._runner.store.backend._is_writing = False

begun = threading.Event()
threading.Thread(target=write).start()
begun.wait()
pid = os.fork()
if pid == 0:
    for call in (lambda: KeyValueStore(path), lambda: kv.retrieve("a")):
        try:
            call()
        except kvstore.StoreAccessError as exc:
            assert "spawn" in str(exc)
        else:
            os._exit(3)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
forked.set()
kv.insert("a", 1)
print("done")
"""


@needs_fork
def test_a_forked_child_is_refused_a_file_that_was_at_work(tmp_path: Path) -> None:
    assert program(_FORKS_AT_WORK, tmp_path / "a.db") == "done\n"


# Guests


@pytest.fixture
def borrowed(tmp_path: Path) -> Iterator[kvstore.Store]:
    with open_elsewhere(kvstore.SQLiteStore(tmp_path / "a.db")) as store:
        yield store


def test_a_guest_leaves_the_store_open(borrowed: kvstore.Store) -> None:
    with KeyValueStore(borrowed) as kv:
        kv.insert("a", 1)
    with pytest.raises(kvstore.StoreClosedError):
        kv.retrieve("a")
    assert KeyValueStore(borrowed).retrieve("a") == 1


def test_a_guest_passes_the_errors_on(borrowed: kvstore.Store) -> None:
    kv = KeyValueStore(borrowed)

    def late(value: Any) -> Any:
        raise TimeoutError("the caller's own")

    with pytest.raises(TimeoutError, match="the caller's own"):
        kv.update("a", late)
    with pytest.raises(kvstore.ValueEncodingError):
        kv.insert("a", {1, 2})
