"""Export, import and copy: everything comes over, all of it or nothing."""

from __future__ import annotations

import asyncio
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

import kvstore
from kvstore import (
    ConflictError,
    InMemoryStore,
    InvalidArgumentError,
    InvalidKeyError,
    InvalidNamespaceError,
    InvalidTTLError,
    SQLiteStore,
    Store,
    StoreAccessError,
    StoreError,
    StoreFullError,
    ValueEncodingError,
    ValueTooLargeError,
)
from kvstore.backend import Backend
from kvstore.exchange import Intake
from kvstore.memory import InMemoryBackend
from kvstore.testing import ManualClock
from kvstore.types import Item
from tests.operations.conftest import Factory

ROOT = Path(__file__).parents[2]
VALUES: dict[str, Any] = {
    "null": None,
    "bytes": b"\x00\xff",
    "deep": {"a": [{"b": b"x"}, {"$bytes": "no"}, 2**64 - 1, -0.0, 1e300]},
    "text": "zwölf\n\t\u2028\x00🙂",
    "": "an empty key",
    "a\nb\t": "an odd one",
}


async def fill(store: Store, clock: ManualClock) -> None:
    await store.put_many(("values", "a/b", "\t\n"), VALUES)
    clock.advance(1)
    await store.put((), "root", 1)
    await store.put(("ttl",), "brief", 1, ttl=100)
    await store.put(("ttl",), "gone", 1, ttl=1)
    clock.advance(1.5)
    await store.put(("values", "a/b", "\t\n"), "null", None)
    await store.put(("index",), "none", 1, index=False)
    await store.put(("index",), "some", {"a": 1}, index=["a", "b[*].c"])


async def everything(store: Store, namespace: tuple[str, ...] = ()) -> list[Item]:
    return [item async for item in store.scan(namespace)]


def but_versions(items: list[Item]) -> list[tuple[Any, ...]]:
    return [
        (i.namespace, i.key, repr(i.value), i.created_at, i.updated_at, i.expires_at) for i in items
    ]


def in_order(items: list[Item]) -> list[str]:
    return [item.key for item in sorted(items, key=lambda item: item.version)]


async def exported(store: Store, **options: Any) -> bytes:
    file = io.BytesIO()
    await store.export_items(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_an_import_brings_back_all_that_was_exported(
    store: Store, clock: ManualClock, tmp_path: Path, kind: str
) -> None:
    await fill(store, clock)
    file = tmp_path / "export.jsonl"
    before = await everything(store)
    assert await store.export_items(file) == len(before)
    target: Store = (
        InMemoryStore(clock=clock)
        if kind == "memory"
        else SQLiteStore(tmp_path / "target.db", clock=clock)
    )
    async with target:
        await target.put(("there",), "before", 1)
        assert await target.import_items(file) == len(before)
        assert await target.delete(("there",), "before")
        after = await everything(target)
        assert but_versions(after) == but_versions(before)
        assert in_order(after) == in_order(before)
        assert (await target.stats()).version == max(item.version for item in after) + 1
        assert (await target.check()).ok
        if type(target) is type(store):
            assert lines_of(await exported(target)) == lines_of(await exported(store))
        clock.advance(60)
        await target.get(("ttl",), "brief", refresh_ttl=True)
        clock.advance(60)
        assert await target.get(("ttl",), "brief") is not None  # its lifetime came over, too


def lines_of(data: bytes) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in data.splitlines()]
    return [{k: v for k, v in line.items() if k != "version"} for line in lines]


async def test_copy_is_export_and_import_in_one(
    store: Store, clock: ManualClock, tmp_path: Path
) -> None:
    await fill(store, clock)
    for target in (InMemoryStore(clock=clock), SQLiteStore(tmp_path / "copy.db", clock=clock)):
        async with target:
            seen: list[tuple[int, int | None]] = []
            before = await everything(store)
            number = await kvstore.copy(store, target, progress=partial(noted, seen))
            assert number == len(before)
            assert but_versions(await everything(target)) == but_versions(before)
            assert in_order(await everything(target)) == in_order(before)
            assert seen[-1] == (number, number)
            assert await kvstore.copy(store, target, namespace=("values",)) == len(VALUES)


