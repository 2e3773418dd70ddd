"""PostgresStore keeps the contract."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from kvstore import IndexConfig, Store
from kvstore.testing import StoreConformance, StoreFactory
from kvstore.testing_history import HistoryConformance
from kvstore.testing_sequences import SequenceConformance


def postgres_store(url: str, **options: Any) -> Store:
    from kvstore.postgres import PostgresStore

    return PostgresStore(url, **options)


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(postgres_store, postgres_url)


class TestSequences(SequenceConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(postgres_store, postgres_url)


class TestSequencesWithAnIndex(SequenceConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(postgres_store, postgres_url, index=IndexConfig())


class TestHistory(HistoryConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(postgres_store, postgres_url)
