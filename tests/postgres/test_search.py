"""What is PostgreSQL's own in the search: its index of vectors, its extension, many stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from kvstore import (
    EmbeddingError,
    IndexConfig,
    MissingDependencyError,
    SearchQuery,
)
from kvstore.filters import matches, parse_filter
from kvstore.namespace import encode_namespace
from kvstore.testing_search import RecordingEmbeddings, found, random_vector
from tests.postgres.server import Database, reason_to_skip
from tests.properties.strategies import json_values
from tests.search.models import OtherModel

pytest.importorskip("asyncpg", reason=reason_to_skip())

from kvstore.postgres import PostgresStore, index_statements, searching, statements
from kvstore.postgres.codes import MANY, conditions_of, scalars_of
from kvstore.postgres.connection import Target, connect
from kvstore.sql import Sql
from tests.waiting import until

NS = ("notes",)


@pytest.fixture
def model() -> RecordingEmbeddings:
    return RecordingEmbeddings()


def store_with(url: str, model: Any, **config: Any) -> PostgresStore:
    return PostgresStore(url, index=IndexConfig(model, **config))


async def test_check_finds_what_is_wrong_with_an_index(
    postgres_url: str, model: RecordingEmbeddings
) -> None:
    async with store_with(postgres_url, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana", "c": {"text": "cherry"}})
        raw = await connect(Target.parse(postgres_url))
        await raw.execute("DELETE FROM kvstore_items WHERE key = 'a'")
        await raw.execute("UPDATE kvstore_entries SET texts = '' WHERE key = 'b'")
        await raw.execute("UPDATE kvstore_facts SET facts = '{1}' WHERE key = 'c'")
        await raw.execute("UPDATE kvstore_turns SET entries = 7")
        await raw.close()
        problems = (await store.check()).problems
    for what in ("'b'", "'c'", "kvstore_entries", "kvstore_facts", "kvstore_vectors", "numbers"):
        assert sum(what in problem for problem in problems) == 1, (what, problems)


async def test_first_vectors_wait_for_the_table_that_another_put_makes(
    postgres_url: str, model: RecordingEmbeddings
) -> None:
    raw = await connect(Target.parse(postgres_url))
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with store_with(postgres_url, model) as store:
        await raw.execute("BEGIN")
        await raw.execute(statements.LOCK_TABLES)
        first = asyncio.create_task(store.put(NS, "a", "apple"))
        await until(lambda: raw.fetchval(waits), limit=30)
        others = [asyncio.create_task(store.put(NS, key, key)) for key in "bcd"]
        await model.asked(2)
        await asyncio.sleep(0.05)
        assert await raw.fetchval(waits) == 1
        await raw.execute("COMMIT")
        await asyncio.gather(first, *others)
    async with store_with(postgres_url, model) as store:
        assert sorted(found(await store.search(NS, "apple"))) == ["a", "b", "c", "d"]
    await raw.close()


async def test_a_sample_of_vectors_comes_from_all_over(
    postgres_url: str, model: RecordingEmbeddings
) -> None:
    async with store_with(postgres_url, model) as store:
        assert await store.backend.sample_vectors("", 10) == []
        await store.put_many(("a", "b"), {f"{n}\n": f"text {n}" for n in range(40)})
        await store.put(("other",), "k", "apple")
        sample = await store.backend.sample_vectors("", 100)
        assert len(sample) == 41
        by_address = {(path, key): vector for path, key, vector in sample}
        apple = np.array(model.vector("apple"), dtype="<f4")
        kept = np.frombuffer(by_address[encode_namespace(("other",)), "k"], dtype="<f4")
        assert np.allclose(kept, apple / np.linalg.norm(apple), atol=1e-6)
        some = await store.backend.sample_vectors(encode_namespace(("a",)), 10)
        assert 0 < len(some) <= 10
        assert {path for path, _, _ in some} == {encode_namespace(("a", "b"))}
    async with PostgresStore(postgres_url) as store:  # it needs no model
        assert len(await store.backend.sample_vectors("", 100)) == 41


# Among many vectors


class Hilly(RecordingEmbeddings):
    """A model whose vectors lie on hills, as those of sentences do."""

    def vector(self, text: str) -> list[float]:
        hill = random_vector(f"hill {int(text.rsplit(maxsplit=1)[-1]) % 40}", 32)
        return [0.5 * a + b for a, b in zip(random_vector(text, 32), hill, strict=True)]


class Truth:
    """The nearest values to a query, by a comparison with each."""

    def __init__(self, model: Hilly, values: dict[str, Any]) -> None:
        self._model = model
        self._keys = np.array(list(values))
        vectors = np.array([model.vector(value["text"]) for value in values.values()])
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def best(self, query: str, passing: Any = None, count: int = 10) -> list[str]:
        order = np.argsort(-(self._vectors @ np.array(self._model.vector(query))))
        keys = self._keys[order].tolist()
        return [key for key in keys if passing is None or key in passing][:count]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take some hundred vectors for many."""
    monkeypatch.setattr(searching, "EXACT_VECTORS", 100)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
