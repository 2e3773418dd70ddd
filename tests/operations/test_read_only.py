"""A store that is read only writes nothing, not even beside its file, and sees all commits."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import (
    IndexConfig,
    InMemoryStore,
    InvalidArgumentError,
    ReadOnlyError,
    SQLiteStore,
    Store,
    StoreError,
)
from kvstore.embeddings import HashingEmbeddings
from kvstore.sqlite import driver
from tests.running import python

NS = ("n",)
EMBEDDED = IndexConfig(HashingEmbeddings() if driver.CAN_LOAD_EXTENSIONS else None)

WRITES: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "put": lambda store: store.put(NS, "k", 1),
    "put_many": lambda store: store.put_many(NS, {"k": 1}),
    "delete": lambda store: store.delete(NS, "k"),
    "delete_many": lambda store: store.delete_many(NS, ["k"]),
    "remove": lambda store: store.remove(NS, "*"),
    "increment": lambda store: store.increment(NS, "count"),
    "append": lambda store: store.append(NS, "list", 1),
    "pop": lambda store: store.pop(NS, "list"),
    "update": lambda store: store.update(NS, "k", lambda value: value),
    "transact": lambda store: store.transact(lambda tx: tx.put(NS, "k", 1)),
    "refresh": lambda store: store.get(NS, "mortal", refresh_ttl=True),
    "import": lambda store: store.import_items(io.StringIO('{"namespace":[],"key":"","value":1}')),
    "sweep": lambda store: store.sweep(),
    "vacuum": lambda store: store.vacuum(),
    "reindex": lambda store: store.reindex(),
}


async def fill(store: Store) -> None:
    async with store:
        await store.put_many(NS, {"k": {"text": "some words"}, "l": {"text": "others"}})
        await store.put(NS, "mortal", 1, ttl=1_000)


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what lies in a folder; nothing is opened, which would take locks away."""
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()}


async def use(store: Store) -> None:
    """Read in every way."""
    item = await store.get(NS, "k")
    assert item is not None
    assert item.value == {"text": "some words"}
    assert await store.keys(NS) == ["k", "l", "mortal"]
    assert len(await store.get_many(NS, ["k", "l"])) == 2
    assert await store.count((), subtree=True) == 3
    assert len(await store.search(NS)) == 3
    assert len(await store.search(NS, filter={"text": "others"})) == 1
    assert [found.key for found in await store.search(NS, "words")][:1] == ["k"]
    assert len([item async for item in store.scan()]) == 3
    assert await store.list_namespaces() == [NS]
    assert (await store.stats()).items == 3
    assert (await store.check()).ok
    assert await store.export_items(io.BytesIO()) == 3
    for name, write in WRITES.items():
        if name != "reindex" or store.index is not None:
            with pytest.raises(ReadOnlyError, match="read_only"):
                await write(store)
    with pytest.raises(ReadOnlyError):
        store.watch()


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_to_memory_is_refused(write: str) -> None:
    async with InMemoryStore(read_only=True, index=IndexConfig()) as store:
        assert await store.keys(NS) == []
        if write != "refresh":  # of nothing
            with pytest.raises(ReadOnlyError):
                await WRITES[write](store)


@pytest.mark.parametrize("index", [None, IndexConfig(), EMBEDDED], ids=["no", "words", "both"])
async def test_nothing_is_written_beside_the_file(
    tmp_path: Path, index: IndexConfig | None
) -> None:
    path = tmp_path / "store.db"
    await fill(SQLiteStore(path, index=index))
    before = written(tmp_path)
    for store in (
        SQLiteStore(path, index=index, read_only=True),
        kvstore.open(f"sqlite:///{path}?mode=ro", index=index),
    ):
        async with store:
            await use(store)
            assert written(tmp_path) == before
        assert written(tmp_path) == before
    with kvstore.KeyValueStore(SQLiteStore(path, read_only=True)) as flow:
        assert flow.list_keys() == []
        with pytest.raises(ReadOnlyError):
            flow.insert("k", 1)
    assert written(tmp_path) == before


