"""The command line finds out how a store is indexed, and changes nothing by that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import IndexConfig
from kvstore.cli.app import index_of
from kvstore.embeddings import HashingEmbeddings
from tests.cli.conftest import Run


async def lengths(texts: list[str]) -> list[list[float]]:
    return [[1.0, float(len(text))] for text in texts]


@pytest.mark.parametrize(
    ("made_by", "model"),
    [
        (None, None),
        (IndexConfig(fields=["text"]), None),
        (IndexConfig(HashingEmbeddings(), fields=["text"]), HashingEmbeddings),
        (IndexConfig(lengths, fields=["text"]), None),
    ],
    ids=["none", "words", "ours", "another's"],
)
async def test_the_index_is_the_files_own(tmp_path: Path, made_by: Any, model: Any) -> None:
    path = tmp_path / "agent.db"
    async with kvstore.open(path, index=made_by) as store:
        await store.put(("a",), "k", {"text": "green tea", "other": "coffee"})
    before = path.read_bytes()
    index = await asyncio.to_thread(index_of, str(path))
    assert path.read_bytes() == before
    if made_by is None:
        assert index is None
        return
    assert index is not None
    assert index.fields == ("text",)
    assert type(index.embeddings) is (model or type(None))
    async with kvstore.open(path, index=index) as store:
        for mode in ("text", "semantic") if model else ("text",):
            (found,) = await store.search(("a",), "tea", mode=mode)
            assert found.key == "k"
        assert await store.search(("a",), "coffee", mode="text") == []


async def test_a_store_in_memory_has_none() -> None:
    assert await asyncio.to_thread(index_of, "memory://") is None


def test_a_search_by_meaning_takes_the_stores_own_model(run: Run, tmp_path: Path) -> None:
    async def fill() -> None:
        index = IndexConfig(HashingEmbeddings(), fields=["text"])
        async with kvstore.open(tmp_path / "notes.db", index=index) as store:
            await store.put_many(("n",), {"tea": {"text": "green tea"}, "tax": {"text": "taxes"}})

    asyncio.run(fill())
    found = run("search", "notes.db", "n", "teas, green", "--mode", "semantic", "--json").stdout
    assert b'"key":"tea"' in found.splitlines()[0]
