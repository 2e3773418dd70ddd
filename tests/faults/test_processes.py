"""Kills, crowds and full disks, in child processes."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

import kvstore
from kvstore.sqlite import driver, statements
from tests.faults.programs import NAMESPACE

ROOT = Path(__file__).parents[2]
KILLS = 20


@contextmanager
def child(*args: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faults.programs", *map(str, args)]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def integrity(path: Path) -> str:
    connection = driver.connect(f"file:{path}?mode=rw")
    try:
        found: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()
    return found


@pytest.mark.slow
async def test_kill_minus_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: set[str] = set()
    counts = [0] * 8
    chance = random.Random(20)
    for run in range(KILLS):
        with child("write_for_ever", path, run) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(20, 400)):  # so the kill falls anywhere
                process.stdout.readline()
            process.kill()
            for line in process.stdout:  # what was still in the pipe was acknowledged, too
                if line.endswith("\n"):
                    match line.split():
                        case ["put", key]:
                            acknowledged.add(key)
                        case ["count", task_said, total_said]:
                            task = int(task_said)
                            counts[task] = max(counts[task], int(total_said))
        assert integrity(path) == "ok"
    async with kvstore.open(path) as store:
        keys = set(await store.keys(NAMESPACE))
        assert acknowledged, "the children never got to write"
        assert acknowledged <= keys
        for task, total in enumerate(counts):
            item = await store.get(NAMESPACE, f"count-{task}")
            assert (item.value if item else 0) >= total
        assert sum([1 async for _ in store.scan()]) == len(keys)  # every row's checksum holds


async def test_put_many_is_whole_or_absent_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for run in range(3):
        with child("write_for_ever", path, run) as process:
            assert process.stdout is not None
            for _ in range(500):
                process.stdout.readline()
    async with kvstore.open(path) as store:
        parts: dict[str, int] = {}
        for key in await store.keys(NAMESPACE, "*-*-*-*"):
            whole = key.rpartition("-")[0]
            parts[whole] = parts.get(whole, 0) + 1
    assert parts
    assert set(parts.values()) == {20}


@pytest.mark.slow
async def test_four_processes_of_eight_tasks_count_exactly(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await store.put(NAMESPACE, "shared", 0)
        command = [sys.executable, "-m", "tests.faults.programs", "count", str(path), "8", "50"]
        crowd = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
        assert [process.wait(timeout=120) for process in crowd] == [0] * 4
        item = await store.get(NAMESPACE, "shared")
        assert item is not None
        assert item.value == 4 * 8 * 50
        assert item.version > 4 * 8 * 50


async def test_a_file_that_may_not_grow_says_full_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with child("fill", path, 2 * 2**20) as process:
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    full, after = (line.split(maxsplit=2) for line in said.splitlines())
    assert full[0] == "full"
    assert int(full[1]) > 10
    assert integrity(path) == "ok"
    async with kvstore.open(path) as store:
        fillers = await store.count(NAMESPACE, "filler-*") + await store.count(NAMESPACE, "more-*")
        assert fillers == int(after[1])
        assert await store.get(NAMESPACE, "after")


@pytest.mark.slow
async def test_a_fast_producer_waits_for_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with child("produce", path) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert int(said) < 250 * 2**20  # of 500 MB; the queue holds 64 MiB
    async with kvstore.open(path) as store:
        assert await store.count(NAMESPACE) == 5_000


async def test_a_store_left_open_loses_nothing_and_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with child("leave_open", path) as process:
        said, _ = process.communicate(timeout=30)  # it ends by itself
    assert process.returncode == 0
    acknowledged = {line.split()[1] for line in said.splitlines() if line.startswith("put")}
    assert len(acknowledged) == 100
    async with kvstore.open(path) as store:
        assert acknowledged <= set(await store.keys(NAMESPACE))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", ["store.db", "link.db"])
async def test_a_forked_child_that_opens_anew_loses_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "store.db"
    path.touch()
    (tmp_path / "link.db").symlink_to(path)
    with child("fork", tmp_path / name) as process:
        process.communicate(timeout=30)
    assert process.returncode == 0
    async with kvstore.open(path) as store:
        assert await store.count(NAMESPACE) == 52


async def test_busy_only_past_the_timeout(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.SQLiteStore(path, busy_timeout=0.3) as store:
        await store.put(NAMESPACE, "a", 1)
        with child("hold_lock", path) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "locked\n"
            began = time.monotonic()
            with pytest.raises(kvstore.StoreBusyError, match="busy_timeout"):
                await store.put(NAMESPACE, "b", 2)
            assert time.monotonic() - began >= 0.3
            assert (item := await store.get(NAMESPACE, "a")) is not None  # reads are not in the way
            assert item.value == 1
            process.stdin.close()
            process.wait()
        await store.put(NAMESPACE, "b", 2)
        assert await store.count(NAMESPACE) == 2


async def test_the_loop_goes_on_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.SQLiteStore(path, busy_timeout=30) as store:
        await store.put(NAMESPACE, "a", 1)
        with child("hold_lock", path) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "locked\n"
            waiting = asyncio.create_task(store.put(NAMESPACE, "b", 2))
            for _ in range(50):  # SQLite's own waiting would stop the loop, and fail in the end
                await asyncio.sleep(0.005)
            assert not waiting.done()
            process.stdin.close()
            await waiting


async def test_a_transaction_that_fails_as_it_begins_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, is_broken = tmp_path / "store.db", False

    class Cursor(driver.Cursor):
        def execute(self, sql: str, *args: Any) -> Self:
            if is_broken and sql == statements.GET_VERSION:
                error = driver.Error("the disk cannot be read")
                error.sqlite_errorcode = 266  # SQLITE_IOERR_READ
                error.sqlite_errorname = "SQLITE_IOERR_READ"
                raise error
            super().execute(sql, *args)
            return self

    class Connection(driver.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, sql: str, *args: Any) -> Any:  # which not every driver sends that way
            return self.cursor().execute(sql, *args)

    async with kvstore.open(path) as store:
        await store.put(NAMESPACE, "before", 1)
    with monkeypatch.context() as patch:
        connect = driver.connect
        patch.setattr(driver, "connect", lambda uri: connect(uri, Connection))
        broken = await kvstore.open(path).open()
    async with kvstore.SQLiteStore(path, busy_timeout=0.0) as other:
        is_broken = True  # the log is empty: its first transaction notes the version before it
        with pytest.raises(kvstore.StoreAccessError):
            await broken.put(NAMESPACE, "a", 1)
        await other.put(NAMESPACE, "b", 2)
        is_broken = False
        await broken.put(NAMESPACE, "a", 1)
        assert await other.keys(NAMESPACE) == ["a", "b", "before"]
    await broken.close()
