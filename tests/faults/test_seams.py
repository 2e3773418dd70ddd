"""Every place where a driver's error becomes ours says what really happened.

Damage is said of what is damaged, and of nothing else: whoever reads it restores a backup.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import os
import resource
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore import StoreAccessError, StoreBusyError, StoreCorruptError, StoreError, StoreFullError
from kvstore.embeddings import HashingEmbeddings
from kvstore.sqlite import codes, driver
from kvstore.sqlite.connection import connect, is_unclear, translate
from kvstore.sqlite.guard import Hold
from kvstore.sqlite.large import LARGE
from kvstore.sqlite.migrate import check_file, migrate
from tests.running import python

NS = ("n",)
PACKAGE = Path(kvstore.__file__).parent
TRANSLATORS = {"translate", "translated", "explain"}


def seams(folder: Path) -> Iterator[str]:
    """Yield the functions of a backend in which a driver's error becomes one of ours."""
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            for node in ast.walk(function):
                named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                if named and node.func.id in TRANSLATORS:  # type: ignore[attr-defined]
                    yield f"{path.stem}.{function.name}"


Drive = Callable[[Path], Awaitable[object]]
SEAMS: dict[str, tuple[Drive, type[StoreError]]] = {}


def seam(name: str, error: type[StoreError]) -> Callable[[Drive], Drive]:
    """Register what drives a seam, and the error that is to come of it."""

    def register(drive: Drive) -> Drive:
        SEAMS[name] = (drive, error)
        return drive

    return register


async def make(path: Path) -> None:
    async with kvstore.open(path) as store:
        await store.put(NS, "k", {"a": "x" * 10_000})


def run_sql(path: Path, *statements: str) -> None:
    connection = driver.connect(f"file:{path}?mode=rw")
    for statement in statements:
        connection.execute(statement)
    connection.close()


@seam("connection.connect", StoreAccessError)
async def connect_to_nothing(path: Path) -> None:
    connect(path, "rw")


@seam("file.open_read_cache", StoreCorruptError)
async def begin_a_read_cache_over_what_is_no_database(path: Path) -> None:
    await make(path)
    other = path.with_name("other")
    other.write_bytes(b"no database " * 1_000)
    connection = driver.connect(f"file:{other}?mode=ro")
    try:
        async with kvstore.SQLiteStore(path) as store:
            store.backend.open_read_cache(connection)
    finally:
        connection.close()


@seam("migrate.check_file", StoreCorruptError)
async def check_a_file_with_a_log(path: Path) -> None:
    await make(path)
    damaged = bytearray(path.read_bytes())
    damaged[100] = 0xFF  # the kind of the first page
    path.write_bytes(damaged)
    Path(f"{path}-wal").write_bytes(b"x" * 64)
    with Hold(path) as hold:
        check_file(path, hold)


@seam("migrate.migrate", StoreBusyError)
async def migrate_behind_another(path: Path) -> None:
    holder = driver.connect(f"file:{path}")
    holder.execute("BEGIN EXCLUSIVE")
    connection = connect(path, "rw")
    try:
        migrate(connection, path, 0.05)
    finally:
        connection.close()
        holder.close()


@seam("file._connect_first", StoreBusyError)
async def open_behind_another(path: Path) -> None:
    await make(path)
    holder = driver.connect(f"file:{path}")
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    try:
        await kvstore.SQLiteStore(path, busy_timeout=0.05).open()
    finally:
        holder.close()


@seam("file.connect_reader", kvstore.MissingDependencyError)
async def open_without_the_library(path: Path) -> None:
    if not driver.CAN_LOAD_EXTENSIONS:
        pytest.skip("this SQLite loads no extensions")
    import sqlite_vec

    await make(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_vec, "loadable_path", lambda: str(path.parent / "nowhere"))
        await kvstore.open(path, index=kvstore.IndexConfig(HashingEmbeddings())).open()