def noted(seen: list[tuple[int, int | None]], done: int, total: int | None) -> None:
    seen.append((done, total))


async def test_copy_minds_the_target(store: Store) -> None:
    await store.put(("a",), "small", 1)
    await store.put(("a",), "large", "x" * 100)
    async with InMemoryStore(max_value_bytes=50) as target:
        with pytest.raises(ValueTooLargeError, match=r"\('a',\) / 'large'.*nothing was copied"):
            await kvstore.copy(store, target)
        assert await everything(target) == []


@pytest.mark.parametrize("wrong", [None, 5, object()], ids=["None", "int", "object"])
async def test_what_is_no_store_no_file_and_no_function_is_named(store: Store, wrong: Any) -> None:
    await store.put(("a",), "k", 1)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: kvstore.copy(store, wrong),
        lambda: kvstore.copy(wrong, store),
        lambda: store.export_items(wrong),
        lambda: store.import_items(wrong),
    ]
    if wrong is not None:
        calls.append(lambda: store.check(progress=wrong))
    for call in calls:
        with pytest.raises(InvalidArgumentError, match=type(wrong).__name__):
            await call()


async def test_one_namespace_can_be_exported(store: Store) -> None:
    for namespace in ((), ("a",), ("a", "b"), ("ab",)):
        await store.put(namespace, "k", list(namespace))
    async with InMemoryStore() as target:
        file = io.BytesIO(await exported(store, namespace=["a"]))
        assert await target.import_items(file) == 2
        assert await target.list_namespaces() == [("a",), ("a", "b")]


DOUBLE = """
    {"namespace": ["n"], "key": "a", "value": 1}
    {"namespace": ["n"], "key": "b", "value": 2}
    {"namespace": ["n"], "key": "a", "value": 3}
"""


@pytest.mark.parametrize(
    ("mode", "number", "values"),
    [("replace", 3, {"b": 2, "a": 3}), ("skip", 2, {"a": 1, "b": 2}), ("error", 0, {})],
)
async def test_lines_count_as_put_one_after_the_other(
    store: Store, mode: Any, number: int, values: dict[str, int]
) -> None:
    """So a key that stands in a file twice means the same everywhere."""
    if mode == "error":
        with pytest.raises(ConflictError, match="'a' is there already"):
            await store.import_items(io.StringIO(DOUBLE), on_conflict=mode)
    else:
        assert await store.import_items(io.StringIO(DOUBLE), on_conflict=mode) == number
    items = sorted(await everything(store), key=lambda item: item.version)
    assert {item.key: item.value for item in items} == values
    assert [item.key for item in items] == list(values)


@pytest.mark.parametrize("mode", ["replace", "skip", "error"])
async def test_on_conflict(store: Store, mode: Any) -> None:
    await store.put_many(("n",), {"both": "old", "mine": "old"})
    data = await exported(store)
    await store.delete(("n",), "mine")
    await store.put(("n",), "both", "new")
    before = await everything(store)
    if mode == "error":
        with pytest.raises(ConflictError, match="'both' is there already"):
            await store.import_items(io.BytesIO(data), on_conflict=mode)
        assert await everything(store) == before
    else:
        number = await store.import_items(io.BytesIO(data), on_conflict=mode)
        values = {item.key: item.value for item in await everything(store)}
        assert values == {"both": "old" if mode == "replace" else "new", "mine": "old"}
        assert number == (2 if mode == "replace" else 1)


async def test_an_unknown_on_conflict_is_refused(store: Store) -> None:
    with pytest.raises(InvalidArgumentError, match="'replace', 'skip' or 'error'"):
        await store.import_items(io.BytesIO(), on_conflict="merge")  # type: ignore[arg-type]


