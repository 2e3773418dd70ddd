"""By words, every backend finds the same items, in the same order, with the same scores."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import kvstore
from kvstore import IndexConfig, Store

NAMESPACES = [("x",), ("x", "a"), ("y",), ()]
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
        for _ in range(40):
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
