"""Cancelled calls, crowded queues, foreign loops, forks and forgotten stores."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import waiting
from kvstore.sqlite import engine
from kvstore.sqlite.connection import connect

NAMESPACE = ("faults",)


async def test_a_cancelled_call_is_whole_or_absent(tmp_path: Path) -> None:
    chance = random.Random(5)
    async with kvstore.open(tmp_path / "store.db") as store:

        async def write(number: int) -> None:
            many = {f"{number}-{part}": "x" * chance.randrange(3000) for part in range(20)}
            await store.put_many(NAMESPACE, many)
            await store.increment(NAMESPACE, "count")

        tasks = []
        for number in range(600):
            tasks.append(asyncio.create_task(write(number)))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        finished = sum(outcome is None for outcome in outcomes)
        assert {type(outcome) for outcome in outcomes} == {type(None), asyncio.CancelledError}
        for number in range(600):
            assert await store.count(NAMESPACE, f"{number}-*") in (0, 20)
        counted = await store.get(NAMESPACE, "count")
        assert counted is not None
        assert counted.value >= finished
        await store.put(NAMESPACE, "later", 1)
        assert await store.get(NAMESPACE, "later")


async def test_cancelled_reads_disturb_no_other(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:
        await store.put_many(NAMESPACE, {str(n): n for n in range(200)})
        tasks = [asyncio.create_task(store.keys(NAMESPACE)) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(len(outcome) == 200 for outcome in outcomes[1::2])  # type: ignore[arg-type]
        assert len(await store.keys(NAMESPACE)) == 200


async def test_one_bad_write_fails_alone(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:
        await store.put(NAMESPACE, "text", "no number")
        calls = [store.put(NAMESPACE, str(n), n) for n in range(1000)]
        bad = store.increment(NAMESPACE, "text")
        stale = store.put(NAMESPACE, "text", 1, if_version=99)
        outcomes = await asyncio.gather(*calls, bad, stale, return_exceptions=True)
        assert isinstance(outcomes[-2], kvstore.ValueTypeError)
        assert isinstance(outcomes[-1], kvstore.ConflictError)
        assert all(isinstance(outcome, kvstore.Item) for outcome in outcomes[:-2])
        assert await store.count(NAMESPACE) == 1001


async def test_every_reader_sees_an_acknowledged_write(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:

        async def work(task: int) -> None:
            for number in range(50):
                written = await store.put((str(task),), "key", number)
                item = await store.get((str(task),), "key")
                assert item == written
                assert (await store.search((str(task),)))[0].value == number
                assert (await store.get_many((str(task),), ["key", "none"]))["key"].value == number

        await asyncio.gather(*(work(task) for task in range(20)))


async def test_a_waiting_producer_may_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_UNITS", 10)
    async with kvstore.open(tmp_path / "store.db") as store:
        tasks = [asyncio.create_task(store.put(NAMESPACE, str(n), n)) for n in range(300)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kept = {str(n) for n, task in enumerate(tasks) if not task.cancelled()}
        assert kept <= set(await store.keys(NAMESPACE))
        await store.put(NAMESPACE, "later", 1)


@pytest.mark.parametrize("target", ["file", "memory://"])
async def test_puts_with_texts_end_when_all_other_tasks_are_cancelled(
    tmp_path: Path, target: str
) -> None:
    async def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0, len(text)] for text in texts]

    place = tmp_path / "store.db" if target == "file" else target
    async with kvstore.open(place, index=kvstore.IndexConfig(embed)) as store:
        mine = {asyncio.create_task(store.put(NAMESPACE, str(n), f"text {n}")) for n in range(5)}
        here = asyncio.current_task()
        for _ in range(10):
            await asyncio.sleep(0)
            for task in asyncio.all_tasks() - mine - {here}:
                task.cancel()  # some of them before they have begun
        async with asyncio.timeout(20):
            found = await asyncio.gather(*mine, return_exceptions=True)
            assert all(isinstance(it, (kvstore.Item, kvstore.EmbeddingError)) for it in found)
            await asyncio.gather(*(store.put(NAMESPACE, f"{n}", f"later {n}") for n in range(5)))


async def test_close_finishes_what_was_accepted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await kvstore.open(path).open()
    tasks = [asyncio.create_task(store.put(NAMESPACE, str(n), "x" * 1000)) for n in range(500)]
    await asyncio.sleep(0)  # each call is under way
    await store.close()
    outcomes = await asyncio.gather(*tasks)
    assert len(outcomes) == 500
    assert len(asyncio.all_tasks()) == 1
    async with kvstore.open(path) as again:
        assert await again.count(NAMESPACE) == 500
    assert {file.name for file in tmp_path.iterdir()} == {"store.db"}  # no WAL is left behind


async def test_close_answers_the_reads_that_wait(tmp_path: Path) -> None:
    store = await kvstore.open(tmp_path / "store.db").open()
    await store.put_many(NAMESPACE, {str(n): n for n in range(100)})
    tasks = [asyncio.create_task(store.get(NAMESPACE, str(n))) for n in range(100)]
    await asyncio.sleep(0)  # each call is under way
    await store.close()
    items = await asyncio.gather(*tasks)
    assert [item and item.value for item in items] == list(range(100))


async def test_a_read_of_a_damaged_row_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await store.put_many(NAMESPACE, {str(n): n for n in range(20)})
    connection = connect(path, "rw")
    connection.execute("UPDATE items SET value = '77' WHERE key = '7'")
    connection.close()
    async with kvstore.open(path) as store:
        reads = (store.get(NAMESPACE, str(n)) for n in range(20))
        items = await asyncio.gather(*reads, return_exceptions=True)
    failed = items.pop(7)
    assert isinstance(failed, kvstore.StoreCorruptError)
    assert [getattr(item, "value", item) for item in items] == [*range(7), *range(8, 20)]


async def test_reads_go_to_a_thread_while_inline_work_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.pace, "SLOW_S", -1.0)  # every inline call counts as slow
    monkeypatch.setattr(engine.pace, "REST_S", (60.0, 60.0))
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await store.put_many(NAMESPACE, {str(n): n for n in range(50)})
        for _ in range(3):
            items = await asyncio.gather(*(store.get(NAMESPACE, str(n)) for n in range(60)))
            assert [item and item.value for item in items] == [*range(50), *[None] * 10]


async def test_reads_go_on_beside_writers_that_never_stop(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:
        reads = turns = 0

        async def write(number: int) -> None:
            nonlocal turns
            while reads < 200:
                await store.put(NAMESPACE, str(number), "x")
                turns += 1

        async def read() -> None:
            nonlocal reads
            while reads < 200:
                await store.get(NAMESPACE, "0")
                reads += 1

        writers = [write(number) for number in range(3)]
        readers = [read() for _ in range(10)]
        await asyncio.gather(*writers, *readers)
        assert turns < 1_000


async def test_a_call_that_outlives_the_store_is_told_so(tmp_path: Path) -> None:
    store = await kvstore.open(tmp_path / "store.db").open()
    await store.put(NAMESPACE, "a", 1)
    is_called, may_go_on = asyncio.Event(), asyncio.Event()

    async def change(value: int) -> int:
        is_called.set()
        await may_go_on.wait()
        return value + 1

    update = asyncio.create_task(store.update(NAMESPACE, "a", change))
    await is_called.wait()
    await store.close()
    may_go_on.set()
    with pytest.raises(kvstore.StoreClosedError):
        await update


@pytest.mark.parametrize("call", ["get", "put"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, StopIteration, ZeroDivisionError])
def test_what_a_clock_raises_stops_no_later_call(
    tmp_path: Path, call: str, error: type[BaseException]
) -> None:
    main, is_broken = threading.current_thread(), False

    def clock() -> float:
        nonlocal is_broken
        if is_broken and threading.current_thread() is main:
            is_broken = False
            raise error
        return 1e9

    async def several() -> list[Any]:
        calls = [getattr(store, call)(NAMESPACE, str(n), *args) for n in range(5)]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def break_in() -> None:
        nonlocal is_broken
        calls = asyncio.ensure_future(several())
        await asyncio.sleep(0)  # all of them wait for the next turn
        is_broken = True
        await calls
        is_broken = False  # where all work is done by threads, this one never asks

    store = kvstore.SQLiteStore(tmp_path / "store.db", clock=clock)
    args = (1,) if call == "put" else ()
    with asyncio.Runner() as runner:
        runner.run(store.open())
        runner.run(several())
        with suppress(KeyboardInterrupt):
            runner.get_loop().run_until_complete(break_in())
        assert len(runner.run(several())) == 5
        runner.run(store.put(NAMESPACE, "0", 2))
        item = runner.run(store.get(NAMESPACE, "0"))
        assert item is not None
        assert item.value == 2
        runner.run(store.close())


async def test_the_loop_goes_on_while_a_long_write_runs(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:
        await store.put(NAMESPACE, "seen", 1)
        long = asyncio.create_task(
            store.put_many(NAMESPACE, {str(n): "x" * 2000 for n in range(20_000)})
        )
        reads = 0
        while not long.done():
            assert await store.get(NAMESPACE, "seen")
            reads += 1
            await asyncio.sleep(0)
        await long
        assert reads > 100


async def test_another_loop_is_told_of_the_facade(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:

        def elsewhere() -> None:
            with pytest.raises(kvstore.WrongLoopError, match="KeyValueStore"):
                asyncio.run(_read(store))

        await asyncio.to_thread(elsewhere)
        assert await store.get(NAMESPACE, "a") is None


async def _read(store: kvstore.Store) -> None:
    await store.get(NAMESPACE, "a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_forked_child_gets_a_clear_error(tmp_path: Path) -> None:
    async with kvstore.open(tmp_path / "store.db") as store:
        await store.put(NAMESPACE, "a", 1)
        await asyncio.to_thread(_fork_and_use, store)
        await store.put(NAMESPACE, "a", 2)
        assert (item := await store.get(NAMESPACE, "a")) is not None
        assert item.value == 2


def _fork_and_use(store: kvstore.Store) -> None:
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_read(store))
        except kvstore.StoreClosedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
async def test_a_forked_child_opens_its_copy_anew_and_closes_it(tmp_path: Path) -> None:
    store = kvstore.SQLiteStore(tmp_path / "store.db")
    async with store:
        await store.put(NAMESPACE, "a", 1)
        puts = [asyncio.create_task(store.put(NAMESPACE, str(n), n)) for n in range(5)]
        await asyncio.sleep(0)
        assert store.backend.backlog.units > 0
        forking = threading.Thread(target=_fork_and_reopen, args=(store,))
        forking.start()
        forking.join()  # the loop stands still, and so the puts wait when the process is forked
        await asyncio.gather(*puts)
        assert sorted(await store.keys(NAMESPACE)) == ["0", "1", "2", "3", "4", "a", "child"]


def _fork_and_reopen(store: kvstore.Store) -> None:
    async def use() -> None:
        async with store:
            await store.put(NAMESPACE, "child", 1)

    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that hangs
        try:
            asyncio.run(use())
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_store_whose_loop_has_ended_is_let_go(tmp_path: Path) -> None:
    async def forget() -> None:
        store = kvstore.open(tmp_path / "store.db")
        await store.open()
        await store.put(NAMESPACE, "a", 1)

    before = threading.active_count()
    asyncio.run(forget())
    gc.collect()  # in silence: a warning would be an error here

    async def look() -> int:
        async with kvstore.open(tmp_path / "store.db") as store:
            return await store.count(NAMESPACE)

    assert asyncio.run(look()) == 1
    assert threading.active_count() <= before + 3
    assert sys.exc_info() == (None, None, None)
