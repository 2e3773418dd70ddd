"""A unit that may fail late has its transaction to itself, and fails for its own caller alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kvstore import HistoryExpiredError, Item, SQLiteStore
from kvstore.namespace import encode_namespace
from kvstore.operations import Rewind
from kvstore.testing import ManualClock

NS = ("alone",)


async def test_a_rewind_that_comes_too_late_fails_none_of_its_neighbours(tmp_path: Path) -> None:
    clock = ManualClock()
    async with SQLiteStore(tmp_path / "a.db", history=60, clock=clock) as store:
        first = await store.put(NS, "k", 1)
        await store.put(NS, "k", 2)
        found = await store.backend.moment(first.version, None)
        clock.advance(120)
        rewind = Rewind(encode_namespace(NS), True, found)
        before, refused, *after = await asyncio.gather(
            store.put(NS, "before", "x" * 100_000),
            store.apply((rewind,)),
            *(store.put(NS, f"after-{number}", number) for number in range(20)),
            return_exceptions=True,
        )
        assert isinstance(refused, HistoryExpiredError)
        assert all(isinstance(outcome, Item) for outcome in (before, *after))
        assert await store.count(NS) == 22