async def test_a_backup_can_be_made_and_be_read(tmp_path: Path) -> None:
    await fill(SQLiteStore(tmp_path / "store.db"))
    async with SQLiteStore(tmp_path / "store.db", read_only=True) as store:
        await store.backup(tmp_path / "backup.db")
    before = written(tmp_path)
    async with SQLiteStore(tmp_path / "backup.db", read_only=True) as store:
        await use(store)
    assert written(tmp_path) == before


KILLED = """
    import asyncio, os, sys
    import kvstore

    async def main():
        store = await kvstore.open(sys.argv[1]).open()
        await store.put(("n",), "last", 1)
        print("ready", flush=True)
        os._exit(0)

    asyncio.run(main())
"""


def run(script: str, *args: object) -> str:
    done = python("-W", "error", "-c", textwrap.dedent(script), *map(str, args))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("index", ["with its index", "without its index"])
async def test_what_a_crash_has_left_is_read_and_left(tmp_path: Path, index: str) -> None:
    path = tmp_path / "store.db"
    await fill(SQLiteStore(path))
    run(KILLED, path)
    assert (tmp_path / "store.db-wal").stat().st_size > 0
    if index == "without its index":
        (tmp_path / "store.db-shm").unlink()
    before = written(tmp_path)
    async with SQLiteStore(path, read_only=True) as store:
        assert await store.get(NS, "last")
        assert (await store.check()).ok
    assert written(tmp_path) == before
    async with SQLiteStore(path) as store:
        assert await store.get(NS, "last")


