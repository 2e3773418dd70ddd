"""Stores of both kinds for the tests of operations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

from kvstore import InMemoryStore, SQLiteStore, Store
from kvstore.testing import ManualClock

Factory = Callable[..., Store]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Factory:
    if request.param == "memory":
        return InMemoryStore
    return partial(SQLiteStore, tmp_path / "store.db")


@pytest.fixture
async def store(factory: Factory, clock: ManualClock) -> AsyncIterator[Store]:
    async with factory(clock=clock, sweep_interval=None) as opened:
        yield opened


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "sqlite.db", sweep_interval=None) as opened:
        yield opened
