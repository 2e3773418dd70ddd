"""Which files are opened, which are refused, and that a refused one is left as it was."""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore import (
    InvalidArgumentError,
    SchemaError,
    SQLiteStore,
    StoreAccessError,
    StoreCorruptError,
    StoreError,
)
from kvstore.namespace import decode_namespace
from kvstore.schema import scripts
from kvstore.sqlite import driver, migrate
from kvstore.sqlite.connection import connect
from kvstore.sqlite.reading import checksum
from tests.running import python

NS = ("users", "alice")
NEWEST = len(migrate.steps())


def run(script: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a script in another process."""
    return python("-W", "error", "-c", textwrap.dedent(script), *map(str, args))


def written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


async def make_store(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.put(NS, "k", {"a": 1})


# Refused, and left as they were


def text_file(path: Path) -> None:
    path.write_text("some notes that somebody wrote, and would like to keep\n")


def short_text_file(path: Path) -> None:
    path.write_text("x")


def header_alone(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def header_and_nonsense(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 32)


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link_to_a_device(path: Path) -> None:
    path.symlink_to(os.devnull)


def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, path TEXT, key TEXT)")
        connection.execute("INSERT INTO items (path, key) VALUES ('p', 'k')")
    connection.close()


def foreign_database_in_wal_mode(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE notes (text)")
    connection.close()


def foreign_application(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 252006673")
        connection.execute("PRAGMA user_version = 1")
    connection.close()


def newer_store(path: Path) -> None:
    connection = connect(path, "rwc")
    migrate.migrate(connection, path, 1.0)
    connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    connection.close()


def newer_store_in_wal_mode(path: Path) -> None:
    newer_store(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


REFUSED: list[tuple[Callable[[Path], None], type[StoreError], str]] = [
    (text_file, StoreCorruptError, "not a database"),
    (short_text_file, StoreCorruptError, "not a database"),
    (header_alone, StoreCorruptError, "not a database|damaged"),
    (header_and_nonsense, StoreCorruptError, "not a database|damaged"),
    (Path.mkdir, StoreCorruptError, "is a directory"),
    (named_pipe, StoreCorruptError, "is a named pipe"),
    (listening_socket, StoreCorruptError, "is a socket"),
    (link_to_a_device, StoreCorruptError, "is a device"),
    (foreign_database, SchemaError, "another program"),
    (foreign_database_in_wal_mode, SchemaError, "another program"),
    (foreign_application, SchemaError, "another program"),
    (newer_store, SchemaError, "newer version of kvstore.*upgrade"),
    (newer_store_in_wal_mode, SchemaError, "newer version of kvstore.*upgrade"),
]


@pytest.mark.parametrize(
    ("make", "error", "said"), REFUSED, ids=[make.__name__ for make, *_ in REFUSED]
)
async def test_a_file_that_is_not_ours_is_refused_and_untouched(
    tmp_path: Path, make: Callable[[Path], None], error: type[StoreError], said: str
) -> None:
    path = tmp_path / "file.db"
    make(path)
    before = written(tmp_path)
    changed_at = path.stat().st_mtime_ns
    store = SQLiteStore(path)
    for _ in range(2):
        with pytest.raises(error, match=said) as refusal:
            await store.open()
        assert str(path.resolve()) in str(refusal.value)
        assert written(tmp_path) == before
        assert path.stat().st_mtime_ns == changed_at
    await store.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreAccessError, match="missing"):
        await SQLiteStore(tmp_path / "missing" / "file.db").open()
    with pytest.raises(OSError, match="missing"):
        await SQLiteStore(tmp_path / "missing" / "file.db").open()
    assert list(tmp_path.iterdir()) == []


async def test_a_file_for_a_directory_is_refused(tmp_path: Path) -> None:
    text_file(tmp_path / "notes")
    with pytest.raises(StoreError):
        await SQLiteStore(tmp_path / "notes" / "file.db").open()


async def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "missing" / "file.db")
    with pytest.raises(StoreAccessError):
        await SQLiteStore(tmp_path / "link.db").open()


# As an ordinary user, whom permissions bind.
OPEN_AS_NOBODY = """
    import asyncio, os, sys
    import kvstore

    async def use(path):
        async with kvstore.SQLiteStore(path) as store:
            await store.put(("a",), "k", 1)

    asyncio.run(use(":memory:"))  # imports all that is imported late, while it can be read
    asyncio.run(asyncio.to_thread(len, ""))
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        asyncio.run(use(sys.argv[1]))
    except kvstore.StoreError as exc:
        print(type(exc).__name__, exc)
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that others may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions as POSIX has them")
@pytest.mark.parametrize("what", ["file", "directory", "new file", "unreadable file"])
async def test_what_is_read_only_is_refused_by_name(public: Path, what: str) -> None:
    folder = public / "folder"
    folder.mkdir()
    path = folder / "store.db"
    if what != "new file":
        await make_store(path)
        path.chmod({"file": 0o444, "directory": 0o666, "unreadable file": 0o000}[what])
    folder.chmod(0o777 if what in ("file", "unreadable file") else 0o555)
    before = written(folder)
    try:
        done = run(OPEN_AS_NOBODY, path)
    finally:
        folder.chmod(0o755)
    error = "ReadOnlyError" if what in ("file", "directory") else "StoreAccessError"
    assert done.stdout.startswith(error), done.stdout + done.stderr
    assert str(path) in done.stdout
    assert written(folder) == before


# Opened


@pytest.mark.parametrize(
    "name",
    [
        *("a b.db", "a?mode=ro.db", "a#b.db", "100%25.db", "%41.db", "ü🙂.db", "'\".db", "a:b.db"),
        *("file:x", "-x", "no-ending", "a&b=c.db", "a\nb.db", "\\.db"),
    ],
    ids=ascii,
)
async def test_any_file_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    await make_store(path)
    async with SQLiteStore(path) as store:
        assert await store.keys(NS) == ["k"]
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(sys.platform == "win32", reason="names of bytes as POSIX has them")
@pytest.mark.parametrize("as_bytes", [True, False])
async def test_a_name_that_is_no_utf8_is_a_file_name(tmp_path: Path, as_bytes: bool) -> None:
    name = os.fsencode(tmp_path) + b"/r\xe9sum\xe9?#%41.db"
    for _ in range(2):
        async with SQLiteStore(name if as_bytes else os.fsdecode(name)) as store:
            await store.put(NS, "k", 1)
            await store.backup(name + b".copy")
    names = sorted(os.fsencode(file.name) for file in tmp_path.iterdir())
    assert names == [b"r\xe9sum\xe9?#%41.db", b"r\xe9sum\xe9?#%41.db.copy"]


@pytest.mark.parametrize(
    ("path", "said"), [("", "is empty"), ("a\0b", "NUL"), (b"a\0b", "NUL"), (5, "not int")]
)
def test_what_can_be_no_name_is_refused(path: Any, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        SQLiteStore(path)


async def test_links_in_a_circle_and_names_too_long_are_refused(tmp_path: Path) -> None:
    (tmp_path / "circle.db").symlink_to("circle.db")
    for path, said in [
        (tmp_path / "circle.db", "circle"),
        (tmp_path / ("x" * 300), "too long"),
        (tmp_path.joinpath(*["d" * 100] * 6) / "x.db", "504 bytes"),
    ]:
        if said == "504 bytes":
            path.parent.mkdir(parents=True)
        with pytest.raises(StoreAccessError, match=said):
            await SQLiteStore(path).open()


async def test_a_relative_path_and_a_str_are_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with SQLiteStore("store.db") as store:
        monkeypatch.chdir("/")
        await store.put(NS, "k", 1)
        await store.search(NS)
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    await make_store(tmp_path / "store.db")
    async with SQLiteStore(tmp_path / "store.db") as store:
        assert await store.keys(NS) == ["k"]


async def test_a_file_that_a_power_loss_left_half_made_is_begun_anew(tmp_path: Path) -> None:
    """Its first page was torn; the journal beside it says that there was nothing before."""
    path = tmp_path / "store.db"
    path.write_bytes(bytes(4096))
    head = struct.pack(">8sIIIII", bytes.fromhex("d9d505f920a163d7"), 0, 1, 0, 512, 4096)
    journal = tmp_path / "store.db-journal"
    journal.write_bytes(head.ljust(512, b"\0"))
    async with SQLiteStore(path) as store:
        await store.put(NS, "key", 1)
        assert (await store.check()).ok
    assert not journal.exists()
    path.write_bytes(bytes(4096))
    journal.write_bytes(b"notes".ljust(512))
    with pytest.raises(StoreCorruptError, match="not a database"):
        await SQLiteStore(path).open()


async def test_a_temporary_store_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    async with SQLiteStore(":memory:") as store, SQLiteStore(":memory:") as other:
        await store.put(NS, "k", 1)
        assert await store.keys(NS) == ["k"]
        assert await other.keys(NS) == []
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []


async def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    await make_store(tmp_path / "store.db")
    assert [file.name for file in tmp_path.iterdir()] == ["store.db"]


async def test_two_stores_over_one_file_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as one, SQLiteStore(path) as other:
        first = await one.put(NS, "k", 1)
        assert await other.get(NS, "k") == first
        second = await other.put(NS, "k", 2, if_version=first.version)
        assert second.version > first.version
        assert await one.get(NS, "k") == second
        assert await one.increment(NS, "n") == 1
        assert await other.increment(NS, "n") == 2


async def test_swept_items_leave_the_table(tmp_path: Path) -> None:
    now = 1_750_000_000.0
    path = tmp_path / "store.db"
    async with SQLiteStore(path, clock=lambda: now, sweep_interval=None) as store:
        await store.put_many(NS, {f"{n}": n for n in range(700)}, ttl=10)
        await store.put(NS, "left", 1)
        now += 10
        assert await store.sweep() == 700
    connection = connect(path, "ro")
    assert connection.execute("SELECT key FROM items").fetchall() == [("left",)]
    connection.close()


@pytest.mark.parametrize(
    ("change", "is_consistent"),
    [
        ("value = 'not json'", False),
        ("value = '{\"a\":2}'", False),
        ("value = ''", False),
        ("version = 99", False),
        ("checksum = 0", False),
        ("key = 'other key', path = 'other' || char(9)", False),
        ("value = 'not json'", True),
        ("value = '{\"$bytes\":5}'", True),
        ("value = '[1'", True),
    ],
)
async def test_a_row_that_was_tampered_with_is_an_error_until_it_is_put_anew(
    tmp_path: Path, change: str, is_consistent: bool
) -> None:
    path = tmp_path / "store.db"
    await make_store(path)
    connection = connect(path, "rw")
    connection.execute(f"UPDATE items SET {change}")
    row = connection.execute("SELECT path, key, version, CAST(value AS BLOB) FROM items").fetchone()
    if is_consistent:
        connection.execute("UPDATE items SET checksum = ?", (checksum(*row),))
    connection.close()
    namespace, key = decode_namespace(row[0]), row[1]
    async with SQLiteStore(path) as store:
        for call in (
            lambda: store.get(namespace, key),
            lambda: store.get_many(namespace, [key, "other"]),
            lambda: store.search(namespace),
            lambda: store.append(namespace, key),
            lambda: store.update(namespace, key, lambda value: value),
            lambda: store.transact(lambda tx: tx.get(namespace, key)),
            lambda: anext(store.scan()),
        ):
            with pytest.raises(StoreCorruptError):
                await call()
        assert await store.keys(namespace) == [key]
        await store.put(namespace, key, "anew")
        assert await store.search(namespace) == [await store.get(namespace, key)]


# Migrations


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = [script.number for script in scripts("sqlite")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(migrate.steps())


def test_scripts_are_split_into_statements() -> None:
    script = "-- a; b\nCREATE TABLE t (a,\n b); -- c;\n\nINSERT INTO t\nVALUES (';', 1);\n-- end\n"
    statements = migrate._statements(script)
    connection = driver.connect("file:split?mode=memory")
    for statement in statements:
        connection.execute(statement)
    assert connection.execute("SELECT * FROM t").fetchall() == [(";", 1)]
    connection.close()


def schema_of(path: Path) -> list[tuple[object, ...]]:
    connection = connect(path, "ro")
    try:
        return [
            *connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 2"),
            *connection.execute("PRAGMA user_version"),
            *connection.execute("PRAGMA application_id"),
        ]
    finally:
        connection.close()


@pytest.mark.parametrize("number", range(NEWEST + 1))
async def test_a_file_of_each_earlier_schema_is_brought_to_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    if number:
        with monkeypatch.context() as patch:
            steps = migrate.steps()[:number]
            patch.setattr(migrate, "steps", lambda: steps)
            connection = connect(old, "rwc")
            migrate.migrate(connection, old, 1.0)
            connection.close()
    await make_store(old)
    await make_store(new)
    assert schema_of(old) == schema_of(new)


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    await make_store(path)
    before = schema_of(path)
    bad = "CREATE TABLE more (a)", "INSERT INTO nowhere VALUES (1)"
    steps = (*migrate.steps(), bad)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "steps", lambda: steps)
        with pytest.raises(StoreError):
            await SQLiteStore(path).open()
    assert schema_of(path) == before
    async with SQLiteStore(path) as store:
        assert await store.keys(NS) == ["k"]


OPEN_TOGETHER = """
    import asyncio, sys
    import kvstore

    async def main():
        print("ready", flush=True)
        for path in sys.stdin:
            async with kvstore.SQLiteStore(path.strip()) as store:
                await store.put(("by",), sys.argv[1], 1)
            print("done", flush=True)

    asyncio.run(main())
"""


@pytest.mark.slow
def test_processes_that_open_a_new_file_at_once_all_succeed(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(OPEN_TOGETHER), f"{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for n in range(25):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{tmp_path / f'{n}.db'}\n")
            for process in processes:
                assert process.stdin is not None
                process.stdin.flush()
            for process in processes:
                assert process.stdout is not None
                if process.stdout.readline() != "done\n":
                    pytest.fail(process.communicate(timeout=60)[1])
    finally:
        for process in processes:
            process.communicate(timeout=60)
    for n in range(25):
        connection = connect(tmp_path / f"{n}.db", "ro")
        keys = connection.execute("SELECT key FROM items ORDER BY key").fetchall()
        connection.close()
        assert keys == [("0",), ("1",), ("2",), ("3",)]