async def test_filters_among_many_vectors_lose_nothing(postgres_url: str) -> None:
    """By the HNSW index, by scalars, and by a sample; also where what passes lies farthest."""
    model = Hilly()
    values: dict[str, dict[str, Any]] = {}
    for at in range(4000):
        text = f"text {at}"
        values[f"k{at:04}"] = {"text": text, "group": at % 100, "third": at % 3 == 0, "n": at}
    truth = Truth(model, values)
    for key in truth.best("query 7", count=4000)[-40:]:
        values[key]["far"] = "yes"
        values[key]["least"] = -1
    ways: list[str] = []

    class Spy(searching._Finder):
        async def _neighbours(self, *args: Any) -> Any:
            ways.append("hnsw")
            return await super()._neighbours(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "_Finder", Spy)
        async with store_with(postgres_url, model, fields=["text"]) as store:
            for begin in range(0, 4000, 500):
                some = dict(list(values.items())[begin : begin + 500])
                await store.put_many(("big",), some)
            await store.put_many(("other",), {f"k{at}": {"text": f"x {at}"} for at in range(300)})

            async def recall(filter: Any, query: str) -> float:
                node = parse_filter(filter)
                exact = truth.best(query, {key for key in values if matches(node, values[key])})
                asked = SearchQuery(query, filter=filter, limit=10, mode="semantic")
                items = await store.search(("big",), asked)
                assert len(items) == len(exact)
                scores = [item.score or 0.0 for item in items]
                assert scores == sorted(scores, reverse=True)
                return len(set(exact) & set(found(items))) / len(exact)

            def queries(number: int) -> list[str]:
                return [f"query {at}" for at in range(number)]

            async def mean(filter: Any) -> float:
                return sum([await recall(filter, query) for query in queries(10)]) / 10

            assert await mean(None) >= 0.98
            assert ways.count("hnsw") == 10
            ways.clear()
            assert await mean({"third": True}) >= 0.98
            assert await mean({"n": {"$gte": 500}}) >= 0.98
            assert ways.count("hnsw") == 20
            ways.clear()
            near_one = {"group": {"$gt": 6.5, "$lt": 7.5}}
            for rare in ({"group": 7}, near_one, {"far": "yes"}, {"least": {"$lt": 0}}):
                assert await mean(rare) == 1.0
            assert ways == []
            assert await mean({"n": {"$lt": 40}}) >= 0.98  # many of the sample pass, few of all
            # A sample that promises more than there is: the scan gives up, and an exact one follows
            patch.setattr(searching, "FEW", 0.0)
            patch.setattr(searching, "SAMPLE", 1)
            patch.setattr(searching, "MOST_SCANNED", 1e9)
            scan = index_statements.USE_HNSW.replace("relaxed_order", "off")
            patch.setattr(index_statements, "USE_HNSW", scan)
            assert await mean({"$or": [{"least": {"$lt": 0}}, {"n": 0}]}) == 1.0
            assert ways


@pytest.mark.slow
@pytest.mark.usefixtures("few")
async def test_pages_among_many_vectors_add_up(postgres_url: str) -> None:
    model = Hilly()
    async with store_with(postgres_url, model, fields=["text"]) as store:
        await store.put_many(("big",), {f"k{at:04}": {"text": f"t {at}"} for at in range(1500)})
        whole = found(await store.search(("big",), "query 1", mode="semantic", limit=5000))
        assert len(whole) == len(set(whole)) == 1500
        assert len(found(await store.search((), "query 1", limit=300, subtree=True))) == 300
        head = found(await store.search(("big",), "query 1", mode="semantic", limit=40))
        assert len(set(head) & set(whole[:40])) >= 39


