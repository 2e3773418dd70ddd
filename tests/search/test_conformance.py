"""All stores keep the contract of ranked search."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import kvstore
from kvstore import InMemoryStore, SQLiteStore
from kvstore.testing import StoreFactory
from kvstore.testing_search import SearchConformance


class TestInMemoryStore(SearchConformance):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return InMemoryStore


class TestSQLiteStore(SearchConformance):
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return partial(SQLiteStore, tmp_path / "store.db")


class TestSQLiteStoreWithoutCache(SearchConformance):
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return partial(SQLiteStore, tmp_path / "store.db", vector_cache_bytes=0)


class TestPostgresStore(SearchConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(kvstore.open, postgres_url)


class TestPostgresStoreBehindAPooler(SearchConformance):
    """As behind PgBouncer: nothing outlives a transaction."""

    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(kvstore.open, postgres_url, pooler=True)
