"""SQLiteStore keeps the contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from kvstore import SQLiteStore
from kvstore.testing import StoreConformance, StoreFactory
from kvstore.testing_history import HistoryConformance


class TestSQLiteStore(StoreConformance):
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return partial(SQLiteStore, tmp_path / "store.db")


class TestSQLiteStoreWithFullDurability(StoreConformance):
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return partial(SQLiteStore, tmp_path / "store.db", durability="full")


class TestSQLiteStoreHistory(HistoryConformance):
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return partial(SQLiteStore, tmp_path / "history.db")
