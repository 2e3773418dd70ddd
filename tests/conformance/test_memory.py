"""InMemoryStore keeps the contract."""

from __future__ import annotations

import pytest

from kvstore import InMemoryStore
from kvstore.testing import StoreConformance, StoreFactory
from kvstore.testing_history import HistoryConformance


class TestInMemoryStore(StoreConformance):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return InMemoryStore


class TestInMemoryStoreHistory(HistoryConformance):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return InMemoryStore
