"""Thousands of items at once go by COPY, and come to what as many puts do."""

from __future__ import annotations

import asyncio
import gc
import io
import random
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from kvstore import (
    ConflictError,
    IndexConfig,
    InMemoryStore,
    InvalidKeyError,
    Item,
    StoreAccessError,
    ValueEncodingError,
    ValueTooLargeError,
    codec,
)
from kvstore.testing import ManualClock

from .server import Database, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore, wide
from kvstore.postgres.connection import Target, aside, connect
from kvstore.postgres.copying import LEAST_COPIED
from kvstore.postgres.indexing import Indexer
from kvstore.postgres.session import IDLE_S
from tests.waiting import until

NS = ("a", "b")
MANY = LEAST_COPIED + 500


def values(number: int = MANY, add: int = 0) -> dict[str, Any]:
    return {f"k{at:05}": {"n": at + add, "text": "tea\n\t\x00\\N"} for at in range(number)}


async def test_many_puts_are_as_one_by_one(postgres_url: str) -> None:
    clock = ManualClock()
    async with PostgresStore(postgres_url, clock=clock, sweep_interval=None) as store:
        old = await store.put(NS, "k00003", "old")
        await store.put(NS, "k00004", "over by then", ttl=5)
        await store.put(("a",), "k00003", "another")
        clock.advance(10)
        items = await store.put_many(NS, values(), ttl=60)
        assert [item.version for item in items] == list(range(4, 4 + MANY))
        assert items[3].created_at == old.created_at
        assert items[4].created_at == items[3].updated_at == clock.now
        assert [item async for item in store.scan(NS)] == items
        again = await store.put_many(NS, values(add=1))
        assert [item.created_at for item in again] == [item.created_at for item in items]
        assert await store.get_many(NS, list(values())) == {item.key: item for item in again}
        assert await store.count(NS) == MANY
        assert await store.count((), subtree=True) == MANY + 1
        clock.advance(100)
        assert await store.count(NS) == MANY
        assert (await store.check()).ok


def odd_text(numbers: random.Random) -> str:
    """Return text of which much means something to a COPY, to JSON, or to the server."""
    pieces = [*map(chr, range(33)), *"\"\\/'.,:{}[]N", "\\N", "\\.", "\x7f", "\x85", "\u2028", "é"]
    pieces += [
        "null",
        "NaN",
        '{"$bytes":"',
        "\ufeff",
        "\ud7ff",
        "\ue000",
        "\U0001f375",
        "\U0010ffff",
    ]
    return "".join(numbers.choices(pieces, k=numbers.randrange(12)))


def odd_value(numbers: random.Random) -> Any:
    kinds: list[Any] = [odd_text(numbers), None, [None, "null"], b"\x00\xff", -(2**63), 1e-300]
    kinds += [{odd_text(numbers): odd_text(numbers)}, {"$bytes": "x"}, Item(NS, "k", "of an item")]
    return numbers.choice(kinds)


@pytest.mark.parametrize("seed", range(3))
async def test_any_text_comes_back(postgres_url: str, seed: int) -> None:
    numbers = random.Random(seed)
    labels = tuple(odd_text(numbers) + "x" for _ in range(3))
    many: dict[str, Any] = {odd_text(numbers): odd_value(numbers) for _ in range(MANY + 500)}
    assert len(many) > LEAST_COPIED
    ttl = 60 if seed else None
    async with PostgresStore(postgres_url) as store:
        items = await store.put_many(labels, many, ttl=ttl, index=["a"] if seed == 2 else None)
        plain = [value.value if isinstance(value, Item) else value for value in many.values()]
        assert [(item.key, item.value) for item in items] == [*zip(many, plain, strict=True)]
        assert [item async for item in store.scan(labels)] == sorted(items, key=lambda it: it.key)
        assert (await store.check()).ok


async def test_what_is_refused_is_named_and_nothing_is_written(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, max_value_bytes=1_000) as store:
        for key, value, kind, told in (
            ("k", [1, {"a": float("nan")}], ValueEncodingError, r"\$\[1\]\.a"),
            ("k", {"a": "\ud800"}, ValueEncodingError, r"\$\.a"),
            ("k", 2**64, ValueEncodingError, "64 bits"),
            ("k", "x" * 1_000, ValueTooLargeError, "1,002 bytes"),
            ("\udcff", 1, InvalidKeyError, "surrogate"),
            ("x" * 2_700, 1, InvalidKeyError, "an index of PostgreSQL"),
            (5, 1, InvalidKeyError, "not int"),
        ):
            with pytest.raises(kind, match=told):
                await store.put_many(NS, {**values(), key: value, "later": 1})  # type: ignore[dict-item]
        assert await store.count((), subtree=True) == 0


