"""Stores of all kinds for the tests of operations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest

import kvstore
from kvstore import InMemoryStore, SQLiteStore, Store
from kvstore.testing import ManualClock

Factory = Callable[..., Store]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Factory:
    match request.param:
        case "memory":
            return InMemoryStore
        case "sqlite":
            return partial(SQLiteStore, tmp_path / "store.db")
    return partial(kvstore.open, request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(factory: Factory, clock: ManualClock) -> AsyncIterator[Store]:
    async with factory(clock=clock, sweep_interval=None) as opened:
        yield opened


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(tmp_path / "sqlite.db", sweep_interval=None) as opened:
        yield opened
