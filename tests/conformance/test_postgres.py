"""PostgresStore keeps the contract."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from kvstore import Store
from kvstore.testing import StoreConformance, StoreFactory


def postgres_store(url: str, **options: Any) -> Store:
    from kvstore.postgres import PostgresStore

    return PostgresStore(url, **options)


class TestPostgresStore(StoreConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(postgres_store, postgres_url)
