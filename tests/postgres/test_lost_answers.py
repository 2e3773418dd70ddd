"""A connection that is cut at the worst moments: nothing is lost, and nothing is done twice.

A proxy stands between store and server. It cuts the connection at the n-th message of a call:
before the server gets it, or after the server has done what it says, with the answer unread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from kvstore import IndexConfig, Item, QueueSize, StoreAccessError
from kvstore.embeddings import HashingEmbeddings
from kvstore.operations import Put

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore, statements
from kvstore.postgres.connection import Target, connect
from kvstore.postgres.puts import put_plain
from kvstore.postgres.wide import Transaction, last_of
from kvstore.postgres.workspace import Stamp, find_unembedded

NS = ("a", "b")
When = Literal["before", "after"]


class Proxy:
    """Hands bytes on between a store and its server, until it is told to cut."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._left = 0
        self._when: When = "before"
        self.cuts = 0
        self.is_gone = False  # it lets nobody in any more, once it has cut
        self.messages = 0  # to the server
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self, message: int, when: When) -> None:
        """Cut all connections at one of the next messages to the server."""
        self._left, self._when = message, when

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self.is_gone and self.cuts:
            writer.close()
            return
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_unix_connection(self._server)
        down = asyncio.create_task(self._answer(up_reader, writer))
        try:
            while data := await reader.read(1 << 20):
                self.messages += 1
                if self._left:
                    self._left -= 1
                    if not self._left:
                        self.cuts += 1
                        if self._when == "after":
                            down.cancel()
                            await asyncio.wait([down])
                            up_writer.write(data)
                            await up_reader.read(1)  # the server has done it
                        break
                up_writer.write(data)
        finally:
            down.cancel()
            up_writer.close()
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            writer.write(data)
        writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def through_proxy(url: str, folder: Path) -> AsyncIterator[tuple[str, Proxy]]:
    """Give the address of a proxy before the server of an address."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if "host" not in query or not query["host"].startswith("/"):
        pytest.skip("the proxy stands before a server with a Unix socket")
    port = query.get("port", "5432")
    proxy = Proxy(f"{query['host']}/.s.PGSQL.{port}")
    server = await asyncio.start_unix_server(proxy.serve, folder / f".s.PGSQL.{port}")
    query["host"] = str(folder)
    try:
        yield parts._replace(query=urlencode(query)).geturl(), proxy
    finally:
        server.close()
        await proxy.close()


@asynccontextmanager
async def pair_at(
    address: str, folder: Path, index: IndexConfig | None = None
) -> AsyncIterator[tuple[PostgresStore, PostgresStore, Proxy]]:
    async with (
        through_proxy(address, folder) as (url, proxy),
        PostgresStore(address) as straight,
        PostgresStore(url, busy_timeout=2, index=index) as store,
    ):
        yield store, straight, proxy


@pytest.fixture
async def pair(
    postgres_url: str, tmp_path: Path
) -> AsyncIterator[tuple[PostgresStore, PostgresStore, Proxy]]:
    """A store behind a proxy, one without, and the proxy."""
    async with pair_at(postgres_url, tmp_path) as made:
        yield made


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("index", [None, IndexConfig()])
async def test_a_change_is_made_exactly_once(
    postgres_url: str, tmp_path: Path, when: When, index: IndexConfig | None
) -> None:
    async with pair_at(postgres_url, tmp_path, index) as (store, straight, proxy):
        await store.increment(NS, "n")  # the statements are known now
        for number in range(1, 8):
            proxy.cut(number, when)
            assert await store.increment(NS, "n") == number + 1
            item = await straight.get(NS, "n")
            assert item is not None
            assert item.value == number + 1
        assert proxy.cuts >= 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_deletion_is_answered_as_it_was_done(
    pair: tuple[PostgresStore, PostgresStore, Proxy], when: When
) -> None:
    store, straight, proxy = pair
    await store.delete(NS, "k")
    for number in (1, 2):
        await straight.put(NS, "k", 1)
        proxy.cut(number, when)
        assert await store.delete(NS, "k")
        assert await straight.get(NS, "k") is None
    assert proxy.cuts == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_job_is_put_taken_and_finished_once(
    pair: tuple[PostgresStore, PostgresStore, Proxy], when: When
) -> None:
    store, straight, proxy = pair
    queue = store.queue(("jobs",))
    await queue.put("first")
    for call in ("put", "take", "done"):
        proxy.cut(1 if call == "put" else 0, when)
        cuts = proxy.cuts
        key = await queue.put(call)
        assert await straight.count(("jobs",)) == 2
        proxy.cut(1 if call == "take" else 0, when)
        job = await queue.take(timeout=0)
        assert job is not None
        assert int(job.id) == int(key) - 1
        assert await straight.queue(("jobs",)).size() == QueueSize(1, 0, 1, 0)
        proxy.cut(1 if call == "done" else 0, when)
        await job.done()
        assert await straight.queue(("jobs",)).size() == QueueSize(1, 0, 0, 0)
        assert proxy.cuts == cuts + 1
    assert (await straight.check()).ok


async def test_what_a_queue_lives_by_is_one_round_trip_each(
    pair: tuple[PostgresStore, PostgresStore, Proxy],
) -> None:
    store, _, proxy = pair
    queue = store.queue(("jobs",))
    messages = 0
    for number in range(20):
        if number == 10:  # the statements are known now
            messages = proxy.messages
        await queue.put(number)
        job = await queue.take(timeout=0)
        assert job is not None
        await job.done()
        assert await queue.take(timeout=0) is None
    assert proxy.messages - messages <= 10 * 5  # with the notices for those who wait


async def test_instants_out_of_order_cost_a_queue_no_round_trip(
    pair: tuple[PostgresStore, PostgresStore, Proxy], postgres_url: str
) -> None:
    """Those of several processes are, as each takes its own before it waits for the others."""
    store, _, proxy = pair
    async with PostgresStore(postgres_url, clock=lambda: time.time() + 0.5) as ahead:
        messages = 0
        for number in range(20):
            if number == 10:
                messages = proxy.messages
            await store.queue(("jobs",)).put(number)
            await store.queue(("jobs",)).put(-number)
            for each in (ahead, store):
                job = await each.queue(("jobs",)).take(timeout=0)
                assert job is not None
                await job.done()
    assert proxy.messages - messages <= 10 * 6


async def test_a_single_key_takes_few_round_trips(
    pair: tuple[PostgresStore, PostgresStore, Proxy],
) -> None:
    store, _, proxy = pair

    async def round_trips() -> dict[str, int]:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "put": lambda: store.put(NS, "k", 1),
            "get": lambda: store.get(NS, "k"),
            "increment": lambda: store.increment(NS, "k"),
            "put over a version": lambda: store.put(NS, "new", 1, if_version=0),
            "update": lambda: store.update(NS, "k", lambda value: value + 1),
            "delete": lambda: store.delete(NS, "new"),
            "delete nothing": lambda: store.delete(NS, "new"),
        }
        taken = {}
        for name, call in calls.items():
            before = proxy.messages
            await call()
            taken[name] = proxy.messages - before
        return taken

    await round_trips()  # the statements are known now
    assert await round_trips() == {
        "put": 1,
        "get": 1,
        "increment": 2,
        "put over a version": 2,
        "update": 3,
        "delete": 2,
        "delete nothing": 1,
    }


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("ttl", [None, 100])
async def test_a_put_is_stored_exactly_once(
    pair: tuple[PostgresStore, PostgresStore, Proxy], when: When, ttl: float | None
) -> None:
    store, straight, proxy = pair
    await store.put(NS, "k", 0, ttl=ttl)
    for number in range(10):
        proxy.cut(1, when)
        items = await asyncio.gather(
            *(store.put(NS, str(each), number, ttl=ttl) for each in range(10))
        )
        assert {item.key: item for item in items} == await straight.get_many(
            NS, map(str, range(10))
        )
        assert [item.version for item in items] == list(range(number * 10 + 2, number * 10 + 12))
    assert proxy.cuts == 10


@pytest.mark.parametrize("what", ["put", "increment"])
async def test_a_lost_answer_is_settled_though_others_have_written_since(
    pair: tuple[PostgresStore, PostgresStore, Proxy], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    store, straight, proxy = pair
    first = await store.put(NS, "k", 1)
    assert await store.increment(NS, "k") == 2  # the statements are known now
    is_done = Transaction.is_done
    overtaken: list[Item] = []

    async def ask(transaction: Transaction, root: str) -> bool | None:
        overtaken.append(await straight.put(NS, "k", 50))
        return await is_done(transaction, root)

    monkeypatch.setattr(Transaction, "is_done", ask)
    if what == "put":
        proxy.cut(1, "after")
        item = await store.put(NS, "k", 3)
        assert (item.value, item.version) == (3, overtaken[0].version - 1)
        assert item.created_at == first.created_at
    else:
        proxy.cut(2, "after")
        assert await store.increment(NS, "k") == 3
    assert await straight.get(NS, "k") == overtaken[0]
    assert len(overtaken) == proxy.cuts == 1


async def test_a_lost_answer_is_read_before_others_make_it_be_forgotten(
    pair: tuple[PostgresStore, PostgresStore, Proxy],
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of so many writers a root remembers no more; they have to wait until it is read."""
    store, straight, proxy = pair
    await store.put(NS, "k", 1)
    await store.increment(NS, "k")  # the statements are known now
    others = await connect(Target.parse(postgres_url, busy_timeout=0.2))
    asked: list[Any] = []

    async def last(*place: Any) -> Any:
        asked.append(place)
        if len(asked) == 1:
            with suppress(asyncpg.LockNotAvailableError):
                for writer in range(statements.MOST_WRITERS):
                    puts = [Put(NS, "a\tb\t", "other", b"5")]
                    await put_plain(others, "a\t", puts, 1, 0, Stamp(writer, 1, 1))
        return await last_of(*place)

    monkeypatch.setattr("kvstore.postgres.sending.last_of", last)
    proxy.cut(1, "after")
    item = await store.put(NS, "k", 3)
    assert item == await straight.get(NS, "k")
    assert len(asked) == proxy.cuts == 1
    assert await straight.get(NS, "other") is None
    await others.close()


