"""PostgresStore keeps the contract of ranked search."""

from __future__ import annotations

from functools import partial

import pytest

from kvstore.testing import StoreFactory
from kvstore.testing_search import SearchConformance
from tests.postgres.server import reason_to_skip

pytest.importorskip("asyncpg", reason=reason_to_skip())

from kvstore.postgres import PostgresStore


class TestPostgresStore(SearchConformance):
    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(PostgresStore, postgres_url)


class TestPostgresStoreBehindAPooler(SearchConformance):
    """As behind PgBouncer: nothing outlives a transaction."""

    @pytest.fixture
    def store_factory(self, postgres_url: str) -> StoreFactory:
        return partial(PostgresStore, postgres_url, pooler=True)
