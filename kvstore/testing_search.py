"""`SearchConformance`: the contract of ranked search as a pytest class, for authors of backends.

As `kvstore.testing.StoreConformance`: give it a fixture `store_factory(**options)` that makes a
store which is not open yet; here it takes `index=IndexConfig(...)` and `clock`, too.

    class TestMySearch(SearchConformance):
        @pytest.fixture
        def store_factory(self, tmp_path):
            return partial(MyStore, tmp_path / "my.store")
"""

from __future__ import annotations

import asyncio
import io
import math
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from kvstore.distribution import or_install
from kvstore.errors import (
    EmbeddingError,
    IndexMismatchError,
    InvalidArgumentError,
    InvalidFilterError,
    StoreError,
)
from kvstore.store import Store
from kvstore.testing import ManualClock, StoreFactory, StoreFixtures, refused, there
from kvstore.transaction import Transaction
from kvstore.types import IndexConfig, Item, SearchQuery

_NEEDS = "kvstore.testing_search needs pytest and pytest-asyncio"
with or_install(_NEEDS, "test", "pytest", "pytest-asyncio"):
    import pytest
    import pytest_asyncio

__all__ = ["RecordingEmbeddings", "SearchConformance"]

DIMENSIONS = 8
NS = ("notes", "alice")
MODES = ("semantic", "text", "hybrid")

HOSTILE_QUERIES = [
    *('"', '""', "'", "*", "^", "-", "+", "(", ")", "()", ":", "text:", "{", "}", "C++"),
    "user-1",
    *("AND", "OR", "NOT", "NEAR", "a AND", "NEAR(a b, 2)", '"open', "a* OR", "text : a", "-a"),
    *("SELECT * FROM items", "'; DROP TABLE items; --", "\x00", "a\x00b", "\U0010ffff"),
    *("🙂", "...", "؟", "ﷺ", "\u202e", "İ", "ß", "½", "e\u0301", "%", "_"),
    *("\\", "\n", "\t ", "\u3000"),
]  # fmt: skip


def ranked(items: list[Item]) -> list[tuple[str, Any]]:
    """Return the keys of items with their scores."""
    return [(item.key, item.score) for item in items]