@pytest.mark.parametrize("beside", ["watch", "history", "index", "log"])
async def test_what_goes_with_them_is_not_forgotten(postgres_url: str, beside: str) -> None:
    options: dict[str, Any] = {"history": {"history": 60}, "index": {"index": IndexConfig()}}
    async with PostgresStore(postgres_url, **options.get(beside, {})) as store:
        if beside == "log":
            await store.log(("a", "log")).append(1)
        async with store.watch(NS) as changes:
            first = await store.put_many(NS, values())
            await store.put_many(NS, values(add=1))
            if beside == "watch":
                told = [await anext(changes) for _ in range(2 * MANY)]
                assert [each.version for each in told[:MANY]] == [item.version for item in first]
        if beside == "history":
            found = await store.history(NS, "k00001")
            assert [each.item and each.item.value["n"] for each in found] == [2, 1]
        if beside == "index":
            assert (await store.search(NS, "tea", limit=1))[0].score is not None
            assert (await store.check()).ok


async def test_an_import_goes_over_what_is_there_or_not(postgres_url: str) -> None:
    file = io.BytesIO()
    async with InMemoryStore() as source:
        await source.put_many(NS, values())
        await source.put_many(("other",), values(7_000))
        await source.export_items(file)
    async with PostgresStore(postgres_url) as store:
        there = await store.put(NS, "k00007", "there")
        file.seek(0)
        with pytest.raises(ConflictError):
            await store.import_items(file, on_conflict="error")
        assert await store.count((), subtree=True) == 1
        file.seek(0)
        assert await store.import_items(file, on_conflict="skip") == MANY + 7_000 - 1
        assert await store.get(NS, "k00007") == there
        for _ in range(2):
            file.seek(0)
            assert await store.import_items(file) == MANY + 7_000
        found: dict[str, Item] = await store.get_many(NS, list(values()))
        assert {key: item.value for key, item in found.items()} == values()
        assert await store.count((), subtree=True) == MANY + 7_000
        assert (await store.check()).ok


async def test_what_is_there_is_looked_up_whatever_the_planner_believes(
    postgres: Database, postgres_url: str
) -> None:
    """The planner's statistics are of the last ANALYZE, when there was a row or two."""
    file = io.BytesIO()
    async with PostgresStore(postgres_url, statement_timeout=5) as store:
        await store.put(NS, "first", 1)
        await store.put(("other",), "first", 1)
        where = schema_of(postgres_url)
        await asyncio.to_thread(postgres.execute, f"ANALYZE {where}.kvstore_items")
        await store.put_many(NS, values(20_000))
        again = await store.put_many(NS, values(20_000, add=1))
        assert again[-1].value == values(20_000, add=1)["k19999"]
        await store.export_items(file)
        file.seek(0)
        assert await store.import_items(file) == 20_002
        file.seek(0)
        assert await store.import_items(file, on_conflict="skip") == 0
        assert await store.count((), subtree=True) == 20_002


async def test_what_goes_is_looked_up_whatever_the_planner_believes(
    postgres: Database, postgres_url: str
) -> None:
    """Lifetimes, deletions, what they leave in the past and in the feed, and a way back."""
    clock = ManualClock()
    options: dict[str, Any] = {"clock": clock, "sweep_interval": None, "history": 3600}
    async with PostgresStore(postgres_url, statement_timeout=3, **options) as store:
        await store.put(("other",), "first", 1)
        began = (await store.put(NS, "first", 1)).version
        await store.put(NS, "first", 2)
        where = schema_of(postgres_url)
        for table in ("items", "past", "changes"):
            await asyncio.to_thread(postgres.execute, f"ANALYZE {where}.kvstore_{table}")
        filled = (await store.put_many(NS, values(20_000), ttl=60))[-1].version
        clock.advance(5)
        some = [f"k{at:05}" for at in range(4_000)]
        renewed = await store.get_many(NS, some, refresh_ttl=True)
        late = clock.now + timedelta(seconds=60)
        assert {item.expires_at for item in renewed.values()} == {late}
        assert await store.delete_many(NS, some) == 4_000
        rest = [key for key in values(20_000) if key not in renewed]
        assert await store.remove(NS, "*7*") == sum("7" in key for key in rest)
        changes = store.watch(("a",), since=began)
        seen = [await anext(changes) for _ in range(24_001)]
        assert seen[20_001].kind == "delete"
        assert await store.rewind(filled, namespace=NS)
        assert await store.count(NS) == 20_001
        clock.advance(56)
        assert await store.sweep() == 16_000
        assert await store.count(NS) == 4_001  # those that were renewed, and the first one
        assert (await store.check()).ok


