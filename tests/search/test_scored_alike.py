"""Every backend finds the same items, in the same order, with the same scores.

`KVSTORE_TEST_QUERIES=10000` asks so many; without it, a few hundred.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import kvstore
from kvstore import IndexConfig, Store
from kvstore.embeddings import HashingEmbeddings

NAMESPACES = [("x",), ("x", "a"), ("x", "b", "c"), ("y",), ()]
RARE = [f"{one}{two}" for one in ("ba", "ko", "li", "mu", "ra") for two in ("ka", "lo", "mi", "nu")]
COMMON = ["the", "common", "word"]  # in half of the texts, and more
ODD = [
    "東京都",
    "getUserName",
    "v1.2.3",
    "c4297b4a4a06ecea",
    "λόγος",
    "كِتَاب",
    "e\u0301tude",
    "\u2068Zoë\u2069",
    *("C++", "running", "run", "naïve", "x" * 5_000),
]


@pytest.fixture(params=[0, 2])
def index(request: pytest.FixtureRequest) -> IndexConfig:
    return IndexConfig(context=request.param)


@pytest_asyncio.fixture(params=["file", "server"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, index: IndexConfig
) -> AsyncIterator[list[Store]]:
    """A store in memory, and another one."""
    place = str(tmp_path / "store.db")
    if request.param == "server":
        place = request.getfixturevalue("postgres_url")
    async with (
        kvstore.open("memory://", index=index) as one,
        kvstore.open(place, index=index) as other,
    ):
        yield [one, other]


@pytest.mark.parametrize(
    ("seed", "size"), [(1, 20), (2, 200), pytest.param(3, 2_000, marks=pytest.mark.slow)]
)
async def test_scores_agree_to_the_last_digit(stores: list[Store], seed: int, size: int) -> None:
    chance = random.Random(seed)

    def text() -> str:
        words = chance.choices(RARE + ODD, k=chance.choice([1, 3, 8, 30, 200]))
        return " ".join(words + chance.choices(COMMON, k=chance.randint(0, 4)))

    for _ in range(3):
        namespace, other = chance.choices(NAMESPACES, k=2)
        items = {
            f"k{chance.randrange(size)}": {"text": text(), "n": chance.randrange(5)}
            for _ in range(size)
        }
        gone = [f"k{chance.randrange(size)}" for _ in range(size // 3)]
        for store in stores:
            await store.put_many(namespace, items)
            await store.delete_many(other, gone)
        for _ in range(int(os.environ.get("KVSTORE_TEST_QUERIES", "0")) // 18 or 40):
            query = " ".join(chance.choices(RARE + ODD + COMMON * 4 + ["absent"], k=5))
            asked: dict[str, Any] = {
                "mode": "text",
                "subtree": chance.random() < 0.5,
                "offset": chance.choice([0, 0, 5, 50]),
                "filter": chance.choice([None, {"n": {"$gte": 3}}]),
            }
            namespace = chance.choice(NAMESPACES)
            told = [
                [(item.namespace, item.key, item.score) for item in found]
                for found in [await store.search(namespace, query, **asked) for store in stores]
            ]
            assert told[0] == told[1], query


@pytest_asyncio.fixture
async def three(
    tmp_path: Path, postgres_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[list[Store]]:
    """A store of each kind."""
    index = IndexConfig(HashingEmbeddings(dimensions=64), context=request.param)
    async with (
        kvstore.open("memory://", index=index) as memory,
        kvstore.open(tmp_path / "store.db", index=index) as file,
        kvstore.open(postgres_url, index=index) as server,
    ):
        yield [memory, file, server]


@pytest.mark.parametrize(
    ("three", "mode"), [(0, "semantic"), (0, "hybrid"), (1, "hybrid")], indirect=["three"]
)
async def test_rankings_by_meaning_agree(three: list[Store], mode: str) -> None:
    """Vectors are computed by each backend's own means, and still come to the same scores."""
    chance = random.Random(mode)
    for at in range(int(os.environ.get("KVSTORE_TEST_QUERIES", "120"))):
        if at % 400 == 0:
            for namespace in NAMESPACES:
                items = {
                    f"k{chance.randrange(150)}": {
                        "text": " ".join(
                            chance.choices(RARE + ODD + COMMON, k=chance.choice([1, 3, 8, 30]))
                        ),
                        "n": chance.randrange(5),
                    }
                    for _ in range(60)
                }
                for store in three:
                    await store.put_many(namespace, items)
                    await store.delete_many(namespace, list(items)[:10])
        query = " ".join(chance.choices(RARE + ODD + COMMON, k=chance.randint(1, 5)))
        asked: dict[str, Any] = {
            "mode": mode,
            "subtree": chance.random() < 0.5,
            "offset": chance.choice([0, 0, 7]),
            "filter": chance.choice([None, {"n": {"$gte": 3}}]),
        }
        namespace = chance.choice(NAMESPACES)
        told = [
            [(item.namespace, item.key, item.score) for item in found]
            for found in [await store.search(namespace, query, **asked) for store in three]
        ]
        assert told[0] == told[1] == told[2], (namespace, query, asked)


@pytest.mark.parametrize("three", [0], indirect=True)
async def test_no_root_ranks_by_what_another_holds(three: list[Store]) -> None:
    """What a tenant writes neither changes another's scores nor can be guessed from them."""
    for store in three:
        await store.put_many(("ann",), {"a": "the red tea", "b": "red soup, red", "c": "a nap"})
        before = [
            await store.search(("ann",), "red tea", mode="text", subtree=subtree)
            for subtree in (False, True)
        ]
        of_all = await store.search((), "red tea", mode="text", subtree=True)
        assert [item.score for item in of_all] == [item.score for item in before[1]]
        others = {f"k{at}": "red tea " * (at % 5) for at in range(300)}
        await store.put_many(("bob",), others)
        await store.put_many((), others)
        await store.delete_many(("bob",), [f"k{at}" for at in range(0, 300, 2)])
        for subtree, then in zip((False, True), before, strict=True):
            now = await store.search(("ann",), "red tea", mode="text", subtree=subtree)
            assert [(item.key, item.score) for item in now] == [
                (item.key, item.score) for item in then
            ]
        assert (await store.check()).problems == ()
