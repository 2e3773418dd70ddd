"""The read cache alone, over a real WAL index, against commits of every kind and origin."""

from __future__ import annotations

import itertools
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore import SQLiteStore, SyncStore
from kvstore.sqlite import driver
from kvstore.sqlite.read_cache import ABSENT, HEADER_BYTES, Entry, ReadCache, commits, is_as_known

A, B, C = ("n/", "a"), ("n/", "b"), ("n/", "c")


def entry(number: int) -> Entry:
    return Entry(b"%d" % number, number, 0, 0, None)


class File:
    """A file in WAL mode, a connection to it, and its mapped index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = driver.connect(f"file:{path}")
        self.run("PRAGMA journal_mode = WAL")
        self.run("CREATE TABLE t (k TEXT PRIMARY KEY, v)")
        self.run("INSERT INTO t VALUES ('a', 1), ('b', 2)")
        self._descriptor = os.open(f"{path}-shm", os.O_RDONLY)
        self.index = mmap.mmap(self._descriptor, 2 * HEADER_BYTES, prot=mmap.PROT_READ)

    def run(self, statement: str) -> None:
        self.connection.execute(statement).fetchall()

    def close(self) -> None:
        self.connection.close()
        os.close(self._descriptor)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    it = File(tmp_path / "a.db")
    yield it
    it.close()


@pytest.fixture
def cache(file: File) -> ReadCache:
    it = ReadCache(file.index, 2**20)
    it.fill(it.header(), [(A, entry(1)), (B, entry(2)), (C, ABSENT)])
    return it


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Have threads take turns often: one that only looks would keep the others waiting."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def elsewhere(file: File, *statements: str) -> None:
    """Run statements in another process, with the stock sqlite3."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for statement in sys.argv[2:]: c.execute(statement).fetchall()"
    )
    subprocess.run([sys.executable, "-c", program, str(file.path), *statements], check=True)


def test_it_answers_what_was_read_until_somebody_commits(file: File, cache: ReadCache) -> None:
    assert cache.find(*A) == entry(1)
    assert cache.find(*C) is ABSENT
    assert cache.find("n/", "d") is None
    assert cache.hits == 2
    elsewhere(file, "UPDATE t SET v = 7")
    assert cache.find(*A) is None


@pytest.mark.parametrize(
    "statements",
    [
        ("INSERT INTO t VALUES ('x', 1)",),
        ("BEGIN", "UPDATE t SET v = 0", "COMMIT"),
        ("DELETE FROM t",),
        ("CREATE TABLE u (x)",),
        ("PRAGMA user_version = 7",),
        ("VACUUM",),
        ("PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE t SET v = 9"),
        ("PRAGMA wal_checkpoint(RESTART)", "UPDATE t SET v = 9", "UPDATE t SET v = 1"),
    ],
)
@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_whatever_commits_makes_it_read_anew(
    file: File, cache: ReadCache, statements: tuple[str, ...], is_elsewhere: bool
) -> None:
    if is_elsewhere:
        elsewhere(file, *statements)
    else:
        for statement in statements:
            file.run(statement)
    assert cache.find(*A) is None


@pytest.mark.parametrize(
    "statements",
    [
        ("BEGIN IMMEDIATE", "UPDATE t SET v = 9", "ROLLBACK"),
        ("BEGIN IMMEDIATE", "COMMIT"),
        ("SELECT * FROM t",),
        ("PRAGMA wal_checkpoint(PASSIVE)",),
    ],
)
def test_what_changes_nothing_costs_nothing(
    file: File, cache: ReadCache, statements: tuple[str, ...]
) -> None:
    for statement in statements:
        file.run(statement)
    assert cache.find(*A) == entry(1)


def test_what_was_read_while_somebody_committed_is_not_kept(file: File, cache: ReadCache) -> None:
    before = cache.header()
    file.run("UPDATE t SET v = 7")
    cache.fill(before, [(A, entry(1))])
    assert cache.find(*A) is None
    cache.fill(cache.header(), [(A, entry(7))])
    assert cache.find(*A) == entry(7)
    assert cache.find(*B) is None  # of the state before


def test_it_goes_along_with_a_commit_of_ours(file: File, cache: ReadCache) -> None:
    file.run("BEGIN IMMEDIATE")
    before = cache.header()
    file.run("UPDATE t SET v = 9 WHERE k = 'a'")
    file.run("COMMIT")
    cache.follow(before, {A: entry(9)})
    assert cache.find(*A) == entry(9)
    assert cache.find(*B) == entry(2)


def test_it_does_not_go_along_when_another_one_committed_too(file: File, cache: ReadCache) -> None:
    file.run("BEGIN IMMEDIATE")
    before = cache.header()
    file.run("UPDATE t SET v = 9 WHERE k = 'a'")
    file.run("COMMIT")
    elsewhere(file, "UPDATE t SET v = 8 WHERE k = 'b'")
    cache.follow(before, {A: entry(9)})
    assert cache.find(*A) is None
    assert cache.find(*B) is None


def test_it_does_not_go_along_with_what_it_does_not_know(file: File, cache: ReadCache) -> None:
    before = cache.header()
    file.run("DELETE FROM t")
    cache.follow(before, None)
    assert cache.find(*B) is None