async def test_others_write_under_other_roots_during_an_import(postgres_url: str) -> None:
    file = io.BytesIO()
    async with InMemoryStore() as source:
        await source.put_many(NS, values(20_000))
        await source.export_items(file)
    file.seek(0)
    async with (
        PostgresStore(postgres_url, busy_timeout=30) as one,
        PostgresStore(postgres_url, busy_timeout=1) as two,
    ):
        importing = asyncio.create_task(one.import_items(file))
        number = 0
        while not importing.done():
            await two.put(("tenant",), "k", number)
            number += 1
            await asyncio.sleep(0.01)
        assert await importing == 20_000
        assert number > 3


async def test_a_lost_connection_leaves_all_or_is_made_good(
    postgres: Database, postgres_url: str
) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "first", 1)
        end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
        end += "application_name = 'kvstore' AND pid <> pg_backend_pid()"
        version = 1
        for number in range(6):
            putting = asyncio.create_task(store.put_many(NS, values(add=number)))
            await asyncio.sleep(0.03 * number)
            await asyncio.to_thread(postgres.execute, end)
            items = await putting
            assert [item.version for item in items] == list(range(version + 1, version + 1 + MANY))
            version += MANY
            found = await store.get_many(NS, list(values()))
            assert found == {item.key: item for item in items}


@pytest.mark.parametrize("how", ["put_many", "import_items"])
async def test_a_connection_that_is_lost_while_a_copy_waits_for_room_is_told(
    postgres: Database, postgres_url: str, how: str
) -> None:
    many, file = values(30_000), io.BytesIO()
    copies = "FROM pg_stat_activity WHERE query LIKE 'COPY%' AND wait_event_type = 'Lock'"
    table = f"{schema_of(postgres_url)}.kvstore_items"
    locker = Database(postgres.url, extension=False)
    async with InMemoryStore() as source, PostgresStore(postgres_url) as store:
        await source.put_many(NS, many)
        await source.export_items(file)
        file.seek(0)
        await store.put(NS, "first", 1)
        locker.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE")
        try:
            writing: asyncio.Task[Any] = asyncio.create_task(
                store.put_many(NS, many) if how == "put_many" else store.import_items(file)
            )
            await until(lambda: bool(postgres.execute(f"SELECT count(*) {copies}")))
            postgres.execute(f"SELECT pg_terminate_backend(pid) {copies}")
            await asyncio.wait([writing], timeout=0.2)
        finally:
            locker.close()
        async with asyncio.timeout(20):
            if how == "put_many":  # which is tried again
                await writing
            else:
                with pytest.raises(StoreAccessError):
                    await writing
        assert await store.count(NS) == (30_001 if how == "put_many" else 1)
        assert (await store.check()).ok


async def test_what_cannot_be_encoded_while_others_are_stored_undoes_them(
    postgres_url: str,
) -> None:
    async with PostgresStore(postgres_url) as store:
        first = await store.put(NS, "k00000", "first")
        several = values(5_000), {**values(5_000), "k03000": {"a": 2**64}}
        outcomes = await asyncio.gather(
            *(store.put_many(NS, each) for each in several), return_exceptions=True
        )
        assert isinstance(outcomes[1], ValueEncodingError)
        assert isinstance(outcomes[0], list)
        assert await store.get_many(NS, list(several[0])) == {it.key: it for it in outcomes[0]}
        assert await store.count(NS) == 5_000
        assert outcomes[0][0].created_at == first.created_at
        assert (await store.put(NS, "next", 1)).version > outcomes[0][-1].version


async def test_nobody_waits_under_a_lock_for_a_thread_of_the_loop(postgres_url: str) -> None:
    """These may all be at work for long, or wait for what is put under that very root."""
    is_over = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    many = {**values(), "k01000": "x" * 2 * codec.LONG}
    async with PostgresStore(postgres_url) as store, PostgresStore(postgres_url) as other:
        await asyncio.gather(store.put(NS, "first", 1), other.put(NS, "second", 1))
        putting = asyncio.create_task(store.put_many(NS, many))
        await asyncio.sleep(0)  # it takes its mapping apart on a thread, and locks nothing yet
        blocking = asyncio.create_task(asyncio.to_thread(is_over.wait, 20))
        raw = await connect(Target.parse(postgres_url))
        try:
            async with asyncio.timeout(10):
                items = await putting
                assert await aside(raw, lambda: "done") == "done"
                await other.put(NS, "third", 1)
        finally:
            is_over.set()
            await raw.close()
        assert await blocking
        assert await store.get_many(NS, list(many)) == {item.key: item for item in items}


