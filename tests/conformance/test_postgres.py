"""PostgresStore keeps the contract."""

from __future__ import annotations

from functools import partial

import pytest

import kvstore
from kvstore import IndexConfig
from kvstore.testing import StoreConformance, StoreFactory
from kvstore.testing_history import HistoryConformance
from kvstore.testing_sequences import SequenceConformance


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(kvstore.open, postgres_url)


class TestSequences(SequenceConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(kvstore.open, postgres_url)


class TestSequencesWithAnIndex(SequenceConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(kvstore.open, postgres_url, index=IndexConfig())


class TestHistory(HistoryConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(kvstore.open, postgres_url)
