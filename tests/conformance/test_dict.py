"""The worked example of docs/backends.md keeps the contract, and stays short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store
from kvstore.testing import StoreConformance, StoreFactory
from kvstore.testing_history import HistoryConformance
from tests.conformance.dict_backend import DictBackend


class TestDictBackend(StoreConformance):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return lambda **options: Store(DictBackend(), **options)


class TestDictBackendHistory(HistoryConformance):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return lambda **options: Store(DictBackend(), **options)


def test_the_example_is_short() -> None:
    path = Path(__file__).with_name("dict_backend.py")
    assert len(path.read_text("utf-8").splitlines()) < 200
    page = Path(kvstore.__file__).parents[1] / "docs" / "backends.md"
    assert path.name in page.read_text("utf-8")


async def test_items_are_copied_in_and_out() -> None:
    async with Store(DictBackend()) as store, kvstore.InMemoryStore() as other:
        kept: Any = await store.put(("a",), "k", {"n": 1}, ttl=100)
        assert await kvstore.copy(store, other) == 1
        copied = await other.get(("a",), "k")
        assert copied is not None
        assert (copied.value, copied.expires_at) == ({"n": 1}, kept.expires_at)
        async with store.watch() as changes:
            assert await kvstore.copy(other, store) == 1
            assert (await anext(changes)).key == "k"