def random_vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return a vector that depends on the text alone."""
    numbers = random.Random(text)
    return [numbers.gauss(0, 1) for _ in range(dimensions)]


class RecordingEmbeddings:
    """A model whose answers a test knows, and that remembers what it was asked.

    Args:
        vectors: of some texts; the others get random ones.
    """

    def __init__(self, vectors: dict[str, list[float]] | None = None) -> None:
        self.vectors = vectors or {}
        self.calls: list[list[str]] = []
        self.poison: str | None = None  # fails a call with a text that holds it
        self.gate: asyncio.Event | None = None  # to be set before a call is answered
        self.model_id = "recording"
        self._called = asyncio.Condition()

    async def asked(self, times: int) -> None:
        """Wait until so many calls were made."""
        async with self._called:
            await self._called.wait_for(lambda: len(self.calls) >= times)

    @property
    def texts(self) -> list[str]:
        """All documents that it was given."""
        return [text for call in self.calls for text in call]

    def vector(self, text: str) -> list[float]:
        """Return the answer for one text."""
        return self.vectors.get(text) or random_vector(text)

    async def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a vector for each text."""
        async with self._called:
            self.calls.append(list(texts))
            self._called.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        if self.poison is not None and any(self.poison in text for text in texts):
            raise RuntimeError("poison")
        return [self.vector(text) for text in texts]

    async def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query."""
        return self.vector(text)


Model = RecordingEmbeddings
Make = Callable[[IndexConfig], Store]


def cosine(left: list[float], right: list[float]) -> float:
    """Return the cosine of two vectors, in doubles."""
    return math.fsum(map(float.__mul__, left, right)) / (math.hypot(*left) * math.hypot(*right))


def at_angle(score: float) -> list[float]:
    """Return a unit vector whose cosine to the first axis is `score`."""
    return [score, math.sqrt(1 - score * score)] + [0.0] * (DIMENSIONS - 2)


FIRST_AXIS = at_angle(1.0)


def found(items: list[Item]) -> list[str]:
    """Return the keys of items."""
    return [item.key for item in items]


class SearchConformance(StoreFixtures):
    """What every backend promises of semantic, text and hybrid search."""

    @pytest.fixture
    def model(self) -> Model:
        return RecordingEmbeddings({"query": FIRST_AXIS})

    @pytest_asyncio.fixture
    async def store(self, make: Make, model: Model) -> AsyncIterator[Store]:  # type: ignore[override]
        """A store with a model, indexing whole values."""
        async with make(IndexConfig(model)) as store:
            yield store

    @pytest.fixture
    def make(self, store_factory: StoreFactory, clock: ManualClock) -> Make:
        """What makes a store of an index, not open yet, whose time stands still."""
        return lambda index: store_factory(index=index, clock=clock, sweep_interval=None)

    async def test_stats_tell_how_much_is_indexed(self, store: Store) -> None:
        await store.put(NS, "a", "text")
        await store.put(NS, "b", "text", index=False)
        stats = await store.stats()
        assert (stats.indexed, stats.index_coverage) == (2, 1.0)

    # By meaning

    async def test_vectors_of_another_length_are_not_compared_with_the_models(
        self, store: Store
    ) -> None:
        await store.put(NS, "own", "apple", vector=[1.0, 0.0, 0.0])
        await store.put(NS, "text", "apple")
        assert found(await store.search(NS, "apple", mode="text")) == ["own", "text"]
        with pytest.raises(IndexMismatchError, match="reindex"):
            await store.search(NS, "query", mode="semantic")
        assert await store.reindex() == 2
        assert sorted(found(await store.search(NS, "query", mode="semantic"))) == ["own", "text"]
        with pytest.raises(InvalidArgumentError, match="numbers"):
            await store.search(NS, vector=[1.0, 0.0, 0.0])

    async def test_semantic_search_ranks_by_cosine(self, store: Store, model: Model) -> None:
        scores = {"near": 0.9, "middle": 0.5, "far": 0.1}
        for key, score in scores.items():
            model.vectors[key] = at_angle(score)
            await store.put(NS, key, key)
        items = await store.search(NS, "query")
        assert found(items) == ["near", "middle", "far"]
        for item in items:
            assert item.score == pytest.approx(scores[item.key], abs=1e-6)

    async def test_length_of_vectors_is_of_no_matter(self, store: Store, model: Model) -> None:
        for key, length in (("tiny", 1e-200), ("plain", 1.0), ("huge", 1e200)):
            model.vectors[key] = [length * number for number in at_angle(0.5)]
            await store.put(NS, key, key)
        assert [item.score for item in await store.search(NS, "query")] == pytest.approx([0.5] * 3)

    async def test_scores_are_clamped_and_opposites_still_ranked(
        self, store: Store, model: Model
    ) -> None:
        model.vectors |= {"opposite": at_angle(-1.0), "aside": at_angle(-0.2), "same": FIRST_AXIS}
        for key in ("opposite", "aside", "same"):
            await store.put(NS, key, key)
        items = await store.search(NS, "query")
        assert found(items) == ["same", "aside", "opposite"]
        assert [item.score for item in items] == [1.0, 0.0, 0.0]

    @pytest.mark.parametrize("context", [0, 1])
    async def test_auto_goes_by_both_unless_a_cosine_is_asked_for(
        self, make: Make, model: Model, context: int
    ) -> None:
        model.vectors |= {"apple": FIRST_AXIS, "the query": at_angle(0.2), "query": at_angle(0.9)}
        async with make(IndexConfig(model, context=context)) as store:
            await store.put_many(NS, {"a": "apple", "b": "the query", "c": "cherry"})
            same: list[tuple[str, str | None, dict[str, Any]]] = [
                ("hybrid", "query", {}),
                ("hybrid", "query", {"vector": at_angle(0.5)}),
                ("semantic", "query", {"min_score": 0.0}),
                ("semantic", None, {"vector": at_angle(0.5)}),
            ]
            for mode, query, options in same:
                auto = await store.search(NS, query, **options)
                told = await store.search(NS, query, mode=mode, **options)
                assert ranked(auto) == ranked(told)
                assert auto
            assert found(await store.search(NS, "query"))[0] == ("a" if context else "b")
            assert found(await store.search(NS, "query", min_score=0.1))[0] == "a"

    async def test_auto_finds_no_less_than_meaning_and_says_how_near_it_is(
        self, store: Store, model: Model
    ) -> None:
        model.vectors |= {"query": FIRST_AXIS, "unlike": at_angle(0.3), "like": at_angle(0.8)}
        await store.put(NS, "k", "unlike")
        assert ranked(await store.search(NS, "query")) == [("k", pytest.approx(0.3, abs=1e-5))]
        await store.put(NS, "l", "like")
        assert ranked(await store.search(NS, "query")) == [
            ("l", pytest.approx(0.8, abs=1e-5)),
            ("k", pytest.approx(0.3, abs=1e-5)),
        ]
        await store.put_many(NS, {f"k{at}": f"text {at}, query" for at in range(150)})
        for limit, offset in [(1, 0), (10, 95), (149, 0), (200, 0), (200, 149)]:
            auto = await store.search(NS, "query", limit=limit, offset=offset)
            told = await store.search(NS, "query", limit=limit, offset=offset, mode="semantic")
            assert len(auto) == len(told)
            scores = [item.score or 0.0 for item in auto]
            assert scores == sorted(scores, reverse=True)

    async def test_equal_scores_are_ordered_by_place(self, store: Store) -> None:
        keys = [f"k{at:03}" for at in range(40)]
        for key in random.Random(1).sample(keys, len(keys)):
            await store.put(NS, key, "the same text")
        pages = [
            await store.search(NS, "query", limit=7, offset=offset) for offset in range(0, 42, 7)
        ]
        assert [item.key for page in pages for item in page] == keys

    async def test_a_text_without_direction_is_not_found_by_meaning(
        self, store: Store, model: Model
    ) -> None:
        model.vectors["nothing"] = [0.0] * DIMENSIONS
        await store.put(NS, "k", "nothing")
        await store.put(NS, "other", "something")
        assert found(await store.search(NS, "query")) == ["other"]
        assert await store.search(NS, "nothing", mode="semantic") == []
        assert found(await store.search(NS, "nothing")) == ["k"]  # by its words
        await store.put(NS, "other", "nothing")
        assert await store.search(NS, "query") == []
        assert len(await store.search(NS, "nothing")) == 2

    async def test_recall_is_exact_in_every_scope(self, store: Store, model: Model) -> None:
        namespaces = [("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("b",)]
        texts = {}
        for at in range(150):
            namespace = namespaces[at % 5]
            texts[namespace, f"k{at}"] = f"text {at}"
            await store.put(namespace, f"k{at}", f"text {at}")
        for scope, subtree in [(("a",), False), (("a",), True), ((), True), (("a", "b"), True)]:
            for at in range(5):
                query = model.vector(f"question {at}")
                best = sorted(
                    (-cosine(query, model.vector(text)), namespace, key)
                    for (namespace, key), text in texts.items()
                    if namespace == scope or (subtree and namespace[: len(scope)] == scope)
                )
                items = await store.search(
                    scope, f"question {at}", mode="semantic", limit=10, subtree=subtree
                )
                assert [(item.namespace, item.key) for item in items] == [
                    (namespace, key) for _, namespace, key in best[:10]
                ]

    # Filters, pages and limits

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("share", [1, 5, 50])
    async def test_filters_never_make_a_page_short(
        self, store: Store, model: Model, mode: str, share: int
    ) -> None:
        """What passes is what lies farthest from the query."""
        many = 200
        for at in range(many):
            text = "word " * (many - at) + f"n{at}"
            model.vectors[f"{text}\n{at}"] = at_angle(1 - at / many)
        await store.put_many(
            NS,
            {
                f"k{at:03}": {"text": "word " * (many - at) + f"n{at}", "n": at}
                for at in range(many)
            },
        )
        model.vectors["word"] = FIRST_AXIS
        passing = many * share // 100
        items = await store.search(
            NS, "word", mode=mode, filter={"n": {"$gte": many - passing}}, limit=10
        )
        assert len(items) == min(10, passing)
        assert all(item.value["n"] >= many - passing for item in items)
        if mode == "semantic":
            assert [item.value["n"] for item in items] == [
                many - passing + at for at in range(len(items))
            ]

    @pytest.mark.parametrize("mode", MODES)
    async def test_pages_add_up_to_the_whole_ranking(self, store: Store, mode: str) -> None:
        words = ["red", "green", "blue"]
        await store.put_many(
            NS, {f"k{at:03}": " ".join(words[: at % 3 + 1]) + f" {at}" for at in range(130)}
        )
        whole = await store.search(NS, "red blue green", mode=mode, limit=1000)
        assert len(whole) == 130
        scores = [item.score or 0.0 for item in whole]
        assert scores == sorted(scores, reverse=True)
        for size in (1, 7, 50, 64):
            pages: list[Item] = []
            for offset in range(0, 140, size):
                page = await store.search(
                    NS, "red blue green", mode=mode, limit=size, offset=offset
                )
                pages += page
            assert pages == whole

    @pytest.mark.parametrize("mode", MODES)
    async def test_limits_and_offsets_of_any_size(self, store: Store, mode: str) -> None:
        await store.put(NS, "k", "query")
        assert await store.search(NS, "query", mode=mode, limit=0) == []
        assert len(await store.search(NS, "query", mode=mode, limit=10**30)) == 1
        assert await store.search(NS, "query", mode=mode, limit=10**30, offset=10**30) == []
        for bad in ({"limit": -1}, {"offset": -1}, {"limit": True}, {"mode": "best"}):
            await refused(InvalidArgumentError, store.search(NS, "query", **bad))

    async def test_min_score_leaves_out_what_scores_less(self, store: Store, model: Model) -> None:
        for score in (0.9, 0.5, 0.1):
            model.vectors[str(score)] = at_angle(score)
            await store.put(NS, str(score), str(score))
        assert found(await store.search(NS, "query", min_score=0.4)) == ["0.9", "0.5"]
        assert await store.search(NS, "query", min_score=1) == []
        await refused(
            InvalidArgumentError,
            store.search(NS, "query", min_score="high"),  # type: ignore[arg-type]
            store.search(NS, "query", min_score=float("nan")),
        )

    @pytest.mark.parametrize("mode", MODES)
    async def test_scores_lie_between_0_and_1_and_only_here(self, store: Store, mode: str) -> None:
        await store.put_many(NS, {f"k{at}": f"word {at}" for at in range(30)})
        items = await store.search(NS, "word 3", mode=mode, limit=30)
        assert items
        for item in items:
            assert item.score is not None
            assert 0 <= item.score <= 1
        assert all(item.score is None for item in await store.search(NS))

    @pytest.mark.parametrize("mode", MODES)
    async def test_a_namespace_never_shows_items_of_another(self, store: Store, mode: str) -> None:
        spaces = [("a",), ("ab",), ("a", "b"), ("A",), ("%",), ("_",), ("*",), ("a\tb",), ()]
        for namespace in spaces:
            await store.put(namespace, "k", "the same word")
        for namespace in spaces:
            items = await store.search(namespace, "word", mode=mode, limit=100)
            assert [item.namespace for item in items] == [namespace]
            below = await store.search(namespace, "word", mode=mode, limit=100, subtree=True)
            assert sorted(item.namespace for item in below) == sorted(
                space for space in spaces if space[: len(namespace)] == namespace
            )
        assert await store.search(("nowhere",), "word", mode=mode, subtree=True) == []

    async def test_bad_filters_are_refused(self, store: Store) -> None:
        await refused(InvalidFilterError, store.search(NS, "query", filter={"a": {"$near": 1}}))

    async def test_search_takes_a_whole_query(self, store: Store) -> None:
        await store.put(NS, "k", {"a": "word"})
        asked = SearchQuery("word", filter={"a": "word"}, mode="hybrid", limit=3)
        assert found(await store.search(NS, asked)) == ["k"]

    @pytest.mark.parametrize("mode", MODES)
    async def test_an_empty_query_is_none_and_a_blank_one_finds_nothing(
        self, store: Store, mode: str
    ) -> None:
        await store.put(NS, "k", "word")
        assert [item.score for item in await store.search(NS, "", mode=mode)] == [None]
        assert await store.search(NS, " \n", mode=mode) == []

    # What of a value is indexed

    async def test_only_the_fields_are_indexed(self, make: Make, model: Model) -> None:
        index = IndexConfig(model, fields=["title", "body.text", "missing", "n"])
        async with make(index) as store:
            value = {"title": "apple", "body": {"text": "pear"}, "secret": "plum", "n": 7}
            await store.put(NS, "k", value)
            assert sorted(model.texts) == ["7", "apple", "pear"]
            assert await store.search(NS, "plum", mode="text") == []
            for word in ("apple", "pear", "7"):
                assert found(await store.search(NS, word, mode="text")) == ["k"]

    async def test_elements_get_a_vector_each_and_the_best_counts(
        self, make: Make, model: Model
    ) -> None:
        async with make(IndexConfig(model, fields=["chunks[*].text"])) as store:
            model.vectors |= {"a": at_angle(0.9), "b": at_angle(0.2), "c": at_angle(0.6)}
            await store.put(NS, "two", {"chunks": [{"text": "b"}, {"text": "a"}, {"other": "x"}]})
            await store.put(NS, "one", {"chunks": [{"text": "c"}]})
            await store.put(NS, "none", {"chunks": []})
            items = await store.search(NS, "query")
            assert [(item.key, item.score) for item in items] == [("two", 0.9), ("one", 0.6)]
            await store.put(NS, "two", {"chunks": [{"text": "b"}]})
            items = await store.search(NS, "query")
            assert [(item.key, item.score) for item in items] == [("one", 0.6), ("two", 0.2)]
            assert sorted(model.texts) == ["a", "b", "c"]

    async def test_items_with_many_vectors_do_not_crowd_out_others(
        self, make: Make, model: Model
    ) -> None:
        async with make(IndexConfig(model, fields=["[*]"])) as store:
            for key in ("crowd", "other"):
                for at in range(100):
                    model.vectors[f"{key} {at}"] = at_angle(
                        (0.9 if key == "crowd" else 0.3) + at / 1000
                    )
                await store.put(NS, key, [f"{key} {at}" for at in range(100)])
            assert found(await store.search(NS, "query", limit=2)) == ["crowd", "other"]

    async def test_an_item_may_name_its_own_paths(self, store: Store, model: Model) -> None:
        await store.put(NS, "k", {"a": "apple", "b": "pear"}, index=["b"])
        assert model.texts == ["pear"]
        assert await store.search(NS, "apple", mode="text") == []
        await store.put(NS, "k", {"a": "apple", "b": "pear"})
        assert found(await store.search(NS, "apple", mode="text")) == ["k"]

    async def test_an_item_may_be_left_out(self, store: Store) -> None:
        await store.put(NS, "k", "apple")
        await store.put(NS, "k", "apple", index=False)
        for mode in MODES:
            assert await store.search(NS, "apple", mode=mode) == []
        assert found(await store.search(NS)) == ["k"]
        await store.put(NS, "k", "apple", index=True)
        assert found(await store.search(NS, "apple", mode="text")) == ["k"]

    async def test_a_job_is_found_by_its_words_and_embedded_where_asked(
        self, store: Store, model: Model
    ) -> None:
        if not store.backend.has_sequences:
            pytest.skip("this backend has no queues")
        queue = store.queue(NS)
        plain = await queue.put({"task": "pick a green apple"})
        asked = await queue.put({"task": "pick a red apple"}, index=True)
        file = io.BytesIO()
        await store.export_items(file)
        for imported in (False, True):
            if imported:
                await store.remove(NS, "*")
                file.seek(0)
                await store.import_items(file)
                await store.reindex()
            assert not any("green" in text for text in model.texts)
            assert found(await store.search(NS, "green", mode="text")) == [plain]
            assert sorted(found(await store.search(NS, "apple"))) == [plain, asked]
            assert found(await store.search(NS, "apple", mode="semantic")) == [asked]
            report = await store.check()
            assert (report.problems, report.waiting) == ((), ())
        job = await queue.take(timeout=0)
        assert job is not None
        await job.done()
        assert await store.search(NS, "green", mode="text") == []

    async def test_values_without_text_are_not_embedded(self, store: Store, model: Model) -> None:
        value: Any
        for value in (None, True, [], {}, "", " \n", b"bytes", {"a": [None, {"b": False}]}):
            await store.put(NS, "k", value)
            assert await store.search(NS, "query") == []
        assert model.texts == []

    @pytest.mark.parametrize("fields", ["title", ["a..b"], ["a["], [7]])
    async def test_bad_fields_are_refused(
        self, store_factory: StoreFactory, model: Model, fields: Any
    ) -> None:
        with pytest.raises(InvalidArgumentError):
            store_factory(index=IndexConfig(model, fields=fields))

    # The index is as true as the items

    async def texts_found(self, store: Store) -> dict[str, str]:
        """Return what a search for anything finds, after a look at each by words."""
        items = await store.search((), "query", subtree=True, limit=1000)
        for item in items:
            if isinstance(item.value, str):
                by_words = await store.search(item.namespace, item.value, mode="text", limit=1000)
                assert item.key in found(by_words)
        return {item.key: item.value for item in items}

    async def test_every_way_to_write_is_indexed(self, store: Store) -> None:
        await store.put_many(NS, {"a": "apple", "b": "banana", "c": "cherry"})
        await store.update(NS, "a", lambda value: value + " pie")
        await store.increment(NS, "n", 41)
        await store.increment(NS, "n")
        await store.append(NS, "list", "x", "y")
        await store.pop(NS, "list")

        async def change(tx: Transaction) -> None:
            await tx.put(NS, "t", "transaction")
            await tx.delete(NS, "c")

        await store.transact(change)
        assert await self.texts_found(store) == {
            "a": "apple pie", "b": "banana", "n": 42, "list": ["y"], "t": "transaction",
        }  # fmt: skip
        for stale in ("41", "x"):
            assert await store.search(NS, stale, mode="text") == []
        assert found(await store.search(NS, "42", mode="text")) == ["n"]
        by_meaning = {item.key: item.score for item in await store.search(NS, "42", limit=20)}
        assert by_meaning["n"] == 1.0

    async def test_every_way_to_delete_takes_the_entries(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put_many(NS, {f"k{at}": f"word {at}" for at in range(6)})
        await store.put(NS, "short", "word", ttl=10)
        await store.delete(NS, "k0")
        await store.delete_many(NS, ["k1", "k2"])
        await store.remove(NS, "k[34]")
        clock.advance(10)
        for mode in MODES:
            assert found(await store.search(NS, "word", mode=mode)) == ["k5"]
        await store.sweep()
        for mode in MODES:
            assert found(await store.search(NS, "word", mode=mode)) == ["k5"]

    async def test_a_key_that_comes_back_has_no_old_entries(self, store: Store) -> None:
        await store.put(NS, "k", "apple")
        await store.delete(NS, "k")
        await store.put(NS, "k", "banana")
        assert await store.search(NS, "apple", mode="text") == []
        (item,) = await store.search(NS, "apple")
        assert item.score is not None
        assert item.score < 1
        (item,) = await store.search(NS, "banana")
        assert item.score == 1

    async def test_expired_items_do_not_fill_a_page(
        self, store: Store, model: Model, clock: ManualClock
    ) -> None:
        for at in range(60):
            model.vectors[f"word {at}"] = at_angle(1 - at / 100)
            await store.put(NS, f"k{at:02}", f"word {at}", ttl=10 if at < 50 else None)
        clock.advance(10)
        for mode in MODES:
            assert len(await store.search(NS, "word", mode=mode)) == 10
        model.vectors["word"] = FIRST_AXIS
        assert found(await store.search(NS, "word"))[:2] == ["k50", "k51"]

    async def test_an_expired_item_that_is_put_again_has_no_old_entries(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "k", "apple", ttl=10)
        clock.advance(10)
        await store.put(NS, "k", "banana")
        assert await store.search(NS, "apple", mode="text") == []
        assert found(await store.search(NS, "banana", mode="text")) == ["k"]

    async def test_search_does_not_renew_lifetimes_unless_asked(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "k", "apple", ttl=10)
        clock.advance(5)
        (item,) = await store.search(NS, "apple", refresh_ttl=True)
        assert item.expires_at is not None
        assert (item.expires_at - clock.now).total_seconds() == 10
        assert item.score is not None

    # The model

    async def test_what_is_unchanged_is_not_embedded_again(
        self, store: Store, model: Model
    ) -> None:
        await store.put(NS, "k", {"text": "apple", "flag": True})
        await store.put(NS, "k", {"text": "apple", "flag": False})
        await store.update(NS, "k", lambda value: {**value, "none": None})
        assert model.texts == ["apple"]
        await store.put(NS, "k", {"text": "pear"})
        assert model.texts == ["apple", "pear"]

    async def test_concurrent_puts_share_calls(self, store: Store, model: Model) -> None:
        await asyncio.gather(*(store.put(NS, f"k{at}", f"text {at % 50}") for at in range(100)))
        assert len(model.calls) <= 50
        assert len(set(model.texts)) == 50
        assert len(await store.search(NS, "query", limit=200)) == 100

    async def test_put_many_is_one_call(self, store: Store, model: Model) -> None:
        await store.put_many(NS, {f"k{at}": f"text {at}" for at in range(100)})
        assert [len(call) for call in model.calls] == [100]

    async def test_a_failing_model_fails_the_put_that_needs_it(
        self, store: Store, model: Model
    ) -> None:
        await store.put(NS, "old", "before")
        model.poison = "poison"
        puts = [store.put(NS, f"k{at}", f"text {at}") for at in range(20)]
        puts.insert(7, store.put(NS, "old", "poison"))
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert isinstance(outcomes.pop(7), EmbeddingError)
        assert all(isinstance(outcome, Item) for outcome in outcomes)
        assert (await there(store, NS, "old")).value == "before"
        assert found(await store.search(NS, "before", mode="text")) == ["old"]
        with pytest.raises(EmbeddingError, match="RuntimeError"):
            await store.put_many(NS, {"fine": "fine", "bad": "poison"})
        assert await store.get(NS, "fine") is None
        await refused(EmbeddingError, store.append(NS, "list", "poison"))

        async def both(tx: Transaction) -> None:
            tx.put(NS, "innocent", "fine")
            tx.log((*NS, "log")).append("fine, too", "poison")

        await refused(
            EmbeddingError,
            store.transact(both),
            store.log((*NS, "log")).append("poison"),
            match=r"the text is of \(.*'log'\), and",
        )
        assert await store.get(NS, "list") is None
        assert found(await store.search(NS, "fine", mode="text")) == []

    async def test_a_failing_query_is_an_embedding_error(self, make: Make) -> None:
        def embed(texts: list[str]) -> list[list[float]]:
            raise ValueError("no")

        async with make(IndexConfig(embed)) as store:
            await refused(EmbeddingError, store.search(NS, "query"), match="ValueError")
            assert await store.search(NS, "query", mode="text") == []

    @pytest.mark.parametrize(
        "answer",
        [
            [[1.0, 2.0], [1.0]],
            [[float("nan"), 1.0]],
            [[float("inf"), 1.0]],
            [[1.0, None]],
            [["a", "b"]],
            [[]],
            [],
            [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]],
            None,
            [1.0, 2.0],
            ["ab"],
            [[[1.0], [2.0]]],
        ],
        ids=repr,
    )
    async def test_answers_that_are_no_embeddings_are_refused(
        self, make: Make, answer: Any
    ) -> None:
        async def embed(texts: list[str]) -> Any:
            return answer

        async with make(IndexConfig(embed)) as store:
            await refused(
                EmbeddingError,
                store.put_many(NS, {"a": "apple", "b": "banana"}),
                store.put(NS, "a", "apple"),
            )
            assert await store.count(NS) == 0

    async def test_vectors_of_another_length_are_refused(self, make: Make, model: Model) -> None:
        async with make(IndexConfig(model, dimensions=DIMENSIONS)) as store:
            await store.put(NS, "k", "fine")
            model.vectors |= {"short": [1.0], "query": [1.0]}
            await refused(
                EmbeddingError,
                store.put(NS, "k", "short"),
                store.search(NS, "query"),
                match=f"{DIMENSIONS} were expected",
            )
            assert (await there(store, NS, "k")).value == "fine"

    async def test_reads_and_other_writes_do_not_wait_for_the_model(
        self, store: Store, model: Model
    ) -> None:
        await store.put(NS, "k", "apple")
        model.gate = asyncio.Event()
        slow = asyncio.create_task(store.put(NS, "slow", "banana"))
        await model.asked(2)
        async with asyncio.timeout(20):
            assert await store.get(NS, "k") is not None
            await store.put(NS, "k2", None)
            assert await store.get(NS, "slow") is None
            assert found(await store.search(NS, "apple", mode="text")) == ["k"]
        model.gate.set()
        await slow
        assert found(await store.search(NS, "banana", mode="text")) == ["slow"]

    async def test_the_later_of_two_writes_wins_whenever_its_vectors_come(
        self, store: Store, model: Model
    ) -> None:
        model.gate = asyncio.Event()
        slow = asyncio.create_task(store.append(NS, "list", "slow"))
        await model.asked(1)
        quick = asyncio.create_task(store.append(NS, "list", "quick"))
        model.gate.set()
        await asyncio.gather(slow, quick)
        (item,) = await store.search(NS, "query")
        assert sorted(item.value) == ["quick", "slow"]
        (item,) = await store.search(NS, "\n".join(item.value))
        assert item.score == 1

    async def test_cancelled_puts_leave_nothing_and_harm_nobody(
        self, store: Store, model: Model
    ) -> None:
        model.gate = asyncio.Event()
        puts = [asyncio.create_task(store.put(NS, f"k{at}", f"text {at}")) for at in range(10)]
        await model.asked(1)
        for put in puts[::2]:
            put.cancel()
        await asyncio.sleep(0)
        model.gate.set()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert [isinstance(outcome, Item) for outcome in outcomes] == [False, True] * 5
        assert await store.keys(NS) == [f"k{at}" for at in range(1, 10, 2)]
        assert sorted(await self.texts_found(store)) == [f"k{at}" for at in range(1, 10, 2)]

    async def test_close_waits_for_writes_that_wait_for_the_model(
        self, make: Make, model: Model
    ) -> None:
        async with make(IndexConfig(model)) as store:
            model.gate = asyncio.Event()
            put = asyncio.create_task(store.put(NS, "k", "text"))
            await model.asked(1)
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0)
            model.gate.set()
            await closing
            assert (await put).value == "text"

    @pytest.mark.parametrize("kind", ["sync function", "async function", "langchain", "object"])
    async def test_models_of_every_kind(self, make: Make, kind: str) -> None:
        def function(texts: list[str]) -> list[list[float]]:
            return [random_vector(text) for text in texts]

        async def awaited(texts: list[str]) -> list[list[float]]:
            return function(texts)

        class LangChain:
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                raise AssertionError("the async method is there")

            def embed_query(self, text: str) -> list[float]:
                raise AssertionError("the async method is there")

            async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
                return function(texts)

            async def aembed_query(self, text: str) -> list[float]:
                return random_vector(text)

        class Plain:
            def embed_documents(self, texts: list[str]) -> list[tuple[float, ...]]:
                with pytest.raises(RuntimeError):
                    asyncio.get_running_loop()  # not on the event loop's thread
                return [tuple(random_vector(text)) for text in texts]

            def embed_query(self, text: str) -> list[float]:
                return random_vector(text)

        models = {
            "sync function": function,
            "async function": awaited,
            "langchain": LangChain(),
            "object": Plain(),
        }
        async with make(IndexConfig(models[kind])) as store:
            await store.put_many(NS, {"a": "apple", "b": "banana"})
            (item,) = await store.search(NS, "banana", limit=1)
            assert (item.key, item.score) == ("b", 1.0)

    @pytest.mark.parametrize("embeddings", [7, "model", object(), dict, []])
    async def test_what_is_no_model_is_refused(self, make: Make, embeddings: Any) -> None:
        with pytest.raises(InvalidArgumentError):
            make(IndexConfig(embeddings))

    # By words

    async def test_text_search_finds_words_whatever_their_form(self, store: Store) -> None:
        await store.put(NS, "k", {"title": "The Cooking of RÉSUMÉS", "n": 1984})
        for query in ("cook", "COOKED", "resume", "résumé", "re\u0301sume\u0301s", "1984", "of"):
            assert found(await store.search(NS, query, mode="text")) == ["k"], query
        for query in ("title", "198", "coo", "kvstore"):
            assert await store.search(NS, query, mode="text") == [], query

    async def test_text_search_ranks_by_rarity_and_frequency(self, store: Store) -> None:
        await store.put_many(NS, {f"filler{at}": "common words of all kinds" for at in range(20)})
        await store.put(NS, "rare", "common zebra")
        await store.put(NS, "rarer", "common zebra zebra")
        assert found(await store.search(NS, "zebra common", mode="text"))[:2] == ["rarer", "rare"]

    @pytest.mark.parametrize(
        ("text", "queries", "strangers"),
        [
            (
                "東京都の天気は晴れです",
                ["東京", "京都", "天気", "晴", "東京都の天気"],
                ["大阪", "曇"],
            ),
            ("我喜欢机器学习和数据库", ["机器", "学习", "数据库", "我"], ["鸡", "人工"]),
            ("데이터베이스를 좋아해요", ["데이터", "베이스", "좋아"], ["고양이"]),
            ("ฐานข้อมูลที่ดี", ["ข้อมูล", "ฐาน"], ["แมว"]),
            ("ﾃﾞｰﾀ base", ["データ", "BASE"], ["ベース"]),
            ("Привет мир", ["привет", "МИР"], ["пока"]),
            ("हिन्दी भाषा", ["हिन्दी", "भाषा"], ["तमिल"]),
            ("naïve Straße", ["naive", "Straße"], ["gasse"]),
            ("snake_case kebab-case C++ a.b", ["snake", "case", "kebab", "c", "b"], ["dog"]),
            ("getUserName c4297b4a4a06 3.11.7", ["user", "c4297b4", "3.11"], ["c4297b5", "3.1"]),
            ("λόγος łódź", ["ΛΌΓΟΣ", "LODZ"], ["λόγοι"]),
            ("كِتَابٌ שָׁלוֹם", ["كتاب", "שלום"], ["قلم"]),
            (
                "thanks\U0001f917 \u20ba100 \u26a0\ufe0fWarning",
                ["thanks", "100", "warning"],
                ["10"],
            ),
            ("\u2068Alice\u2069 \uf007Profile", ["alice", "profile"], ["bob"]),
        ],
        ids=[
            *("ja", "zh", "ko", "th", "width", "ru", "hi", "latin", "code"),
            *("names", "letters", "points", "signs", "controls"),
        ],
    )
    async def test_text_search_in_any_language(
        self, store: Store, text: str, queries: list[str], strangers: list[str]
    ) -> None:
        await store.put(NS, "k", text)
        for query in queries:
            assert found(await store.search(NS, query, mode="text")) == ["k"], query
        for query in strangers:
            assert await store.search(NS, query, mode="text") == [], query

    async def test_a_hit_by_words_scores_by_the_share_of_the_query_that_it_answers(
        self, make: Make
    ) -> None:
        async with make(IndexConfig()) as store:
            await store.put(NS, "n1", "Alice likes green tea")
            (item,) = await store.search(NS, "green tea", mode="text", min_score=0.5)
            assert item.key == "n1"
            await store.put(NS, "n2", "Bob likes green tea")
            await store.put(NS, "n3", "Carol likes coffee")
            items = await store.search(NS, "green coffee", mode="text", min_score=0.1)
            assert found(items) == ["n3", "n1", "n2"]
            whole = await store.search(NS, "alice likes green tea", mode="text")
            part = await store.search(NS, "alice likes blue cars", mode="text")
            assert found(whole)[0] == found(part)[0] == "n1"
            assert (whole[0].score or 0) > 0.8 > 0.5 > (part[0].score or 0) > 0.1

    async def test_the_words_of_neighbours_count_in_the_order_of_keys(
        self, make: Make, clock: ManualClock
    ) -> None:
        async with make(IndexConfig(context=1)) as store:

            async def hits(query: str, **options: Any) -> list[str]:
                return found(await store.search(NS, query, mode="text", **options))

            turns = ["Where did you go?", "To Lisbon.", "Nice!", "It rained.", "Too bad."]
            await store.put_many(NS, {f"t{at}": text for at, text in enumerate(turns)})
            assert await hits("lisbon") == ["t1", "t2", "t0"]
            assert await hits("lisbon", filter={"$not": {"no": 1}}) == ["t1", "t2", "t0"]
            assert await hits("lisbon nice") == ["t2", "t1", "t0", "t3"]
            # Whatever happens to a neighbour, is so at once
            await store.put(NS, "t1a", "Really?")
            assert await hits("lisbon") == ["t1", "t1a", "t0"]
            await store.put(NS, "t1a", "Lisbon, really?", ttl=5)
            assert set(await hits("lisbon")) == {"t0", "t1", "t1a", "t2"}
            clock.advance(5)
            assert await hits("lisbon") == ["t1", "t2", "t0"]
            await store.put(NS, "t1", "To Porto.")
            assert await hits("lisbon") == []
            assert await hits("porto") == ["t1", "t2", "t0"]
            await store.delete(NS, "t2")
            assert set(await hits("porto")) == {"t0", "t1", "t3"}
            # Neither from one namespace to the next nor for an item that is left out
            await store.put(NS, "t3", "It rained.", index=False)
            assert await hits("porto") == ["t1", "t0"]
            await store.put((*NS, "a"), "k", "bordering")
            await store.put(NS, "zz", "word")
            assert await hits("bordering", subtree=True) == ["k"]
            report = await store.check()
            assert report.ok

    async def test_context_finds_no_less_than_a_filter_lets_pass(self, make: Make) -> None:
        async with make(IndexConfig(context=2)) as store:
            items = {f"k{at:04}": {"text": "word", "n": at % 100} for at in range(1_500)}
            await store.put_many(NS, items)
            asked: dict[str, Any] = {"mode": "text", "filter": {"n": 99}}
            assert len(await store.search(NS, "word", **asked, limit=20)) == 15
            pages = [
                await store.search(NS, "word", **asked, limit=4, offset=at)
                for at in range(0, 20, 4)
            ]
            assert [item.key for page in pages for item in page] == found(
                await store.search(NS, "word", **asked, limit=20)
            )
            assert len(await store.search(NS, "word", mode="text", limit=2_000)) == 1_500

    @pytest.mark.parametrize("context", [-1, 11, True, 1.5, "1"])
    async def test_a_context_is_a_small_number(self, context: Any) -> None:
        with pytest.raises(InvalidArgumentError):
            IndexConfig(context=context)

    async def test_hybrid_search_trusts_words_by_what_they_answer(
        self, store: Store, model: Model
    ) -> None:
        """A query in a text's own words finds that; one in other words goes by meaning."""
        texts = {
            "exact": ("the quokka protocol", 0.1),
            "stray": ("a very long question of mine", 0.2),
            "meant": ("vehicles that run on rails", 0.9),
        }
        for key, (text, near) in texts.items():
            model.vectors[text] = at_angle(near)
            await store.put(NS, key, text)
        model.vectors |= dict.fromkeys(("quokka protocol", "my question: trains?"), FIRST_AXIS)
        items = await store.search(NS, "quokka protocol", mode="hybrid")
        assert found(items)[0] == "exact"
        items = await store.search(NS, "my question: trains?", mode="hybrid")
        assert found(items)[0] == "meant"
        assert all(0 <= (item.score or 0) <= 1 for item in items)

    @pytest.mark.parametrize("mode", MODES)
    async def test_any_text_is_a_safe_query(self, store: Store, mode: str) -> None:
        await store.put_many(NS, {"a": "apple", "b": 'quote " star * C++ user-1 open'})
        for query in HOSTILE_QUERIES:
            for item in await store.search(NS, query, mode=mode):
                assert item.key in ("a", "b")
        assert found(await store.search(NS, 'C++ "open', mode="text")) == ["b"]

    @pytest.mark.parametrize("mode", MODES)
    async def test_long_queries_are_cut(self, store: Store, mode: str) -> None:
        await store.put(NS, "k", "apple")
        for query in ("apple " * 200_000, "apple" + "x" * 10**6, "\U0001f600" * 10**6):
            await store.search(NS, query, mode=mode)
        assert found(await store.search(NS, "apple " * 200_000, mode="text")) == ["k"]
        many = " ".join(f"word{at}" for at in range(1000))
        assert await store.search(NS, many, mode="text") == []

    async def test_queries_of_stop_words_still_search(self, store: Store) -> None:
        await store.put(NS, "k", "to be or not to be")
        await store.put(NS, "other", "apple")
        assert found(await store.search(NS, "to be or not", mode="text")) == ["k"]

    async def test_an_index_without_a_model_is_for_words(self, make: Make) -> None:
        async with make(IndexConfig(fields=["title"])) as store:
            await store.put(NS, "k", {"title": "apple", "body": "pear"})
            assert found(await store.search(NS, "apples")) == ["k"]
            assert await store.search(NS, "pear") == []
            for mode in ("semantic", "hybrid"):
                with pytest.raises(InvalidArgumentError, match="needs a model"):
                    await store.search(NS, "apple", mode=mode)

    async def test_modes_need_an_index(self, store_factory: StoreFactory) -> None:
        async with store_factory() as store:
            for mode in MODES:
                with pytest.raises(InvalidArgumentError, match="needs an index"):
                    await store.search(NS, "apple", mode=mode)
            await refused(InvalidArgumentError, store.reindex())

    # By both

    async def test_hybrid_search_finds_what_either_finds(self, store: Store, model: Model) -> None:
        model.vectors |= {
            "zebra": FIRST_AXIS,
            "a striped horse": at_angle(0.95),
            "zebra crossing": at_angle(-0.9),
            "zebra stripes": at_angle(0.9),
            "unrelated": at_angle(0.0),
        }
        for text in list(model.vectors)[2:]:
            await store.put(NS, text, text)
        items = await store.search(NS, "zebra", mode="hybrid")
        assert set(found(items)[:2]) == {"zebra stripes", "zebra crossing"}  # both find them
        assert found(items)[2:] == ["a striped horse", "unrelated"]

    # Own vectors

    async def test_vectors_of_ones_own_need_no_model(self, make: Make) -> None:
        async with make(IndexConfig()) as store:
            await store.put(NS, "near", {"n": 1}, vector=at_angle(0.9))
            await store.put(NS, "far", "some words", vector=tuple(at_angle(0.2)))
            await store.put(NS, "none", "no vector, but words")
            items = await store.search(NS, vector=FIRST_AXIS)
            assert found(items) == ["near", "far"]
            assert [item.score for item in items] == pytest.approx([0.9, 0.2], abs=1e-5)
            assert await store.search(NS, SearchQuery(vector=FIRST_AXIS, limit=1)) == items[:1]
            assert found(await store.search(NS, vector=FIRST_AXIS, min_score=0.5)) == ["near"]
            assert found(await store.search(NS, vector=FIRST_AXIS, filter={"n": 1})) == ["near"]
            assert found(await store.search(NS[:1], vector=FIRST_AXIS, subtree=True)) == found(
                items
            )
            assert found(await store.search(NS, "words")) == ["far", "none"]
            both = await store.search(NS, "words", vector=FIRST_AXIS, mode="hybrid")
            assert set(found(both)) == {"near", "far", "none"}
            assert (await store.check()).ok
            assert await store.reindex() == 0

    async def test_the_model_is_not_asked_for_an_item_with_its_own_vector(
        self, store: Store, model: Model
    ) -> None:
        await store.put(NS, "own", "apple", vector=at_angle(0.9))
        assert model.calls == []
        await store.transact(lambda tx: tx.put(NS, "too", "apple", vector=at_angle(0.8)))
        assert model.calls == []
        items = await store.search(NS, "query")
        assert found(items) == ["own", "too"]
        assert [item.score for item in items] == pytest.approx([0.9, 0.8], abs=1e-5)
        assert found(await store.search(NS, "apple", mode="text")) == ["own", "too"]

    async def test_the_vector_of_an_item_lasts_until_it_is_written_again(
        self, store: Store, model: Model
    ) -> None:
        model.vectors["apple"] = at_angle(0.1)
        await store.put(NS, "k", "apple", vector=at_angle(0.9))
        await store.put(NS, "k", "apple", vector=at_angle(0.7))
        (item,) = await store.search(NS, vector=FIRST_AXIS)
        assert item.score == pytest.approx(0.7, abs=1e-5)
        await store.put(NS, "k", "apple")
        (item,) = await store.search(NS, vector=FIRST_AXIS)
        assert item.score == pytest.approx(0.1, abs=1e-5)
        assert model.texts == ["apple"]
        await store.put(NS, "k", "apple", vector=at_angle(0.6))
        await store.update(NS, "k", lambda value: value + "s")
        assert model.texts == ["apple", "apples"]
        await store.put(NS, "k", "apple", vector=at_angle(0.6))
        assert await store.delete(NS, "k")
        assert await store.search(NS, vector=FIRST_AXIS) == []
        assert (await store.check()).ok

    async def test_own_vectors_may_be_several(self, make: Make) -> None:
        async with make(IndexConfig(fields=["title", "chunks[*].text"])) as store:
            value = {"title": "t", "chunks": [{"text": "a"}, {"text": "b"}]}
            low, high = at_angle(0.1), at_angle(0.8)
            await store.put(NS, "each", value, vector=[low, high])
            await store.put(NS, "named", value, vector={"title": at_angle(0.7)})
            await store.put(NS, "some", value, vector={"chunks[*].text": [low, at_angle(0.6)]})
            items = await store.search(NS, vector=FIRST_AXIS)
            assert found(items) == ["each", "named", "some"]
            assert items[0].score == pytest.approx(0.8, abs=1e-5)
            refused: list[Any] = [{"body": low}, {}, [], [low, low, low], {"title": []}]
            for bad in refused:
                with pytest.raises(InvalidArgumentError, match="vector"):
                    await store.put(NS, "bad", value, vector=bad)
            assert await store.get(NS, "bad") is None

    @pytest.mark.parametrize(
        "vector",
        [
            *([math.nan] * DIMENSIONS, [math.inf] + [0.0] * (DIMENSIONS - 1), [1.0] * 3),
            *([], "12345678", 7, [None] * DIMENSIONS, ["a"] * DIMENSIONS, b"12345678"),
        ],
    )
    async def test_what_is_no_vector_of_the_index_is_refused(self, make: Make, vector: Any) -> None:
        async with make(IndexConfig()) as store:
            await store.put(NS, "k", "apple", vector=FIRST_AXIS)
            await refused(
                InvalidArgumentError,
                store.put(NS, "bad", "pear", vector=vector),
                store.search(NS, vector=vector),
                match="vector",
            )
            assert await store.get(NS, "bad") is None
            assert found(await store.search(NS, vector=FIRST_AXIS)) == ["k"]

    async def test_vectors_of_one_unit_are_of_one_length(self, make: Make) -> None:
        def put_both(tx: Transaction) -> None:
            tx.put(NS, "a", 1, vector=[1.0, 0.0])
            tx.put(NS, "b", 1, vector=[1.0, 0.0, 0.0])

        async with make(IndexConfig()) as store:
            await refused(InvalidArgumentError, store.transact(put_both), match="numbers")
            assert await store.count(NS) == 0
            outcomes = await asyncio.gather(
                store.put(NS, "a", 1, vector=[1.0, 0.0]),
                store.put(NS, "b", 1, vector=[1.0, 0.0, 0.0]),
                return_exceptions=True,
            )
            assert isinstance(outcomes[0], Item)
            assert isinstance(outcomes[1], InvalidArgumentError)
            assert found(await store.search(NS, vector=[1, 0])) == ["a"]

    async def test_a_vector_must_be_of_use(self, make: Make) -> None:
        async with make(IndexConfig(dimensions=DIMENSIONS)) as store:
            for wrong in ({"vector": [1.0]}, {"vector": FIRST_AXIS, "index": False}):
                with pytest.raises(InvalidArgumentError, match="vector"):
                    await store.put(NS, "k", "apple", **wrong)
            texts = ["1"] * DIMENSIONS
            await refused(
                InvalidArgumentError,
                store.put(NS, "k", "apple", vector=texts),
                store.search(NS, vector=texts),
                match="vector",
            )
            assert await store.search(NS, vector=FIRST_AXIS) == []
            for mode in ("text", "hybrid"):
                await refused(InvalidArgumentError, store.search(NS, vector=FIRST_AXIS, mode=mode))
            with pytest.raises(InvalidArgumentError, match="no use"):
                await store.search(NS, "apple", vector=FIRST_AXIS, mode="text")
            with pytest.raises(InvalidArgumentError, match="SearchQuery"):
                await store.search(NS, SearchQuery("apple"), vector=FIRST_AXIS)
            await store.put(NS, "k", "apple", vector=[0.0] * DIMENSIONS)  # of no direction
            assert await store.search(NS, vector=FIRST_AXIS) == []
            assert found(await store.search(NS, "apple")) == ["k"]

    async def test_vectors_need_an_index(self, store_factory: StoreFactory) -> None:
        async with store_factory() as store:
            await refused(
                InvalidArgumentError,
                store.put(NS, "k", "apple", vector=FIRST_AXIS),
                store.search(NS, vector=FIRST_AXIS),
                match="needs an index",
            )

    # Reranking

    async def test_a_reranker_reads_the_candidates_and_its_order_is_fused(
        self, make: Make, model: Model
    ) -> None:
        asked: list[tuple[str, list[str]]] = []

        async def rerank(query: str, texts: list[str]) -> list[float]:
            asked.append((query, texts))
            return [-20.0 if text.endswith("0") else -3.5 - len(text) for text in texts]

        model.vectors |= {f"text {at}": at_angle(0.9 - at / 100) for at in range(60)}
        async with make(IndexConfig(model, rerank=rerank)) as store:
            await store.put_many(NS, {f"k{at:02}": f"text {at}" for at in range(60)})
            items = await store.search(NS, "query", limit=60)
            (query, texts) = asked.pop()
            assert query == "query"
            assert texts == [f"text {at}" for at in range(40)]
            assert found(items)[0] == "k01"  # second by meaning, and first by the reranker
            assert sorted(found(items[:40])) == [f"k{at:02}" for at in range(40)]
            assert found(items[40:]) == [f"k{at:02}" for at in range(40, 60)]
            scores = [item.score or 0.0 for item in items]
            assert scores == sorted(scores, reverse=True)
            assert all(0.0 < score <= 1.0 for score in scores)
            for limit, offset in ((1, 0), (7, 3), (10, 35), (20, 40), (5, 58), (10, 100)):
                page = await store.search(NS, "query", limit=limit, offset=offset)
                assert page == items[offset : offset + limit]
            least = scores[4]
            assert await store.search(NS, "query", limit=60, min_score=least) == items[:5]
            asked.clear()
            assert found(await store.search(NS, vector=FIRST_AXIS, limit=1)) == ["k00"]
            assert await store.search(("empty",), "query") == []
            await store.search(NS, limit=1)
            assert asked == []  # nothing was asked, or there was nothing to read

    async def test_a_reranker_reads_what_stands_before_where_neighbours_count(
        self, make: Make
    ) -> None:
        asked: list[str] = []

        def rerank(query: str, texts: list[str]) -> list[int]:  # need not be async
            asked.extend(texts)
            return [0] * len(texts)

        async with make(IndexConfig(context=1, rerank=rerank)) as store:
            await store.put(NS, "1", "How are you?")
            await store.put(NS, "2", "Fine", ttl=5)
            await store.put(NS, "3", "apples are red")
            await store.put((*NS, "below"), "0", "apples")
            await store.search(NS, "apples", subtree=True)
            assert sorted(asked) == sorted(["Fine\napples are red", "How are you?\nFine", "apples"])

    @pytest.mark.parametrize(
        ("answer", "why"),
        [([1.0], "returned 1 scores for 2"), ([math.nan, 1.0], "finite"), (None, "failed")],
    )
    async def test_a_reranker_that_fails_fails_the_search(
        self, make: Make, answer: Any, why: str
    ) -> None:
        async with make(IndexConfig(rerank=lambda query, texts: answer)) as store:
            await store.put_many(NS, {"a": "apple", "b": "apple pie"})
            await refused(EmbeddingError, store.search(NS, "apple"), match=why)
            assert len(await store.search(NS)) == 2

    async def test_what_is_no_reranker_is_refused(self, store_factory: StoreFactory) -> None:
        for wrong in (1, "model", RecordingEmbeddings):
            with pytest.raises(InvalidArgumentError, match="rerank"):
                store_factory(index=IndexConfig(rerank=wrong))

    # Reindexing

    async def test_a_text_that_the_model_refuses_does_not_stop_reindex(
        self, make: Make, model: Model
    ) -> None:
        async with make(IndexConfig(model, fields=["a", "b"])) as store:
            values = {f"k{at:03}": {"a": f"text {at}"} for at in range(150)}
            values["k070"] = {"a": "poison", "b": "antidote"}
            values["k149"] = {"a": "much poison"}
            lines = b"".join(
                orjson.dumps({"namespace": list(NS), "key": key, "value": value}) + b"\n"
                for key, value in values.items()
            )
            model.poison = ""  # it takes nothing
            await store.import_items(io.BytesIO(lines))
            model.poison = "poison"
            taken = await store.reindex()
            assert taken == 148
            assert {key for _, key in taken.skipped} == {"k070", "k149"}
            assert all("poison" in reason for reason in taken.reasons)
            report = await store.check()
            assert report.ok
            assert len(report.waiting) == 2
            assert "k070" in "".join(report.waiting)
            assert found(await store.search(NS, "text 7", limit=1)) == ["k007"]
            assert found(await store.search(NS, "antidote", limit=1)) == ["k070"]
            assert found(await store.search(NS, "poison", mode="text")) == ["k070", "k149"]
            assert (await store.reindex()) == 0  # and tries the two once more
            model.poison = None
            taken = await store.reindex()
            assert (taken, taken.skipped) == (2, ())
            assert (await store.check()).waiting == ()
            assert len(await store.search(NS, "poison", limit=1000)) == 150

    async def test_a_model_that_takes_nothing_stops_reindex_at_once(
        self, make: Make, model: Model
    ) -> None:
        async with make(IndexConfig(model)) as store:
            lines = b"".join(
                orjson.dumps({"namespace": list(NS), "key": f"k{at}", "value": f"poison {at}"})
                + b"\n"
                for at in range(300)
            )
            model.poison = ""
            await store.import_items(io.BytesIO(lines))
            model.calls.clear()
            await refused(EmbeddingError, store.reindex(), match="RuntimeError")
            assert len(model.calls) < 20

    async def test_a_refused_put_names_its_key(self, store: Store, model: Model) -> None:
        model.poison = "poison"
        with pytest.raises(EmbeddingError, match="'bad'"):
            await store.put_many(NS, {"fine": "fine", "bad": "poison", "good": "good"})
        await refused(EmbeddingError, store.put(NS, "worse", "poison"), match="'worse'")
        await refused(EmbeddingError, store.append(NS, "list", "poison"), match="'list'")
        assert await store.count(NS) == 0

    async def test_rewind_leaves_the_vectors_of_what_it_brings_back_to_reindex(
        self, history_factory: StoreFactory, model: Model, clock: ManualClock
    ) -> None:
        async with history_factory(index=IndexConfig(model)) as store:
            await store.put_many(NS, {"changed": "a quick fox", "same": "a crow", "gone": "an owl"})
            before = clock.now
            clock.advance(1)
            await store.put_many(NS, {"changed": "a lazy dog", "new": "a cat"})
            await store.delete(NS, "gone")
            asked = model.texts
            assert await store.rewind(before) == 3
            assert model.texts == asked
            assert found(await store.search(NS, "fox", mode="text")) == ["changed"]
            assert await store.search(NS, "dog", mode="text") == []
            report = await store.check()
            assert report.ok
            assert len(report.waiting) == 2
            assert await store.reindex() == 2
            hits = await store.search(NS, "a quick fox", mode="semantic")
            assert sorted(found(hits)) == ["changed", "gone", "same"]

    async def test_reindex_of_a_complete_index_does_nothing(
        self, store: Store, model: Model
    ) -> None:
        await store.put(NS, "k", "apple")
        assert await store.reindex() == 0
        assert model.texts == ["apple"]

    async def test_every_error_is_a_store_error(self, store: Store, model: Model) -> None:
        model.poison = ""
        await refused(StoreError, store.put(NS, "k", "apple"))