async def test_what_was_sent_before_is_not_done_when_it_comes_late(postgres_url: str) -> None:
    """A message that the network kept, from a connection that was given up."""
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "k", 1)
        late = await connect(Target.parse(postgres_url))
        puts = [Put(NS, "a\tb\t", "k", b"3")]
        stamp = Stamp(writer=7, first=2, number=3)  # the second try
        await put_plain(late, "a\t", puts, 10**15, 0, stamp)
        for number in (1, 2, 3):
            with pytest.raises(asyncpg.PostgresError) as caught:
                await put_plain(late, "a\t", puts, 10**15, 0, Stamp(7, number, number))
            assert caught.value.sqlstate == statements.DONE_BEFORE
        await put_plain(late, "a\t", puts, 10**15, 0, Stamp(7, 4, 4))
        await late.close()
        item = await store.get(NS, "k")
        assert item is not None
        assert item.version == 3


async def test_an_outcome_that_cannot_be_told_is_an_error_that_says_so(
    pair: tuple[PostgresStore, PostgresStore, Proxy],
) -> None:
    store, straight, proxy = pair
    await store.put(NS, "k", "before")
    proxy.is_gone = True
    proxy.cut(1, "after")
    with pytest.raises(StoreAccessError, match="unknown whether it was applied"):
        await store.put(NS, "k", "after")
    proxy.is_gone = False
    await store.put(NS, "k", "at last")
    item = await straight.get(NS, "k")
    assert item is not None
    assert (item.value, item.version) == ("at last", 3)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_read_is_tried_again(
    pair: tuple[PostgresStore, PostgresStore, Proxy], when: When
) -> None:
    store, _, proxy = pair
    await store.put_many(NS, {"a": 1, "b": 2})
    await store.get(NS, "a")
    for number in range(1, 4):
        proxy.cut(number, when)
        assert await store.get(NS, "a") is not None
        assert len(await store.get_many(NS, ["a", "b"])) == 2
        assert await store.keys(NS) == ["a", "b"]
        assert [item.value for item in await store.search(NS, "2")] == [2]
    assert proxy.cuts == 3