OTHER = """
    import asyncio, sys
    import kvstore

    async def main():
        for line in sys.stdin:
            async with kvstore.open(sys.argv[1]) as store:
                for number in range(3):
                    await store.put(("n",), f"{line.strip()}-{number}", 1)
                    print(number, flush=True)
                    sys.stdin.readline()
            print("closed", flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["at the start", "later"])
async def test_commits_of_another_process_are_seen(tmp_path: Path, where: str) -> None:
    """Whoever came first, and however often it opens and closes the file."""
    path = tmp_path / "store.db"
    await fill(SQLiteStore(path))
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OTHER), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    async def say(word: str) -> str:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(word + "\n")
        other.stdin.flush()
        return (await asyncio.to_thread(other.stdout.readline)).strip()

    try:
        if where == "at the start":
            assert await say("first") == "0"
        async with SQLiteStore(path, read_only=True) as store:
            assert (await store.get(NS, "first-0") is not None) == (where == "at the start")
            if where == "later":
                assert await say("first") == "0"
            assert await store.get(NS, "first-0")
            for number in (1, 2):
                assert await say("") == f"{number}"
                assert await store.get(NS, f"first-{number}")
            assert await say("") == "closed"
            assert await store.count(NS) == 6
            assert await say("second") == "0"
            assert await store.get(NS, "second-0")
            assert (await store.check()).ok
    finally:
        other.kill()
        other.communicate()


@pytest.mark.slow
async def test_a_store_that_writes_may_be_open_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await fill(SQLiteStore(path))
    async with SQLiteStore(path, read_only=True) as reader:
        for number in range(5):
            async with SQLiteStore(path) as writer:
                await writer.put(NS, f"n{number}", number)
                assert await reader.get(NS, f"n{number}") is not None
                run(KILLED, path)  # another process closes it, too
                assert (await writer.check()).ok
            assert await reader.count(NS, "n*") == number + 1
    async with SQLiteStore(path) as writer:
        assert await writer.count(NS, "n*") == 5


AS_NOBODY = """
    import asyncio, os, sys
    import kvstore

    async def read(path):
        async with kvstore.open(path, read_only=True) as store:
            return [await store.keys(("n",)), (await store.check()).ok]

    async def main():
        async with kvstore.open(":memory:") as store:  # imports all that is imported late
            await store.check()
        await asyncio.to_thread(len, "")
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            open(sys.argv[1], "r+")
        except OSError:
            print(await read(sys.argv[1]))

    asyncio.run(main())
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Give a folder that others may enter; another run of pytest would close its own to them."""
    with tempfile.TemporaryDirectory(dir="/tmp" if os.name == "posix" else None) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions as POSIX has them")
@pytest.mark.parametrize("what", ["closed", "in use", "left", "left without its index"])
async def test_who_may_only_read_can_read(public_folder: Path, what: str) -> None:
    folder = public_folder
    path = folder / "store.db"
    await fill(SQLiteStore(path))
    if what.startswith("left"):
        run(KILLED, path)
        if what == "left without its index":
            (folder / "store.db-shm").unlink()
    store = await SQLiteStore(path).open() if what == "in use" else None
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    before = written(folder)
    try:
        said = run(AS_NOBODY, path)
        assert written(folder) == before
    finally:
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)
        if store is not None:
            await store.close()
    expected = ["k", "l", "mortal"] if "left" not in what else ["k", "l", "last", "mortal"]
    assert said == f"[{expected}, True]\n"


def nothing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.touch()


def of_an_older_schema(path: Path) -> None:
    asyncio.run(fill(SQLiteStore(path)))
    connection = driver.connect(f"file:{path}")
    connection.executescript("DROP TABLE changes; PRAGMA user_version = 2")
    connection.close()


def foreign(path: Path) -> None:
    connection = driver.connect(f"file:{path}")
    connection.execute("CREATE TABLE notes (text)")
    connection.close()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (nothing, r"store\.db does not exist"),
        (empty, r"store\.db is empty"),
        (of_an_older_schema, r"store\.db"),
        (foreign, r"store\.db"),
        (a_pipe, r"store\.db is a named pipe"),
    ],
)
def test_what_cannot_be_read_is_refused_and_untouched(
    tmp_path: Path, make: Callable[[Path], None], what: str
) -> None:
    path = tmp_path / "store.db"
    make(path)
    before = written(tmp_path)

    async def attempt() -> None:
        for _ in range(2):
            with pytest.raises(StoreError, match=what):
                await SQLiteStore(path, read_only=True).open()

    asyncio.run(attempt())
    with pytest.raises(StoreError, match=what):
        kvstore.KeyValueStore(SQLiteStore(path, read_only=True)).list_keys()
    assert written(tmp_path) == before


async def test_a_file_that_was_replaced_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await fill(SQLiteStore(path))
    shutil.copy(path, tmp_path / "other.db")
    async with SQLiteStore(path, read_only=True) as store:
        (tmp_path / "other.db").replace(path)
        with pytest.raises(kvstore.StoreReplacedError):
            await store.get(NS, "k")


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="refresh_ttl"):
        InMemoryStore(read_only=True, refresh_ttl=True)
    with pytest.raises(InvalidArgumentError, match="temporary"):
        SQLiteStore(":memory:", read_only=True)
    with pytest.raises(InvalidArgumentError, match="mode"):
        kvstore.open("sqlite:///a.db?mode=rw")
    with pytest.raises(InvalidArgumentError, match="read_only"):
        kvstore.open("sqlite:///a.db?mode=ro", read_only=False)


@pytest.mark.slow
async def test_the_reading_commands_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await fill(SQLiteStore(path))
    before = written(tmp_path)
    for arguments in (
        ["get", path, "n", "k"],
        ["keys", path, "n"],
        ["ls", path],
        ["search", path, "n", "words"],
        ["stats", path],
        ["check", path],
        ["export", path],
    ):
        subprocess.run(
            [sys.executable, "-m", "kvstore", *map(str, arguments)],
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert written(tmp_path) == before, arguments