@pytest.mark.usefixtures("few")
async def test_items_of_many_vectors_are_found_once(postgres_url: str) -> None:
    """Also by the HNSW index, whose first neighbours are all of one item."""
    model = RecordingEmbeddings()
    async with store_with(postgres_url, model, fields=["chunks[*]"]) as store:
        same = [f"chunk {at}" for at in range(100)]
        model.vectors |= dict.fromkeys(same, random_vector("the same"))
        await store.put(NS, "long", {"chunks": same})
        await store.put_many(
            NS, {f"k{at}": {"chunks": [f"a {at}", f"b {at}"]} for at in range(200)}
        )
        model.vectors["query"] = random_vector("the same")
        for limit in (1, 10, 150):
            keys = found(await store.search(NS, "query", limit=limit))
            assert keys[0] == "long"
            assert len(set(keys)) == limit


@pytest.mark.parametrize("dimensions", [2_000, 2_500, 4_500])
async def test_long_vectors(postgres_url: str, few: None, dimensions: int) -> None:
    """By an index, by one of half precision, and by none."""
    model = OtherModel(dimensions)
    async with store_with(postgres_url, model) as store:
        await store.put_many(NS, {f"k{at:03}": f"text {at}" for at in range(120)})
        (item,) = await store.search(NS, "text 7", limit=1)
        assert (item.key, item.score) == ("k007", 1.0)
        assert len(await store.search(NS, "text 7", limit=200)) == 120


async def test_too_long_vectors_are_refused(postgres_url: str) -> None:
    async with store_with(postgres_url, OtherModel(16_001)) as store:
        with pytest.raises(EmbeddingError, match="16,000"):
            await store.put(NS, "k", "text")
        assert await store.get(NS, "k") is None


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "a", "1"])
names = st.sampled_from(["a", "b", "c.d", ""])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3)
)
paths = st.sampled_from(["a", "b", "a.b", "a.a.a", "b[0]", '"c.d"', "a.b.a.b.a"])
conditions = st.tuples(
    paths,
    scalars.map(lambda operand: {"$eq": operand})
    | st.lists(scalars, max_size=3).map(lambda operands: {"$in": operands})
    | scalars.map(lambda operand: {"$ne": operand})
    | values.map(lambda operand: {"$eq": operand}),
).map(lambda pair: {pair[0]: pair[1]})
filters = st.recursive(
    conditions,
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda some: st.sampled_from([{"$and": some}, {"$or": some}, {"$not": some[0]}])
    ),
    max_leaves=5,
)


@given(filters, st.one_of(values, json_values))
def test_scalars_never_leave_out_what_passes(filter: Any, value: Any) -> None:
    node = parse_filter(filter)
    codes = set(scalars_of(value))
    has = all(codes & set(condition) for condition in conditions_of(node))
    assert has or not matches(node, value)


def test_scalars_are_of_use() -> None:
    node = parse_filter({"a": {"b": 1}} | {"c": "x"})
    assert conditions_of(parse_filter({"a.b": 1.0, "c": "x"})) != []
    assert not set(scalars_of({"c": "y"})) & set(conditions_of(node)[-1])
    assert scalars_of({"a": 1}) == scalars_of({"a": 1.0}) != scalars_of({"a": True})
    assert scalars_of({str(at): at for at in range(100)}) == [MANY]


# Words


async def test_texts_of_any_length_are_indexed(postgres_url: str) -> None:
    """A `tsvector` would take neither of these."""
    async with PostgresStore(postgres_url, index=IndexConfig()) as store:
        long = " ".join(f"word{at}" for at in range(110_000))
        await store.put(NS, "long", long)
        await store.put(NS, "deep", "字" * 40_000 + "東京")
        assert found(await store.search(NS, "word109999", mode="text")) == ["long"]
        assert found(await store.search(NS, "東京", mode="text")) == ["deep"]
        assert await store.delete(NS, "long")
        assert await store.search(NS, "word109999", mode="text") == []
        assert (await store.check()).ok


