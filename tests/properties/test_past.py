"""The past against a recorded model, over random histories.

`KVSTORE_HISTORIES=1000` makes so many of them on each backend; `KVSTORE_HISTORIES_FROM=200` begins
with another one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kvstore import InMemoryStore, SQLiteStore, Store
from kvstore.testing import ManualClock
from kvstore.testing_history import PastModel
from tests.postgres.server import Database

HISTORIES = int(os.environ.get("KVSTORE_HISTORIES", "50"))
FIRST = int(os.environ.get("KVSTORE_HISTORIES_FROM", "0"))
SEEDS = range(FIRST, FIRST + HISTORIES)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_the_past_is_as_it_was_recorded(kind: str, tmp_path: Path) -> None:
    for seed in SEEDS:
        clock = ManualClock()
        store: Store
        if kind == "memory":
            store = InMemoryStore(clock=clock, history=3600, sweep_interval=None)
        else:
            path = tmp_path / f"{seed}.db"
            store = SQLiteStore(path, clock=clock, history=3600, sweep_interval=None)
        await go_through(store, clock, seed)


@pytest.mark.slow
async def test_the_past_on_a_server_is_as_it_was_recorded(postgres: Database) -> None:
    from kvstore.postgres import PostgresStore

    for seed in SEEDS:
        clock = ManualClock()
        with postgres.schema() as url:
            store = PostgresStore(url, clock=clock, history=3600, sweep_interval=None)
            if seed % 2:  # versions are a root label's
                await go_through(store, clock, seed, root=("root",))
            else:
                await go_through(store, clock, seed, by_version=False)


async def go_through(store: Store, clock: ManualClock, seed: int, **options: Any) -> None:
    async with store:
        model = PastModel(store, clock, seed, **options)
        for _ in range(15):
            await model.step()
        await model.check()
        assert (await store.check()).ok, seed
