"""Answers are found by meaning, and never where they do not belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.embeddings import HashingEmbeddings
from kvstore.views import SemanticCache

QUESTION = "which tea does alice like to drink in the morning"
NEAR = "in the morning which tea does alice like to drink"  # the same words: 1.0 by hashing
FAR = "which tea does bob like to drink in the evening"


def index(dimensions: int = 256, **more: Any) -> kvstore.IndexConfig:
    return kvstore.IndexConfig(HashingEmbeddings(dimensions), **more)


class Model:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, prompt: str) -> Any:
        self.asked.append(prompt)
        if "fail" in prompt:
            raise RuntimeError("half an answer")
        return {"text": f"answer {len(self.asked)}", "tool_calls": [{"id": "1"}]}


@pytest.fixture(params=["memory", "file"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else str(tmp_path / "a.db")


async def test_near_questions_are_answered_once(target: str) -> None:
    model = Model()
    async with kvstore.open(target, index=index()) as store:
        cache = SemanticCache(store)
        first = await cache.get_or_compute(QUESTION, model)
        assert await cache.get_or_compute(NEAR, model) == first
        assert await cache.get_or_compute(FAR, model) != first
        assert model.asked == [QUESTION, FAR]
        assert await SemanticCache(store, threshold=0.3).get(FAR[:20]) is not None
        with pytest.raises(RuntimeError):
            await cache.get_or_compute("fail at this", model)
        assert await cache.get("fail at this") is None
        assert await cache.get_or_compute("7 and 8", lambda _: 15) == 15
        assert await cache.clear() == 3
        assert await cache.get(QUESTION) is None


async def test_tenants_and_models_never_share(target: str) -> None:
    async with kvstore.open(target, index=index()) as store:
        mine = SemanticCache(store, tenant="a", llm_string="gpt")
        await mine.put(QUESTION, 1)
        for tenant, llm_string in (("b", "gpt"), ("a", "other"), ("", "agpt"), ("ag", "pt")):
            assert (
                await SemanticCache(store, tenant=tenant, llm_string=llm_string).get(NEAR) is None
            )
        found = await mine.get(NEAR)
        assert found is not None
        assert found.value["answer"] == 1


async def test_another_model_of_embeddings_misses(tmp_path: Path) -> None:
    for model_id in ("one", "two"):
        async with kvstore.open(tmp_path / "a.db", index=index(model_id=model_id)) as store:
            if model_id == "two":
                await store.reindex()
            cache = SemanticCache(store)
            assert await cache.get(QUESTION) is None
            await cache.put(QUESTION, model_id)
            found = await cache.get(NEAR)
            assert found is not None
            assert found.value["answer"] == model_id


async def test_a_hit_renews_nothing(target: str) -> None:
    now = 1_000_000.0
    options: Any = {"index": index(), "clock": lambda: now, "refresh_ttl": True}
    async with kvstore.open(target, **options) as store:
        cache = SemanticCache(store, ttl=60)
        await cache.put(QUESTION, 1)
        now += 40
        assert await cache.get(QUESTION) is not None
        now += 40
        assert await cache.get(QUESTION) is None


async def test_what_cannot_be_is_refused(target: str) -> None:
    async with kvstore.open(target) as store:
        with pytest.raises(kvstore.InvalidArgumentError, match="needs a store with a model"):
            SemanticCache(store)
    for threshold in (0, 1.1, True):
        with pytest.raises(kvstore.InvalidArgumentError, match="threshold"):
            SemanticCache(kvstore.open("memory://", index=index()), threshold=threshold)
