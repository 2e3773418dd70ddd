"""After any history, an index is exactly what the items say, whoever wrote them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import kvstore
from kvstore import IndexConfig, InMemoryStore, SQLiteStore, Store
from kvstore.sqlite import driver
from kvstore.sqlite.checking import check_index
from kvstore.sqlite.connection import connect
from kvstore.testing import ManualClock, StoreFactory
from kvstore.testing_search import RecordingEmbeddings, cosine
from tests.postgres.server import Database

T = TypeVar("T")

NAMESPACES = [(), ("a",), ("a", "b"), ("ab",)]
KEYS = ["k0", "k1", "k2", "k3", "*", ""]
WORDS = ["apple", "pear", "plum", "fig", "東京都", "zero", ""]
FIELDS = ("text", "chunks[*]")

namespaces = st.sampled_from(NAMESPACES)
keys = st.sampled_from(KEYS)
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
values = st.one_of(
    st.fixed_dictionaries(
        {"n": st.integers(0, 3)},
        optional={"text": texts, "chunks": st.lists(texts, max_size=4), "other": texts},
    ),
    texts,
    st.none(),
    st.lists(texts, max_size=2),
)
indexing = st.sampled_from([None, False, ["other"], ["$"], ["chunks[0]", "text"]])


def model_of(dimensions: int) -> RecordingEmbeddings:
    return RecordingEmbeddings({"zero": [0.0] * dimensions, "\n": [0.0] * dimensions})


class History(RuleBasedStateMachine):
    """Writes of every kind, by a store with the model, one without it and one without an index."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()
        self.clock = ManualClock()
        self.model = model_of(8)
        self.expected: dict[tuple[tuple[str, ...], str], tuple[Any, Any]] = {}
        self.is_complete = True

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(cache=st.sampled_from([0, 2**20]))
    def open(self, cache: int) -> None:
        path = Path(self.folder.name, "store.db")
        self.open_stores(partial(SQLiteStore, path), vector_cache_bytes=cache)
        self.connection = connect(path, "ro")

    def open_stores(self, factory: StoreFactory, **of_the_first: Any) -> None:
        options: dict[str, Any] = {"clock": self.clock, "sweep_interval": None}
        index = IndexConfig(self.model, fields=FIELDS)
        self.store = factory(index=index, **of_the_first, **options)
        self.writers = [
            self.store,
            factory(**options),
            factory(index=IndexConfig(fields=FIELDS), **options),
        ]
        self.oracle = InMemoryStore(index=index, **options)
        for store in (*self.writers, self.oracle):
            self.run(store.open())

    def problems(self) -> list[str]:
        return list(check_index(self.connection))

    def teardown(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
        if hasattr(self, "store"):
            for store in (*self.writers, self.oracle):
                self.run(store.close())
        self.runner.close()
        self.folder.cleanup()

    def both(self, who: int, method: str, *args: Any, **options: Any) -> None:
        """Do the same to the file, by one of its stores, and to the oracle."""
        outcomes = []
        for store in (self.writers[who], self.oracle):
            try:
                outcomes.append(self.run(getattr(store, method)(*args, **options)))
            except TypeError as exc:
                outcomes.append(type(exc))
        if method in ("remove", "delete", "delete_many"):
            assert outcomes[0] == outcomes[1]
        self.is_complete &= who == 0

    writers_ = st.sampled_from([0, 0, 0, 1, 2])

    @rule(who=writers_, namespace=namespaces, key=keys, value=values, index=indexing)
    def put(self, who: int, namespace: Any, key: str, value: Any, index: Any) -> None:
        self.both(who, "put", namespace, key, value, index=index)

    @rule(who=writers_, namespace=namespaces, key=keys, value=values, ttl=st.sampled_from([1, 5]))
    def put_for_a_while(self, who: int, namespace: Any, key: str, value: Any, ttl: int) -> None:
        self.both(who, "put", namespace, key, value, ttl=ttl)

    @rule(who=writers_, namespace=namespaces, mapping=st.dictionaries(keys, values))
    def put_many(self, who: int, namespace: Any, mapping: Any) -> None:
        self.both(who, "put_many", namespace, mapping)

    @rule(who=writers_, namespace=namespaces, key=keys, text=texts)
    def append(self, who: int, namespace: Any, key: str, text: str) -> None:
        self.both(who, "append", namespace, key, text)

    @rule(who=writers_, namespace=namespaces, key=keys)
    def pop(self, who: int, namespace: Any, key: str) -> None:
        self.both(who, "pop", namespace, key)

    @rule(who=writers_, namespace=namespaces, key=keys)
    def increment(self, who: int, namespace: Any, key: str) -> None:
        self.both(who, "increment", namespace, key, field="text")

    @rule(who=writers_, namespace=namespaces, key=keys, value=values)
    def update(self, who: int, namespace: Any, key: str, value: Any) -> None:
        self.both(who, "update", namespace, key, lambda _: value)

    @rule(who=writers_, namespace=namespaces, key=keys)
    def delete(self, who: int, namespace: Any, key: str) -> None:
        self.both(who, "delete", namespace, key)

    @rule(
        who=writers_,
        namespace=namespaces,
        pattern=st.sampled_from(["*", "k?", "k[01]"]),
        subtree=st.booleans(),
    )
    def remove(self, who: int, namespace: Any, pattern: str, subtree: bool) -> None:
        self.both(who, "remove", namespace, pattern, subtree=subtree)

    @rule(seconds=st.sampled_from([1, 3]), sweep=st.booleans(), who=writers_)
    def wait(self, seconds: int, sweep: bool, who: int) -> None:
        self.clock.advance(seconds)
        if sweep:
            for store in (self.writers[who], self.oracle):
                self.run(store.sweep())

    @precondition(lambda self: not self.is_complete)
    @rule()
    def reindex(self) -> None:
        self.run(self.store.reindex())
        self.is_complete = True

    @invariant()
    def the_index_is_true(self) -> None:
        if hasattr(self, "store"):
            assert self.problems() == []

    @rule(
        namespace=namespaces,
        subtree=st.booleans(),
        query=texts.filter(str.strip),
        n=st.sampled_from([None, 0, 1]),
        limit=st.integers(1, 6),
        offset=st.integers(0, 3),
    )
    def search(
        self, namespace: Any, subtree: bool, query: str, n: Any, limit: int, offset: int
    ) -> None:
        asked: dict[str, Any] = {
            "subtree": subtree,
            "filter": None if n is None else {"n": {"$gte": n}},
        }
        everything = {**asked, "limit": 100}

        def told(store: Store, mode: str, **options: Any) -> list[Any]:
            found = self.run(store.search(namespace, query, mode=mode, **options))
            return [(item.namespace, item.key, item.value, item.score) for item in found]

        by_words = told(self.store, "text", **everything)
        in_memory = told(self.oracle, "text", **everything)
        assert by_words == in_memory  # to the last digit of each score
        by_meaning = told(self.store, "semantic", **everything)
        for _ in range(3):  # the third is answered from the cache, where there is one
            page = told(self.store, "semantic", **asked, limit=limit, offset=offset)
            assert page == by_meaning[offset : offset + limit]
        if self.is_complete:
            exact = told(self.oracle, "semantic", **everything)
            assert [each[:3] for each in by_meaning] == [each[:3] for each in exact]
            assert [each[3] for each in by_meaning] == pytest.approx(
                [each[3] for each in exact], abs=2e-6
            )
        else:
            assert {repr(each[:3]) for each in by_meaning} <= {
                repr((item.namespace, item.key, item.value))
                for item in self.run(self.oracle.search(namespace, subtree=subtree, limit=1000))
            }


class HistoryOnAServer(History):
    database: Database

    @initialize(cache=st.just(0))
    def open(self, cache: int) -> None:
        from kvstore.postgres.connection import Target, connect

        self.stack = ExitStack()
        url = self.stack.enter_context(self.database.tables())
        self.open_stores(partial(kvstore.open, url))
        self.raw = self.run(connect(Target.parse(url)))

    def teardown(self) -> None:
        if hasattr(self, "raw"):
            self.run(self.raw.close())
        super().teardown()
        if hasattr(self, "stack"):
            self.stack.close()

    def problems(self) -> list[str]:
        from kvstore.postgres.checking import find_index_problems

        return self.run(find_index_problems(self.raw))


@pytest.fixture(scope="class")
def _database(postgres: Database) -> None:
    HistoryOnAServer.database = postgres


TestHistory = pytest.mark.skipif(
    not driver.CAN_LOAD_EXTENSIONS, reason="this SQLite loads no extensions"
)(pytest.mark.slow(History.TestCase))
TestHistoryOnAServer = pytest.mark.usefixtures("_database")(HistoryOnAServer.TestCase)
TestHistoryOnAServer.settings = settings(max_examples=30, stateful_step_count=30)


def test_the_oracle_is_a_scan_in_doubles() -> None:
    """What the oracle ranks by is the cosine of the model's vectors."""
    model = model_of(8)

    async def main() -> None:
        async with InMemoryStore(index=IndexConfig(model)) as store:
            await store.put_many(("n",), {f"k{at}": f"text {at}" for at in range(100)})
            items = await store.search(("n",), "query", limit=100)
            query = model.vector("query")
            exact = {f"k{at}": cosine(query, model.vector(f"text {at}")) for at in range(100)}
            assert [item.key for item in items] == sorted(exact, key=lambda key: -exact[key])

    asyncio.run(main())
