"""After any history, the index of a database is exactly what its items say, whoever wrote them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import initialize, invariant

from kvstore import IndexConfig, InMemoryStore
from tests.postgres.server import Database, reason_to_skip
from tests.search.test_kept_through_any_history import FIELDS, History

pytest.importorskip("asyncpg", reason=reason_to_skip())

from kvstore.postgres import PostgresStore
from kvstore.postgres.checking import find_index_problems
from kvstore.postgres.connection import Target, connect


class PostgresHistory(History):
    """Writes of every kind, by a store with the model, one without it and one without an index."""

    database: Database

    @initialize(cache=st.just(0))
    def open(self, cache: int) -> None:
        self.stack = ExitStack()
        url = self.stack.enter_context(self.database.schema())
        options: dict[str, Any] = {"clock": self.clock, "sweep_interval": None}
        index = IndexConfig(self.model, fields=FIELDS)
        self.store = PostgresStore(url, index=index, **options)
        self.writers = [
            self.store,
            PostgresStore(url, **options),
            PostgresStore(url, index=IndexConfig(fields=FIELDS), **options),
        ]
        self.oracle = InMemoryStore(index=index, **options)
        for store in (*self.writers, self.oracle):
            self.run(store.open())
        self.raw = self.run(connect(Target.parse(url)))

    def teardown(self) -> None:
        if hasattr(self, "raw"):
            self.run(self.raw.close())
            for store in (*self.writers, self.oracle):
                self.run(store.close())
            self.stack.close()
        self.runner.close()
        self.folder.cleanup()

    @invariant()
    def the_index_is_true(self) -> None:
        if hasattr(self, "raw"):
            assert self.run(find_index_problems(self.raw)) == []


TestHistory = PostgresHistory.TestCase
TestHistory.settings = settings(max_examples=30, stateful_step_count=30)


@pytest.fixture(autouse=True)
def _database(postgres: Database) -> None:
    PostgresHistory.database = postgres
