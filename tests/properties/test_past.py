"""The past against a recorded model, over random histories.

`KVSTORE_HISTORIES=1000` makes so many of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvstore import InMemoryStore, SQLiteStore, Store
from kvstore.testing import ManualClock
from kvstore.testing_history import PastModel

HISTORIES = int(os.environ.get("KVSTORE_HISTORIES", "50"))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_the_past_is_as_it_was_recorded(kind: str, tmp_path: Path) -> None:
    for seed in range(HISTORIES):
        clock = ManualClock()
        store: Store
        if kind == "memory":
            store = InMemoryStore(clock=clock, history=3600, sweep_interval=None)
        else:
            path = tmp_path / f"{seed}.db"
            store = SQLiteStore(path, clock=clock, history=3600, sweep_interval=None)
        async with store:
            model = PastModel(store, clock, seed)
            for _ in range(15):
                await model.step()
            await model.check()
            assert (await store.check()).ok, seed