async def test_what_has_expired_since_is_left_out(store: Store, clock: ManualClock) -> None:
    await store.put(("n",), "brief", 1, ttl=10)
    await store.put(("n",), "long", 1)
    data = await exported(store)
    clock.advance(11)
    await store.remove(("n",), "*")
    assert await store.import_items(io.BytesIO(data)) == 1
    assert await store.keys(("n",)) == ["long"]


@pytest.mark.parametrize(
    "make",
    [
        partial(tempfile.TemporaryFile, "w+b"),
        partial(tempfile.TemporaryFile, "w+", encoding="utf-8", newline=""),
        tempfile.SpooledTemporaryFile,
        io.BytesIO,
        io.StringIO,
    ],
    ids=["binary", "text", "spooled", "BytesIO", "StringIO"],
)
async def test_any_file_object_will_do(store: Store, make: Callable[[], Any]) -> None:
    await store.put_many(("values",), VALUES)
    with make() as file:
        await store.export_items(file)
        file.seek(0)
        await store.remove(("values",), "*")
        assert await store.import_items(file) == len(VALUES)
    assert [item.value for item in await everything(store)] == [VALUES[k] for k in sorted(VALUES)]


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"], ids=lambda name: name
)
async def test_a_byte_order_mark_tells_how_to_read(store: Store, encoding: str) -> None:
    line = '{"namespace":["ü"],"key":"🙂","value":"zwölf"}\r\n'
    data = (line + line.replace("🙂", r"\ud83d\ude42")).encode(encoding)
    assert await store.import_items(io.BytesIO(data[:-2])) == 2
    item = await store.get(("ü",), "🙂")
    assert item is not None
    assert item.value == "zwölf"
    await store.import_items(io.StringIO("\ufeff" + line))


async def test_a_lifetime_in_a_line_of_ones_own_begins_now(
    store: Store, clock: ManualClock
) -> None:
    await store.import_items(io.StringIO('{"namespace":["n"],"key":"k","value":1,"ttl":60}'))
    item = await store.get(("n",), "k")
    assert item is not None
    assert item.expires_at == clock.now + timedelta(seconds=60)


async def test_lines_of_ones_own_need_no_header(store: Store, clock: ManualClock) -> None:
    text = """
        {"namespace": ["users"], "key": "a", "value": {"n": 1}}
        {"namespace": [], "key": "b", "value": {"$bytes": "AP8="}}

        {"namespace": ["users"], "key": "c", "value": 1, "updated_at": "2026-01-31T12:00:00+01:00"}
    """
    assert await store.import_items(io.StringIO(text)) == 3
    item = await store.get((), "b")
    assert item is not None
    assert item.value == b"\x00\xff"
    assert item.created_at == item.updated_at == clock.now
    item = await store.get(("users",), "c")
    assert item is not None
    assert item.updated_at.isoformat() == "2026-01-31T11:00:00+00:00"