async def test_a_text_is_embedded_before_the_one_transaction_that_stores_it(
    postgres_url: str, tmp_path: Path
) -> None:
    """A look, without a transaction, tells which texts the model has to be asked for."""
    proxies: list[Proxy] = []
    asked: list[int] = []
    hashing = HashingEmbeddings(8)

    async def embed(texts: list[str]) -> list[list[float]]:
        asked.append(proxies[0].messages)
        return await hashing.embed_documents(texts)

    index = IndexConfig(embed, dimensions=8, model_id="counted")
    async with pair_at(postgres_url, tmp_path, index) as (store, _, proxy):
        proxies.append(proxy)
        for text in ("one", "two", "three"):
            before = proxy.messages
            await store.put(NS, "k", text)
        assert asked[-1] - before == 1
        assert [item.value for item in await store.search(NS, "three")] == ["three"]


@pytest.mark.parametrize("how", ["pooler", "roots", "lost race"])
async def test_a_text_is_embedded_while_another_has_the_lock(postgres_url: str, how: str) -> None:
    """What is decided under the lock has been looked at before: nobody waits for the model."""
    asked: list[str] = []
    is_asked = asyncio.Event()
    hashing = HashingEmbeddings(8)

    async def embed(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        is_asked.set()
        return await hashing.embed_documents(texts)

    index = IndexConfig(embed, dimensions=8, model_id="counted")
    async with PostgresStore(postgres_url, index=index, pooler=how == "pooler") as store:
        await store.put(NS, "k", "one")
        await store.put(("b",), "k", "one")
        for line in store.backend._writer._lines._lines.values():
            line.locked_turns = 9 if how == "lost race" else 0
        connection = await connect(store.backend.target)
        await connection.execute("BEGIN")
        await connection.execute("SELECT 1 FROM kvstore_roots FOR UPDATE")

        async def write(tx: Any) -> None:
            await tx.put(NS, "k", "two")
            await tx.put(("b",) if how == "roots" else NS, "l", "three")

        asked.clear()
        is_asked.clear()
        writing = asyncio.create_task(store.transact(write))
        async with asyncio.timeout(20):
            await is_asked.wait()
        assert not writing.done()
        assert sorted(asked) == ["three", "two"]
        await connection.close()
        await writing
        assert sorted(asked) == ["three", "two"]
        found = await store.search((), "three", mode="semantic", subtree=True)
        assert found[0].value == "three"


async def test_what_has_no_new_texts_goes_in_the_order_of_the_calls(postgres_url: str) -> None:
    """Also where a put of a new text is looked at before it is written."""
    index = IndexConfig(HashingEmbeddings(8))
    async with PostgresStore(postgres_url, index=index, pooler=True, pool_size=2) as store:
        for _ in range(5):
            await store.put_many(NS, {"told": "one", "counted": 7})
            outcomes = await asyncio.gather(
                store.increment(NS, "counted", 0),
                store.delete(NS, "counted"),
                store.put(NS, "told", "one"),
                store.delete(NS, "told"),
                store.put(NS, "bare", "two", index=False),
                store.delete(NS, "bare"),
            )
            assert (outcomes[0], *outcomes[1::2]) == (7, True, True, True)
            assert await store.keys(NS) == []


async def test_new_texts_of_one_item_are_written_in_the_order_of_the_calls(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the look at what the first one needs takes longer than the look of the second."""
    is_second_over = asyncio.Event()
    looked: list[Any] = []

    async def look(connection: Any, ops: Any, *rest: Any) -> Any:
        looked.append(ops[0].key)
        number = len(looked)
        found = await find_unembedded(connection, ops, *rest)
        if number == 1:
            await is_second_over.wait()
        elif number == 2:
            is_second_over.set()
        return found

    monkeypatch.setattr("kvstore.postgres.store.find_unembedded", look)
    index = IndexConfig(HashingEmbeddings(8), fields=["text"])
    async with PostgresStore(postgres_url, index=index, pooler=True, pool_size=2) as store:
        for texts in (("one", "two"), ("three", "three")):
            looked.clear()
            is_second_over.clear()
            values = [{"text": text, "n": n} for n, text in enumerate(texts)]
            async with asyncio.timeout(20):
                puts = await asyncio.gather(*(store.put(NS, "k", value) for value in values))
            assert puts[0].version < puts[1].version
            assert looked == ["k", "k"]
            assert await store.get(NS, "k") == puts[1]
        assert not store.backend._looks
