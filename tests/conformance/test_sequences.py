"""Logs and queues keep their contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from kvstore import IndexConfig, InMemoryStore, SQLiteStore
from kvstore.testing import StoreFactory
from kvstore.testing_sequences import SequenceConformance


class TestInMemoryStore(SequenceConformance):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return InMemoryStore


class TestSQLiteStore(SequenceConformance):
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return partial(SQLiteStore, tmp_path / "store.db")


class TestSQLiteStoreWithAnIndex(SequenceConformance):
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return partial(SQLiteStore, tmp_path / "store.db", index=IndexConfig())