LINE = '{"namespace":["n"],"key":"k","value":1}\n'
HEADER = '{"kvstore":"export","format":1}\n'
OURS = '{"namespace":["n"],"key":"k","version":%d,"value":1}\n'


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        (LINE + "{", InvalidArgumentError, "line 2 of the import is not JSON"),
        (LINE + "[]", InvalidArgumentError, "line 2 of the import is no object"),
        ('{"namespace":["n"],"key":"k"}', InvalidArgumentError, "line 1.*no 'value'"),
        ('{"namespace":"n","key":"k","value":1}', InvalidNamespaceError, "line 1.*not a str"),
        ('{"namespace":["n"],"key":1,"value":1}', InvalidKeyError, "line 1.*a key is a str"),
        ('{"namespace":[""],"key":"","value":1}', InvalidNamespaceError, "line 1.*empty"),
        (
            '{"namespace":[],"key":"","value":{"$bytes":"?"}}',
            ValueEncodingError,
            "line 1.*holds no base64",
        ),
        (LINE.replace("1", '1,"ttl":-1'), InvalidTTLError, "line 1.*ttl"),
        (LINE.replace("1", '1,"ttl":1e300'), InvalidTTLError, "line 1.*a century"),
        (LINE.replace("1", '1,"ttl":"1"'), InvalidTTLError, "line 1.*ttl"),
        (LINE.replace("1", '1,"index":"a"'), InvalidArgumentError, "line 1.*index"),
        (LINE.replace("1", '1,"index":["a..b"]'), InvalidArgumentError, "line 1.*'a..b'"),
        (LINE.replace("1", '{"a":[18446744073709551616]}'), ValueEncodingError, "line 1.*a\\[0\\]"),
        (LINE.replace("1", "-9223372036854775809"), ValueEncodingError, "line 1.*64 bits"),
        (LINE.replace("1", "9" * 200), ValueEncodingError, "line 1.*64 bits"),
        (LINE.replace("1", "1e400"), InvalidArgumentError, "line 1.*not JSON"),
        (LINE.replace("1", "NaN"), InvalidArgumentError, "line 1.*not JSON"),
        (LINE.replace("1", "[" * 300 + "]" * 300), ValueEncodingError, "line 1.*nests deeper"),
        (LINE.replace("1", "[" * 9_000 + "]" * 9_000), InvalidArgumentError, "line 1.*not JSON"),
        (
            LINE.replace("1", '1,"created_at":"0001-01-01T00:00:00+14:00"'),
            InvalidArgumentError,
            "line 1.*created_at lies outside",
        ),
        (
            LINE.replace("1", '1,"expires_at":"9999-12-31T23:59:59-14:00"'),
            InvalidArgumentError,
            "line 1.*expires_at lies outside",
        ),
        (LINE + "x" * 2_000_000, ValueTooLargeError, "line 2.*longer than"),
        (LINE.replace("k", "\ud800"), InvalidArgumentError, "line 1.*not JSON"),
        (LINE.replace("1", '1,"created_at":"soon"'), InvalidArgumentError, "line 1.*created_at"),
        (
            LINE.replace("1", '1,"expires_at":"2026-01-01T00:00:00"'),
            InvalidArgumentError,
            "line 1.*with an offset",
        ),
        (LINE.replace("1", '"' + "x" * 300 + '"'), ValueTooLargeError, r"'k' takes 302 bytes"),
        (LINE + HEADER, InvalidArgumentError, "line 2.*in its place"),
        (HEADER.replace("1}", "2}"), InvalidArgumentError, "has format 2.*upgrade"),
        (HEADER + LINE, InvalidArgumentError, "line 2.*version"),
        (HEADER + OURS % 1 + OURS % 1, InvalidArgumentError, "version 1 stands in the file twice"),
        (HEADER + OURS % 2**60, InvalidArgumentError, "line 2.*version"),
        (HEADER + OURS % 1, InvalidArgumentError, "cut off after line 2"),
        (
            HEADER + OURS % 1 + '{"kvstore":"end","items":2}',
            InvalidArgumentError,
            "holds 1 items, and its last line speaks of 2",
        ),
        (
            HEADER + '{"kvstore":"end","items":0}\n' + OURS % 1,
            InvalidArgumentError,
            "line 3.*after the last",
        ),
        (
            HEADER + '{"kvstore":"end","items":0}\n{"kvstore":"log","namespace":["l"],"last":1}',
            InvalidArgumentError,
            "line 3.*after the last",
        ),
        *(
            (HEADER + f'{{"kvstore":{line}}}', error, f"line 2 of the import: .*{match}")
            for line, error, match in (
                ('"log","namespace":["l"],"last":1,"trimmed":2', InvalidArgumentError, "trimmed"),
                ('"log","namespace":["l"]', InvalidArgumentError, "no positions"),
                ('"log","namespace":["l",""],"last":1', InvalidNamespaceError, "empty"),
                ('"queue","namespace":["q"],"last":1,"jobs":[1]', InvalidArgumentError, "objects"),
            )
        ),
    ],
)
async def test_what_is_no_export_is_refused_as_a_whole(
    factory: Factory, text: str, error: type[Exception], match: str
) -> None:
    async with factory(max_value_bytes=200) as store:
        await store.put(("n",), "k", "before")
        before = await everything(store)
        for each in (text, LINE * 3 + text) if not text.startswith('{"kvstore') else (text,):
            with pytest.raises(error, match=match if each is text else None) as caught:
                await store.import_items(io.StringIO(each))
            assert "xxx" not in str(caught.value)
            assert await everything(store) == before


