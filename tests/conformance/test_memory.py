"""InMemoryStore keeps the contract."""

from __future__ import annotations

import pytest

from kvstore import InMemoryStore
from kvstore.testing import StoreConformance, StoreFactory


class TestInMemoryStore(StoreConformance):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        return InMemoryStore