async def test_many_puts_take_little_memory(postgres_url: str) -> None:
    many = values(20_000)
    async with PostgresStore(postgres_url) as store:
        await store.put_many(NS, values())
        tracemalloc.start()
        try:
            await store.put_many(NS, many)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 20 * 2**20  # 100 MB for five times as many


@pytest.mark.slow
async def test_words_that_take_long_stop_neither_the_loop_nor_an_import(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends a transaction whose client says nothing for three seconds."""
    plan = Indexer.plan
    longest = 0.0

    def plan_for_long(self: Indexer, *args: Any, **options: Any) -> Any:
        time.sleep(IDLE_S + 0.5)
        return plan(self, *args, **options)

    async def look_at_the_clock() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    export = io.BytesIO()
    async with InMemoryStore() as source:
        await source.put_many(NS, values(10))
        await source.export_items(export)
    export.seek(0)
    async with PostgresStore(postgres_url, index=IndexConfig()) as store:
        monkeypatch.setattr(Indexer, "plan", plan_for_long)
        looking = asyncio.create_task(look_at_the_clock())
        assert await store.import_items(export) == 10
        looking.cancel()
        assert len(await store.search(NS, "tea", limit=20)) == 10
    assert longest < IDLE_S


async def test_a_connection_that_is_lost_while_an_import_reads_on_is_told(
    postgres: Database,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def read_for_long(*_: Any) -> Any:
        begun.set()
        ended.wait(20)
        raise ValueError("I/O operation on closed file")

    export = io.BytesIO()
    async with InMemoryStore() as source:
        await source.put_many(NS, values(10))
        await source.export_items(export)
    export.seek(0)
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "first", 1)
        monkeypatch.setattr(wide, "take_piece", read_for_long)
        importing = asyncio.create_task(store.import_items(export))
        await asyncio.to_thread(begun.wait, 20)
        await asyncio.to_thread(
            postgres.execute,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'kvstore' AND state = 'idle in transaction'",
        )
        with pytest.raises(StoreAccessError):
            await importing
        ended.set()
        await until(lambda: not [each for each in asyncio.all_tasks() if "to_thread" in repr(each)])
        del importing
        gc.collect()
        assert await store.count(NS) == 1
    assert not [each for each in caplog.records if each.name == "asyncio"]


@pytest.mark.parametrize(
    "what", [(Indexer, "plan"), (wide, "take_piece")], ids=["words", "reading"]
)
async def test_an_import_of_which_a_piece_takes_long_goes_on(
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: tuple[object, str],
) -> None:
    """The connection is idle meanwhile; that is no sign of a network that is gone."""
    do = getattr(*what)

    def do_for_long(*args: Any, **options: Any) -> Any:
        time.sleep(0.8)
        return do(*args, **options)

    export = io.BytesIO()
    async with InMemoryStore() as source:
        await source.put_many(NS, values(10))
        await source.export_items(export)
    export.seek(0)
    async with PostgresStore(postgres_url, index=IndexConfig(), busy_timeout=0.3) as store:
        monkeypatch.setattr(*what, do_for_long)
        assert await store.import_items(export) == 10
    assert not caplog.messages


@pytest.mark.parametrize("number", [5_001, 10_001])
@pytest.mark.parametrize(
    "options",
    [
        {"index": IndexConfig()},
        {"history": 60},
        {"index": IndexConfig(fields=("n",)), "history": 60},
    ],
    ids=["index", "history", "both"],
)
async def test_more_than_one_call_writes_is_written(
    postgres_url: str, number: int, options: dict[str, Any]
) -> None:
    """A unit that is decided before its root is locked goes on in a transaction if it is long."""
    async with PostgresStore(postgres_url, **options) as store:
        await store.put(NS, "k", 1)  # there is a root, and its index is known
        items = await store.put_many(NS, values(number))
        assert await store.count(NS) == number + 1
        assert await store.get_many(NS, values(number)) == {item.key: item for item in items}
        assert await store.delete_many(NS, values(number)) == number
        assert await store.keys(NS) == ["k"]
        assert (await store.check()).ok


async def test_more_bytes_than_one_call_writes_are_written(postgres_url: str) -> None:
    long = {f"k{at}": "x" * 9_000_000 for at in range(5)}
    async with PostgresStore(postgres_url, index=IndexConfig(fields=("n",))) as store:
        await store.put_many(NS, long)
        assert {key: item.value for key, item in (await store.get_many(NS, long)).items()} == long