async def test_a_line_without_an_end_takes_no_memory(store: Store) -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return b"[" * size

    async with InMemoryStore(max_value_bytes=1_000) as small:
        endless = Endless()
        with pytest.raises(ValueTooLargeError, match="line 1 of the import is longer"):
            await small.import_items(endless)  # type: ignore[arg-type]
        assert endless.given < 4 * 2**20


async def test_versions_far_apart_take_no_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And two that are the same are found, though they lie far apart in the file."""
    monkeypatch.setattr("kvstore.exchange._RUN", 100)
    lines = [OURS.replace('"k"', f'"{n}"') % (n * 2**33 + 1) for n in range(1_000)]
    end = '{"kvstore":"end","items":%d}\n'
    text = HEADER + "".join(lines) + end % 1_000
    assert await store.import_items(io.StringIO(text)) == 1_000
    assert (await store.check()).ok
    twice = HEADER + "".join([*lines, OURS % 1]) + end % 1_001
    with pytest.raises(InvalidArgumentError, match="version 1 stands in the file twice"):
        await store.import_items(io.StringIO(twice))


async def test_what_was_imported_is_sound(store: Store) -> None:
    """Odd, but nothing that a store could not hold: among it the work of a clock that went back."""
    text = """
        {"namespace":["n"],"key":"later","value":1,"created_at":"2031-01-01T00:00:00+00:00"}
        {"namespace":["n"],"key":"first","value":1,"created_at":"0001-01-01T00:00:00+00:00"}
        {"namespace":["n"],"key":"last","value":1,"expires_at":"9999-12-31T23:59:59.999999+00:00"}
        {"namespace":["n"],"key":"none","value":{"$$bytes":"?"},"index":[],"ttl":0.0000001}
        {"namespace":["n"],"key":"int","value":[18446744073709551615,"18446744073709551616"]}
    """
    await store.import_items(io.StringIO(text))
    before = await everything(store)
    assert (await store.check()).ok
    data = await exported(store)
    await store.remove(("n",), "*")
    await store.import_items(io.BytesIO(data))
    assert but_versions(await everything(store)) == but_versions(before)


async def test_a_failed_export_leaves_no_file(store: Store, tmp_path: Path) -> None:
    await store.put_many(("n",), {str(n): n for n in range(3_000)})
    file = tmp_path / "out" / "export.jsonl"
    with pytest.raises(StoreAccessError, match="No such file"):
        await store.export_items(file)
    file.parent.mkdir()
    file.write_text("the one before")

    def fail(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.export_items(file, progress=fail)
    assert [path.name for path in file.parent.iterdir()] == ["export.jsonl"]
    assert file.read_text() == "the one before"
    await store.export_items(file)
    assert len(file.read_text().splitlines()) == 3_002


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_told(store: Store) -> None:
    await store.put(("n",), "k", 1)
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(StoreFullError):
        await store.export_items(file)


async def test_a_missing_file_is_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreAccessError, match="No such file"):
        await store.import_items(tmp_path / "absent")


async def test_an_import_that_fails_late_undoes_what_it_wrote(
    sqlite: SQLiteStore, tmp_path: Path
) -> None:
    """The conflict is met after thousands of records were written; neighbours are not hurt."""
    await sqlite.put(("n",), "9999", "there")
    lines = "".join(f'{{"namespace":["n"],"key":"{n:04}","value":{n}}}\n' for n in range(10_000))
    async with sqlite.watch() as watch:
        importing = asyncio.create_task(
            sqlite.import_items(io.StringIO(lines), on_conflict="error")
        )
        puts = 0
        while not importing.done():
            await sqlite.put(("other",), str(puts), puts)
            puts += 1
            await asyncio.sleep(0)
        with pytest.raises(ConflictError, match="'9999'"):
            await importing
        assert await sqlite.count(("n",)) == 1
        assert await sqlite.count(("other",)) == puts > 0
        async with asyncio.timeout(20):
            changes = [await anext(watch) for _ in range(puts)]
        assert {change.namespace for change in changes} == {("other",)}
    assert (await sqlite.check()).ok


async def test_a_cancelled_import_leaves_all_or_nothing(
    sqlite: SQLiteStore, tmp_path: Path
) -> None:
    number = 5_000
    lines = "".join(f'{{"namespace":["n"],"key":"{n}","value":{n}}}\n' for n in range(number))
    file = tmp_path / "lines"
    file.write_text(lines)
    chance = random.Random(3)
    outcomes = set()
    for _ in range(40):
        importing = asyncio.create_task(sqlite.import_items(file))
        for _ in range(chance.randrange(400)):
            await asyncio.sleep(0)
            if importing.done():
                break
        importing.cancel()
        await asyncio.gather(importing, return_exceptions=True)
        await sqlite.put(("other",), "k", 1)  # comes after what is under way
        count = await sqlite.count(("n",))
        assert count in (0, number)
        outcomes.add(count)
        await sqlite.remove(("n",), "*")
    assert 0 in outcomes


async def test_imports_are_told_to_watches(store: Store, clock: ManualClock) -> None:
    await store.put(("n",), "a", 1)
    await store.put(("n",), "b", 1)
    data = await exported(store)
    await store.put(("n",), "a", 2, ttl=1)
    async with store.watch() as watch:
        clock.advance(2)
        await store.import_items(io.BytesIO(data))
        async with asyncio.timeout(20):
            changes = [await anext(watch) for _ in range(3)]
        assert [(c.kind, c.key) for c in changes] == [
            ("expire", "a"),
            ("put", "a"),
            ("put", "b"),
        ]
        assert all(change.item is not None for change in changes[1:])


async def test_others_write_while_an_import_is_read(sqlite: SQLiteStore) -> None:
    """A slow source holds no lock: the import writes only once it has read everything."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as feed:
        feed.write(LINE.encode())
        feed.flush()
        importing = asyncio.create_task(sqlite.import_items(source))
        async with SQLiteStore(sqlite.path, busy_timeout=0) as other:
            for number in range(50):
                await other.put(("other",), str(number), number)
                await asyncio.sleep(0)
        assert not importing.done()
        feed.close()
        assert await importing == 1