def test_it_does_not_go_along_from_an_older_state(file: File, cache: ReadCache) -> None:
    file.run("UPDATE t SET v = 5 WHERE k = 'b'")  # unknown to the cache
    before = cache.header()
    file.run("UPDATE t SET v = 9 WHERE k = 'a'")
    cache.follow(before, {A: entry(9)})
    assert cache.find(*B) is None


def test_the_log_begins_anew_under_a_commit_of_ours(file: File, cache: ReadCache) -> None:
    file.run("PRAGMA wal_checkpoint(PASSIVE)")
    before = cache.header()
    file.run("UPDATE t SET v = 9 WHERE k = 'a'")
    cache.follow(before, {A: entry(9)})
    assert cache.find(*A) == entry(9)


def test_it_stays_within_its_budget_and_drops_the_oldest(file: File) -> None:
    cache = ReadCache(file.index, 10_000)
    header = cache.header()
    for at in range(100):
        cache.fill(header, [(("n/", f"{at}"), entry(at))])
        assert cache.size <= 10_000
    assert cache.find("n/", "0") is None
    assert cache.find("n/", "99") == entry(99)
    cache.fill(header, [(("n/", "long"), Entry(b"x" * 5_000, 1, 0, 0, None))])
    assert cache.find("n/", "long") is None
    assert cache.find("n/", "99") == entry(99)
    for _ in range(3):
        cache.fill(header, [(("n/", "99"), entry(99))])
    before = cache.size
    cache.fill(header, [(("n/", "99"), entry(99))])
    assert cache.size == before


def test_it_knows_the_layout_of_the_index(file: File) -> None:
    def page_count() -> int:
        return int(file.connection.execute("PRAGMA page_count").fetchone()[0])

    assert is_as_known(file.index, page_count)
    for statement in ("UPDATE t SET v = 0", "PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"):
        file.run(statement)
        assert is_as_known(file.index, page_count)
    assert not is_as_known(file.index, lambda: page_count() + 1)
    for at in range(2 * HEADER_BYTES):
        other = bytearray(file.index[: 2 * HEADER_BYTES])
        other[at] ^= 1
        assert not is_as_known(bytes(other), page_count)


def test_the_header_of_a_log_that_is_new_is_known(file: File, tmp_path: Path) -> None:
    file.run("PRAGMA wal_checkpoint(TRUNCATE)")
    file.connection.close()  # the last one takes log and index away
    file.connection = driver.connect(f"file:{file.path}")

    def page_count() -> int:
        return int(file.connection.execute("PRAGMA page_count").fetchone()[0])

    page_count()
    with Path(f"{file.path}-shm").open("rb") as opened:
        new = opened.read(2 * HEADER_BYTES)
    assert new[16:24] == bytes(8)  # neither a frame, nor a page
    assert is_as_known(new, page_count)


@pytest.mark.parametrize("is_direct", [False, True])
async def test_a_file_that_is_opened_again_has_a_cache_from_the_beginning(
    tmp_path: Path, is_direct: bool
) -> None:
    for _ in range(3):
        if is_direct:
            with SyncStore(tmp_path / "store.db") as direct:
                direct.get(("a",), "k")
                hits = direct.metrics().cache_hits
                assert direct.get(("a",), "k") is None
                assert direct.metrics().cache_hits == hits + 1
            continue
        async with SQLiteStore(tmp_path / "store.db") as store:
            await store.get(("a",), "k")
            hits = store.metrics().cache_hits
            assert await store.get(("a",), "k") is None
            assert store.metrics().cache_hits == hits + 1


def test_a_commit_that_leaves_the_header_alone_ends_it(file: File, cache: ReadCache) -> None:
    before = cache.header()
    assert cache.follow(before, {}) == before
    assert cache.find(*A) == entry(1)
    assert cache.follow(before, {A: entry(2)}) is None
    assert cache.find(*A) is None
    cache.fill(before, [(A, entry(1))])
    assert cache.find(*A) is None


def test_another_layout_is_told() -> None:
    assert commits(b"") is None
    assert commits(bytes(HEADER_BYTES)) is None


def test_threads_that_fill_while_one_commits_never_see_what_was_replaced(
    file: File, quick_switches: None
) -> None:
    """Each reads a row and fills; the writer counts up and tells what is acknowledged."""
    cache = ReadCache(file.index, 2**20)
    acknowledged = 0
    is_over = threading.Event()
    wrong: list[tuple[int, int]] = []
    checked = 0

    def look() -> None:
        nonlocal checked
        connection = driver.connect(f"file:{file.path}?mode=ro")
        while not is_over.is_set():
            least = acknowledged
            found = cache.find(*A)
            if found is None:
                before = cache.header()
                ((value,),) = connection.execute("SELECT v FROM t WHERE k = 'a'").fetchall()
                cache.fill(before, [(A, entry(value))])
            else:
                checked += 1
                if found.version < least:
                    wrong.append((found.version, least))
        connection.close()

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in itertools.count(1):
        if number > 150 and checked > 100:  # however late the threads have begun
            break
        file.run("BEGIN IMMEDIATE")
        before = cache.header()
        file.run(f"UPDATE t SET v = {number} WHERE k = 'a'")
        file.run("COMMIT")
        if number % 3:
            cache.follow(before, {A: entry(number)})
        acknowledged = number
        if number % 50 == 0:
            file.run("PRAGMA wal_checkpoint(TRUNCATE)")
    is_over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
