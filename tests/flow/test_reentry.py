"""Calls in the middle of calls: finalizers, signal handlers, functions of `update`, two loops."""

from __future__ import annotations

import asyncio
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import KeyValueStore
from kvstore.embeddings import HashingEmbeddings
from tests.flow.conftest import Make, open_elsewhere
from tests.flow.test_driving import program

_FINALIZER = """
import gc, sys
import kvstore
from kvstore import KeyValueStore
from kvstore.embeddings import HashingEmbeddings

target, is_indexed = sys.argv[1], sys.argv[2] == "indexed"
index = kvstore.IndexConfig(HashingEmbeddings()) if is_indexed else None
kv = KeyValueStore(kvstore.open(target, index=index))
said = set()

class Session:
    def __init__(self):
        self.me = self  # a cycle, as callbacks make them

    def __del__(self):
        try:
            kv.insert("closed", True)
            kv.retrieve("closed")
            kv.list_keys()
        except kvstore.WrongLoopError as exc:
            said.add("refused")
        else:
            said.add("done")

gc.set_threshold(20)
for n in range(400):
    Session()
    kv.insert("last", {"n": n, "rows": [[] for _ in range(20)]})
gc.collect()
assert said <= {"done", "refused"} and said, said
assert kv.retrieve("last")["n"] == 399
kv.close()
print("over")
"""

_SIGNAL = """
import signal, sys, time
import kvstore
from kvstore import KeyValueStore

kv = KeyValueStore(sys.argv[1])
said = []

def stopping(*_):
    try:
        said.append(kv.increment("stopped") > 0)
    except kvstore.WrongLoopError:
        said.append(False)

signal.signal(signal.SIGALRM, stopping)
written = 0
for n in range(100):
    signal.setitimer(signal.ITIMER_REAL, 0.0007)
    until = time.monotonic() + 0.002
    while time.monotonic() < until:
        kv.increment("steps")
        written += 1
time.sleep(0.01)
assert said
assert kv.retrieve("steps") == written
assert kv.retrieve("stopped", 0) == sum(said)
kv.close()
print("over")
"""

_CLOSES = """
import os, signal, sys
from kvstore import KeyValueStore

kv = KeyValueStore(sys.argv[1])

def stopping(*_):
    kv.close()
    sys.exit(7)

signal.signal(signal.SIGALRM, stopping)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    while True:
        kv.increment("steps")
finally:
    print("over")
    sys.stdout.flush()
    os._exit(0)
"""

HAS_ALARMS = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers by signal")


@pytest.mark.parametrize("target", ["a.db plain", "a.db indexed", "memory:// plain"])
def test_a_finalizer_in_the_middle_of_a_call_works_or_is_refused(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program(_FINALIZER, *target.split()) == "over\n"


@HAS_ALARMS
@pytest.mark.parametrize("target", ["a.db", "memory://"])
def test_a_signal_handler_in_the_middle_of_a_call_works_or_is_refused(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program(_SIGNAL, target) == "over\n"


@HAS_ALARMS
@pytest.mark.parametrize("target", ["a.db", "memory://"])
def test_a_signal_handler_may_close(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert program(_CLOSES, target) == "over\n"


def test_the_function_of_an_update_is_called_on_the_callers_thread(make: Make) -> None:
    kv = make()
    threads = []

    def nested(value: Any) -> Any:
        threads.append(threading.current_thread())
        kv.insert("inner", 1)
        return (value or 0) + kv.update("inner", lambda inner: inner + 1)

    assert kv.update("outer", nested) == 2
    assert threads == [threading.current_thread()]


def test_updates_within_updates_on_many_threads_end(make: Make) -> None:
    kv, threads = make(), 40
    together = threading.Barrier(threads)

    def nested(value: Any) -> Any:
        together.wait(20)
        kv.increment("inner")
        return kv.update(f"inner-{threading.get_ident()}", lambda inner: 1)

    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(kv.update, f"outer-{n}", nested) for n in range(threads)]
        assert [each.result(timeout=30) for each in waiting] == [1] * threads
    assert kv.retrieve("inner") == threads


def test_an_error_of_the_function_of_an_update_comes_through(make: Make) -> None:
    kv = make()

    class OfTheUser(BaseException):
        pass

    def fails(value: Any) -> Any:
        raise OfTheUser

    for _ in range(2):
        with pytest.raises(OfTheUser):
            kv.update("a", fails)
    assert kv.list_keys() == []


def test_an_update_that_undoes_itself_gives_up(make: Make) -> None:
    kv, calls = make(), 0
    kv.insert("a", 0)

    def touches(value: int) -> int:
        nonlocal calls
        calls += 1
        kv.increment("a")
        return value

    with pytest.raises(kvstore.ConflictError, match="update met a conflict 3 times"):
        kv.update("a", touches, attempts=3)
    assert (calls, kv.retrieve("a")) == (3, 3)


async def test_a_guest_of_a_store_with_workers_is_refused_on_a_worker(tmp_path: Path) -> None:
    """What a finalizer meets that the collector runs on the thread of a connection."""
    with open_elsewhere(kvstore.SQLiteStore(tmp_path / "a.db")) as store:
        kv, refused = KeyValueStore(store), threading.Event()

        def call() -> None:
            try:
                kv.insert("a", 1)
            except kvstore.WrongLoopError:
                refused.set()

        assert isinstance(store, kvstore.SQLiteStore)
        store.backend._points._connection.post(call)
        assert await asyncio.to_thread(refused.wait, 10)


@pytest.mark.parametrize("is_indexed", [False, True])
def test_the_first_use_from_several_loops_at_once_opens_on_one(
    is_indexed: bool, tmp_path: Path
) -> None:
    index = kvstore.IndexConfig(HashingEmbeddings()) if is_indexed else None
    store = kvstore.SQLiteStore(tmp_path / "a.db", index=index)
    threads, outcomes = 6, []
    together, over = threading.Barrier(threads), threading.Barrier(threads)

    async def use() -> str:
        together.wait(10)
        try:
            await store.open()
        except kvstore.WrongLoopError as exc:
            over.wait(10)
            return str(exc)
        over.wait(10)
        await store.close()
        return "opened"

    def run() -> None:
        outcomes.append(asyncio.run(use()))

    workers = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert outcomes.count("opened") == 1
    assert sum("KeyValueStore" in outcome for outcome in outcomes) == threads - 1


def test_a_failed_opening_leaves_the_store_to_another_loop(tmp_path: Path) -> None:
    store = kvstore.SQLiteStore(tmp_path / "later" / "a.db")

    async def use() -> None:
        async with store:
            await store.put(("a",), "k", 1)

    with pytest.raises(kvstore.StoreError):
        asyncio.run(use())
    (tmp_path / "later").mkdir()
    asyncio.run(use())
    asyncio.run(use())