IMPORTER = """
import asyncio, sys
import kvstore

def progress(done, total):
    if total is not None and done > total // 4:
        print("publishing", flush=True)

async def main(path, file):
    async with kvstore.open(path) as store:
        await store.import_items(file, progress=progress)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
async def test_a_killed_import_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    file, path = tmp_path / "lines", tmp_path / "store.db"
    with file.open("w") as lines:
        for number in range(150_000):
            lines.write(f'{{"namespace":["n"],"key":"{number}","value":"{"x" * 50}"}}\n')
    async with kvstore.open(path) as store:
        await store.put(("n",), "7", "mine")
        await store.put(("other",), "k", 1)
        before = await everything(store)
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTER, path, file], stdout=subprocess.PIPE, cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"publishing\n"
        process.send_signal(signal.SIGKILL)
    async with kvstore.open(path) as store:
        assert await everything(store) == before
        assert (await store.check()).ok
        assert await store.import_items(file) == 150_000


async def test_a_backend_that_knows_only_items_can_be_copied(store: Store) -> None:
    """The primitive that the ABC makes of pages serves backends that have no better one."""

    class Plain(InMemoryBackend):
        records = Backend.records

    async with Store(Plain()) as plain:
        for number in range(2_500):
            await plain.put(("n",), f"{number:05}", {"n": number}, ttl=100)
        assert await kvstore.copy(plain, store) in (0, 2_500)


@pytest.fixture(autouse=True)
def _no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spools are nameless: nothing of an import stays in the temporary directory."""
    spools = tmp_path / "spools"
    spools.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spools))
    yield
    assert list(spools.iterdir()) == []