@seam("backup.backup", StoreFullError)
async def back_up_without_room(path: Path) -> None:
    async with kvstore.open(path) as store:
        await store.put_many(NS, {f"k{n}": "x" * 100_000 for n in range(30)})
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            await store.backup(path.with_name("backup.db"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
            assert not list(path.parent.glob("backup*"))
            assert (await store.check()).ok


@seam("reader._run_job", StoreError)
async def read_what_was_dropped(path: Path) -> None:
    async with kvstore.open(path) as store:
        run_sql(path, "DROP TABLE index_pending")
        await store.stats()


@seam("writer._error", StoreError)
async def write_to_what_was_dropped(path: Path) -> None:
    async with kvstore.open(path) as store:
        run_sql(path, "ALTER TABLE items RENAME COLUMN ttl TO lifetime")
        await store.put(NS, "k", 1, ttl=5)


@seam("direct._read", StoreError)
async def read_directly_what_was_dropped(path: Path) -> None:
    with kvstore.KeyValueStore(path) as store:
        store.insert("k", 1)
        run_sql(path, "ALTER TABLE items RENAME COLUMN ttl TO lifetime")
        run_sql(path, "ALTER TABLE items RENAME COLUMN expires_at TO ends_at")
        store.retrieve("k")


@seam("direct._on_writer", StoreError)
async def write_directly_to_what_was_dropped(path: Path) -> None:
    with kvstore.KeyValueStore(path) as store:
        run_sql(path, "ALTER TABLE items RENAME COLUMN ttl TO lifetime")
        store.insert("k", 1, ttl=5)


@seam("direct._read of a store that is read only", StoreError)
async def read_only_what_was_dropped(path: Path) -> None:
    with kvstore.KeyValueStore(path) as store:
        store.insert("k", 1)
        with kvstore.KeyValueStore(kvstore.SQLiteStore(path, read_only=True)) as reader:
            run_sql(path, "ALTER TABLE items RENAME COLUMN expires_at TO ends_at")
            reader.retrieve("k")


@seam("readonly.connect", StoreCorruptError)
async def open_what_is_damaged(path: Path) -> None:
    await make(path)
    damaged = bytearray(path.read_bytes())
    damaged[100] = 0xFF  # the kind of the first page
    path.write_bytes(damaged)
    await kvstore.SQLiteStore(path, read_only=True).open()


@seam("backup._go_on", StoreCorruptError)
async def restore_what_is_damaged(path: Path) -> None:
    await make(path)
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = bytes(len(damaged) - 4096)
    path.write_bytes(damaged)
    await kvstore.restore_backup(path, path.with_name("restored.db"))


@seam("diagnosis.explain", StoreCorruptError)
async def filter_a_row_that_is_not(path: Path) -> None:
    await make(path)
    run_sql(path, """UPDATE items SET value = '{"a":'""")
    async with kvstore.open(path) as store:
        await store.search(NS, filter={"a": {"$gt": 1}})


class Told(logging.Handler):
    """Keeps the errors that a logger is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[StoreError] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.args, tuple)
        self.errors += [arg for arg in record.args if isinstance(arg, StoreError)]


@seam("large.extend", StoreBusyError)
async def count_many_while_another_writes(path: Path) -> None:
    """The count has its answer at once, and the log is told why the next one takes as long."""
    told, logger = Told(), logging.getLogger("kvstore")
    async with kvstore.SQLiteStore(path, busy_timeout=60) as store:
        await store.put_many(NS, {str(number): number for number in range(LARGE + 1)})
        holder = driver.connect(f"file:{path}")
        holder.execute("BEGIN IMMEDIATE")
        before = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(told)
        try:
            async with asyncio.timeout(30):
                assert [await store.count(NS) for _ in range(2)] == [LARGE + 1] * 2
        finally:
            logger.removeHandler(told)
            logger.setLevel(before)
            holder.close()
    raise told.errors[0]


@seam("connection.translated", StoreAccessError)
async def translate_in_a_block(path: Path) -> None:
    connect(path / "below", "rw")


def test_every_seam_is_driven() -> None:
    assert set(seams(PACKAGE / "sqlite")) == {name.partition(" ")[0] for name in SEAMS}


@pytest.mark.parametrize("name", SEAMS)
async def test_a_seam_says_what_happened(tmp_path: Path, name: str) -> None:
    drive, error = SEAMS[name]
    with pytest.raises(error) as told:
        await drive(tmp_path / "store.db")
    assert isinstance(told.value, StoreCorruptError) == (error is StoreCorruptError), told.value
    if error is not StoreCorruptError:
        assert "restore" not in str(told.value)
        assert "damaged" not in str(told.value)


DAMAGE = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"} | {
    "SQLITE_IOERR_SHORT_READ",
    "SQLITE_IOERR_CORRUPTFS",
}


@pytest.mark.parametrize("name", codes.__all__)
def test_only_the_codes_of_damage_say_damage(tmp_path: Path, name: str) -> None:
    exc = driver.OperationalError("of no matter")
    exc.sqlite_errorcode = getattr(codes, name)
    exc.sqlite_errorname = name
    error = translate(exc, tmp_path / "store.db")
    assert isinstance(error, StoreCorruptError) == (name in DAMAGE)
    assert name in str(error)
    assert "of no matter" not in str(error)


def test_what_a_driver_says_without_a_code_is_no_damage(tmp_path: Path) -> None:
    connection = driver.connect(f"file:{tmp_path / 'x.db'}")
    with pytest.raises(driver.Error) as text:
        connection.execute("SELECT CAST(x'ff' AS TEXT)").fetchall()
    assert is_unclear(text.value)
    assert type(translate(text.value, tmp_path)) is StoreError
    connection.close()
    with pytest.raises(driver.Error) as closed:
        connection.execute("SELECT 1")
    assert isinstance(translate(closed.value, tmp_path), kvstore.StoreClosedError)


async def test_text_that_is_no_utf8_is_a_damaged_row(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await make(path)
    run_sql(path, "UPDATE items SET key = CAST(x'6bff' AS TEXT)")
    async with kvstore.open(path) as store:
        with pytest.raises(StoreCorruptError, match="is no text"):
            await store.keys(NS)
        with pytest.raises(StoreCorruptError, match="is no text"):
            await store.export_items(tmp_path / "out.jsonl")
        assert not (await store.check()).ok


@pytest.mark.skipif(sys.platform == "win32", reason="limits as POSIX has them")
def test_without_descriptors_that_is_what_is_said(tmp_path: Path) -> None:
    asyncio.run(make(tmp_path / "store.db"))
    script = """
        import asyncio, os, resource, sys
        import kvstore

        async def use():
            async with kvstore.open(":memory:") as store:  # imports what is imported late
                await store.put(("n",), "k", 1)
            await asyncio.to_thread(len, "")
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            taken = []
            try:
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            for free in range(int(sys.argv[2])):
                os.close(taken.pop())
            try:
                await kvstore.open(sys.argv[1]).open()
            except kvstore.StoreError as exc:
                print(type(exc).__name__, exc)

        asyncio.run(use())
    """
    for free in range(3):
        done = python("-c", textwrap.dedent(script), tmp_path / "store.db", str(free))
        assert done.stdout.startswith("StoreAccessError"), done
        assert "files" in done.stdout, done.stdout


@pytest.mark.parametrize("dimensions", [8193, None], ids=["said", "found out"])
async def test_too_many_dimensions_are_named(tmp_path: Path, dimensions: int | None) -> None:
    if not driver.CAN_LOAD_EXTENSIONS and dimensions is None:
        pytest.skip("this SQLite loads no extensions")

    def embed(texts: list[str]) -> list[list[float]]:
        return [[1.0] * 8193 for _ in texts]

    index = kvstore.IndexConfig(embed, model_id="long", dimensions=dimensions)
    with pytest.raises((kvstore.InvalidArgumentError, kvstore.EmbeddingError), match="8,192"):
        async with kvstore.open(tmp_path / "store.db", index=index) as store:
            await store.put(NS, "k", "hello")


@pytest.mark.parametrize("place", ["nowhere/b.db", "x" * 300, ".", "null"])
async def test_a_backup_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    await make(tmp_path / "store.db")
    os.mkfifo(tmp_path / "null")
    async with kvstore.open(tmp_path / "store.db") as store:
        with pytest.raises(StoreAccessError):
            await store.backup(tmp_path / place)
        with pytest.raises(kvstore.InvalidArgumentError, match="NUL"):
            await store.backup("a\0b")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["null", "store.db"]
