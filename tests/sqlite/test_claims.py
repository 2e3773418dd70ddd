"""A transaction stays alone with the log, also when its own process has lost all of SQLite's locks.

Any library that closes the file drops them (see `kvstore.sqlite.guard`); `look` does so here.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path

import pytest

import kvstore
from kvstore import KeyValueStore, SQLiteStore
from kvstore.sqlite import driver
from kvstore.sqlite.connection import claimed, connect, transaction
from kvstore.sqlite.file import FileBackend
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.locks import CAN_LOCK
from kvstore.sqlite.openfile import OpenFile
from tests.sqlite.test_locks import look, needs_two_libraries

pytestmark = pytest.mark.skipif(not CAN_LOCK, reason="this system has no locks of descriptions")
NS = ("a", "b")
WRITE = "UPDATE meta SET value = value + 1 WHERE name = 'version'"
_COUNT_AT = 8  # of commits, in the index's header


class Writer:
    """A writer of its own on a file, in this process: what a store begins its transactions with."""

    def __init__(self, path: Path) -> None:
        self._hold = Hold(path)
        assert self._hold.lock(1.0)
        self.file = OpenFile(self._hold)
        self.connection = connect(path, "rw")

    def version(self) -> int:
        row = self.connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        return int(row[0])

    def close(self) -> None:
        self._hold.give_up()
        self.connection.close()
        self.file.close()
        self._hold.end()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    facade = KeyValueStore(tmp_path / "store.db")
    facade.insert("k", 1)
    yield tmp_path / "store.db"
    facade.close()


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    it = Writer(path)
    yield it
    it.close()


def elsewhere(path: Path, *statements: str) -> str:
    """Run statements in another process, with the stock sqlite3; return what the last one gives."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0.1, isolation_level=None)\n"
        "try:\n"
        "    for statement in sys.argv[2:]: rows = c.execute(statement).fetchall()\n"
        "    print(rows)\n"
        "except sqlite3.OperationalError as exc: print(exc)"
    )
    command = [sys.executable, "-c", program, str(path), *statements]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def half_written(path: Path) -> Iterator[None]:
    """Have the index look as while a commit is being written there."""
    descriptor = os.open(f"{path}-shm", os.O_RDWR)
    index = mmap(descriptor, 4096)
    before = index[_COUNT_AT]
    index[_COUNT_AT] = before ^ 0x55
    try:
        yield
    finally:
        if index[_COUNT_AT] == before ^ 0x55:
            index[_COUNT_AT] = before
        index.close()
        os.close(descriptor)  # which drops SQLite's locks, once more


@needs_two_libraries
@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_nobody_makes_a_checkpoint_under_a_transaction(
    path: Path, writer: Writer, mode: str
) -> None:
    begun = writer.version()
    with transaction(writer.connection, 1.0, writer.file):
        writer.connection.execute(WRITE)
        look(path)  # and SQLite's own lock is gone
        assert elsewhere(path, f"PRAGMA wal_checkpoint({mode})").startswith("[(1,")
    assert elsewhere(path, f"PRAGMA wal_checkpoint({mode})").startswith("[(0,")
    assert writer.version() == begun + 1


@needs_two_libraries
def test_nobody_rebuilds_the_index_under_a_transaction(path: Path, writer: Writer) -> None:
    begun = writer.version()
    with transaction(writer.connection, 1.0, writer.file):
        writer.connection.execute(WRITE)
        look(path)
        with half_written(path):
            assert elsewhere(path, "SELECT count(*) FROM items") == "database is locked"
            connection = sqlite3.connect(path, timeout=0.0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                connection.execute("SELECT count(*) FROM items")
            connection.close()
    assert writer.version() == begun + 1
    assert elsewhere(path, "SELECT count(*) FROM items") == "[(1,)]"


async def test_a_store_opens_and_reads_while_a_commit_is_being_written(
    path: Path, writer: Writer
) -> None:
    async def open_and_read() -> object:
        async with SQLiteStore(path) as store:
            item = await store.get(("flow", "project"), "k")
            return item and item.value

    with transaction(writer.connection, 1.0, writer.file):
        writer.connection.execute(WRITE)
        with half_written(path):
            reading = asyncio.create_task(open_and_read())
            await asyncio.sleep(1.2)  # it waits, as for another process that was stopped over it
            assert not reading.done()
    assert await reading == 1


async def test_an_index_that_a_kill_left_half_written_is_rebuilt(path: Path) -> None:
    async with SQLiteStore(path, busy_timeout=5) as store:
        with half_written(path):
            await store.put(NS, "k", 1)
    facade = KeyValueStore(SQLiteStore(path, busy_timeout=5))
    with half_written(path):
        facade.insert("l", 1)
    facade.close()
    assert elsewhere(path, "SELECT count(*) FROM items") == "[(3,)]"


@needs_two_libraries
def test_what_others_wrote_during_a_transaction_is_noticed(path: Path, writer: Writer) -> None:
    with transaction(writer.connection, 1.0, writer.file):
        writer.connection.execute(WRITE)  # so that the log does not begin anew with the next one
    begun = writer.version()

    def write_while_others_do() -> None:
        with transaction(writer.connection, 1.0, writer.file):
            writer.connection.execute(WRITE)
            look(path)
            elsewhere(path, WRITE, WRITE)

    with pytest.raises(kvstore.StoreBusyError, match="another program wrote to"):
        write_while_others_do()
    assert writer.version() == begun + 2
    with transaction(writer.connection, 1.0, writer.file):
        writer.connection.execute(WRITE)
    assert writer.version() == begun + 3
    assert elsewhere(path, "PRAGMA integrity_check") == "[('ok',)]"


def test_two_stores_of_a_process_do_not_share_a_claim(path: Path, writer: Writer) -> None:
    other = Writer(path)
    with transaction(writer.connection, 1.0, writer.file):
        with pytest.raises((driver.Error, kvstore.StoreBusyError)):
            transaction(other.connection, 0.0, other.file).__enter__()
        with pytest.raises(kvstore.StoreBusyError), claimed(other.file, 0.0, to_copy=True):
            pass
    with transaction(other.connection, 1.0, other.file):
        other.connection.execute(WRITE)
    other.close()


def test_the_log_of_a_facade_starts_over(path: Path) -> None:
    facade = KeyValueStore(path)
    longest = 0
    for number in range(1_500):
        facade.insert(f"{number % 50}", "x" * 3_000)
        longest = max(longest, Path(f"{path}-wal").stat().st_size)
    assert longest < 1_100 * (4096 + 24)
    facade.close()


def test_a_facade_that_opens_waits_for_an_index_that_is_being_rebuilt(
    path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def keep_half_written() -> None:
        with transaction(writer.connection, 1.0, writer.file), half_written(path):
            begun.set()
            time.sleep(0.2)

    open_cache = FileBackend.open_read_cache
    thread = threading.Thread(target=keep_half_written)

    def open_meanwhile(self: FileBackend, connection: driver.Connection) -> object:
        thread.start()
        begun.wait()
        return open_cache(self, connection)

    monkeypatch.setattr(FileBackend, "open_read_cache", open_meanwhile)
    facade = KeyValueStore(path)
    try:
        assert facade.retrieve("k") == 1
    finally:
        thread.join()
        facade.close()