def test_times_are_exact() -> None:
    from kvstore.exchange import _micros
    from kvstore.instants import to_datetime

    chance = random.Random(5)
    for _ in range(2_000):
        micros = chance.randrange(-(2**40), 2**52)
        assert _micros(orjson.loads(orjson.dumps(to_datetime(micros))), "t") == micros
    assert to_datetime(1) - to_datetime(0) == timedelta(microseconds=1)


async def test_a_store_is_not_copied_onto_itself(factory: Factory, tmp_path: Path) -> None:
    async with factory() as store:
        await store.put(("n",), "k", 1)
        with pytest.raises(InvalidArgumentError, match="one store"):
            await kvstore.copy(store, store)
        if isinstance(store, InMemoryStore):
            return
        async with factory() as other:
            with pytest.raises(InvalidArgumentError, match="one store"):
                await kvstore.copy(store, other)
        if isinstance(store, SQLiteStore):
            (tmp_path / "link.db").symlink_to(store.path)
            async with SQLiteStore(tmp_path / "link.db") as linked:
                with pytest.raises(InvalidArgumentError, match="one store"):
                    await kvstore.copy(store, linked)
        assert await store.count(("n",)) == 1


@pytest.mark.parametrize(
    "odd",
    [
        '{"namespace":["a"],"key":"k","value":1,"ttl":true}',
        '{"namespace":["a"],"key":"k","value":1,"index":[1]}',
        '{"namespace":["a"],"key":"k","value":18446744073709551616}',
        '{"namespace":["a"],"key":5,"value":1}',
        '{"namespace":["a",""],"key":"k","value":1}',
        '{"namespace":[["a"]],"key":"k","value":1}',
        '{"namespace":null,"key":"k","value":1}',
        '{"namespace":["a"],"key":"k"}',
        '{"namespace":["a"],"key":"k","value":{"$bytes":"?"}}',
        '{"namespace":["a"],"key":"k","value":1,"created_at":"soon"}',
        '{"namespace":["a"],"key":"k","value":1},{"namespace":["a"],"key":"l","value":1}',
        '{"kvstore":"end","items":700}',
        "[]",
        "{",
        "",
        '{"namespace":["a"],"key":"k","value":1,"kvstore":null,"expires_at":null}',
    ],
)
def test_many_lines_at_once_are_as_one_by_one(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of many, the one that is refused is named."""
    lines = [f'{{"namespace":["a"],"key":"k{at}","value":{{"n":{at}}}}}' for at in range(1_200)]
    data = "\n".join([*lines[:700], odd, *lines[700:]]).encode()
    outcomes: list[Any] = []
    for number in (500, 1):
        monkeypatch.setattr("kvstore.exchange._AT_ONCE", number)
        with closing(Intake(io.BytesIO(data), 1, 1_000)) as intake:
            try:
                records = intake.read()
                outcomes.append((records, intake.read()))
            except StoreError as exc:
                outcomes.append((type(exc), str(exc)))
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0][0], list) or "line 701" in outcomes[0][1]