async def test_expired_items_do_not_make_a_page_short(
    postgres_url: str, model: RecordingEmbeddings
) -> None:
    now = 1_750_000_000.0
    store = PostgresStore(
        postgres_url, index=IndexConfig(model), clock=lambda: now, sweep_interval=None
    )
    async with store:
        await store.put_many(NS, {f"k{at:03}": "word" for at in range(100)}, ttl=5)
        await store.put_many(NS, {f"l{at:03}": "word" for at in range(20)})
        now += 10
        for mode in ("text", "semantic", "hybrid"):
            keys = found(await store.search(NS, "word", mode=mode, limit=10))
            assert keys == [f"l{at:03}" for at in range(10)]


# The extension


@pytest.fixture
def bare_url(postgres: Database) -> Iterator[str]:
    """A database without pgvector, and a user who cannot create it."""
    if postgres.execute("SELECT count(*) FROM pg_roles WHERE rolname = current_user AND rolsuper"
                        ) == 0:  # fmt: skip
        pytest.skip("the tests' user may not create users and databases")
    name = "kvstore_test_bare"
    postgres.execute(f"CREATE DATABASE {name}")
    try:
        postgres.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'bare'")
        bare = Database(urlsplit(postgres.url)._replace(path=f"/{name}").geturl(), extension=False)
        try:
            bare.execute(f"CREATE SCHEMA kv AUTHORIZATION {name}")
            bare.execute(f"ALTER ROLE {name} SET search_path = kv")
            parts = urlsplit(bare.url)
            netloc = f"{name}:bare@{parts.netloc.rpartition('@')[2]}"
            yield parts._replace(netloc=netloc).geturl()
        finally:
            bare.close()
    finally:
        postgres.execute(f"DROP DATABASE {name}")
        postgres.execute(f"DROP ROLE {name}")


async def test_without_pgvector_words_are_searched(
    bare_url: str, model: RecordingEmbeddings
) -> None:
    with pytest.raises(MissingDependencyError, match="CREATE EXTENSION vector"):
        await store_with(bare_url, model).open()
    async with PostgresStore(bare_url, index=IndexConfig()) as store:
        await store.put(NS, "a", "apple")
        assert found(await store.search(NS, "apples")) == ["a"]
        assert (await store.check()).ok


async def test_pgvector_may_be_in_any_schema(
    postgres: Database, bare_url: str, model: RecordingEmbeddings
) -> None:
    path = urlsplit(bare_url).path
    admin = Database(urlsplit(postgres.url)._replace(path=path).geturl(), extension=False)
    try:
        admin.execute('CREATE SCHEMA "Odd ""Name"; GRANT USAGE ON SCHEMA "Odd ""Name" TO public')
        admin.execute('CREATE EXTENSION vector SCHEMA "Odd ""Name"')
    finally:
        admin.close()
    async with store_with(bare_url, model) as store:
        await store.put_many(NS, {"a": "apple", "b": "banana"})
        assert found(await store.search(NS, "banana", limit=1)) == ["b"]
        assert (await store.check()).ok


# Plans


async def test_statements_use_their_indexes(postgres_url: str, model: RecordingEmbeddings) -> None:
    async with store_with(postgres_url, model) as store:
        await store.put_many(NS, {f"k{at}": {"text": f"text {at}", "n": at} for at in range(300)})
        raw = await connect(Target.parse(postgres_url))
        within = Sql("TRUE")
        condition = Sql("items.expires_at IS NULL")
        query = model.vector("query")
        table = f"kvstore_vectors_of_{len(query)}"

        async def plan(statement: Sql) -> str:
            explained = f"EXPLAIN {statement.render()}"
            return "\n".join(row[0] for row in await raw.fetch(explained, *statement.params))

        try:
            async with raw.transaction():
                await raw.execute(index_statements.USE_HNSW.format(ef_search=100))
                for filter in (None, condition):
                    found = await plan(
                        index_statements.nearest(table, "public", query, within, filter, 10, None)
                    )
                    assert f"Index Scan using {table}_hnsw" in found
            async with raw.transaction():
                await raw.execute("SET LOCAL enable_seqscan = off")
                compared = index_statements.comparing(table, "public", query, None, within)
                assert "hnsw" not in await plan(index_statements.page_of(compared, 10, 0))
                found = await plan(
                    index_statements.page_of(index_statements.by_words([(1, 1.0)], 2, 3.0), 10, 0)
                )
                assert "kvstore_entries_words" in found
                found = await plan(index_statements.passing_scalars(within, [[1, 0]]))
                assert "kvstore_facts_facts" in found
        finally:
            await raw.close()
