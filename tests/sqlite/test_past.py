"""Reads of a file's past are answered from memory only while that is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import HistoryExpiredError, SyncStore
from kvstore.testing import ManualClock

NS = ("users",)
SPAN = 3600.0


def values(items: list[kvstore.Item | None]) -> list[Any]:
    return [None if item is None else item.value for item in items]


async def test_what_others_forget_and_trim_is_not_answered_from_memory(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.db", ManualClock()
    options: dict[str, Any] = {"clock": clock, "history": SPAN, "sweep_interval": None}
    async with kvstore.open(path, **options) as store, kvstore.open(path, **options) as other:
        with SyncStore(path, **options) as sync:
            await store.put_many(NS, {"a": 1, "b": 1, "c": 1})
            await store.put_many(NS, {"a": 2, "b": 2})
            pasts, sync_past = [store.at(3), other.at(3)], sync.at(3)

            async def seen(key: str) -> list[Any]:
                found = [await past.get(NS, key) for past in (*pasts, *pasts)]
                return values([*found, sync_past.get(NS, key), sync_past.get(NS, key)])

            for key in "abc":
                assert await seen(key) == [1] * 6
            await other.put(NS, "c", 2)
            assert await seen("c") == [1] * 6
            await other.forget(NS, "a")
            assert await seen("a") == [None] * 6
            sync.forget(NS, "b")
            assert await seen("b") == [None] * 6
            clock.advance(SPAN - 1)
            assert await seen("c") == [1] * 6
            clock.advance(2)  # and nobody has written
            for past in pasts:
                with pytest.raises(HistoryExpiredError):
                    await past.get(NS, "c")
            with pytest.raises(HistoryExpiredError):
                sync_past.get(NS, "c")


async def test_long_values_and_read_only_stores_have_a_past_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    long = "x" * 1_000_000
    async with kvstore.open(path, history=SPAN) as store:
        await store.put(NS, "k", long)
        await store.put(NS, "k", "short")
        for _ in range(2):
            item = await store.at(1).get(NS, "k")
            assert item is not None
            assert item.value == long
        async with kvstore.open(path, read_only=True) as reader:
            for _ in range(2):
                item = await reader.at(1).get(NS, "k")
                assert item is not None
                assert item.value == long
        with SyncStore(path, read_only=True) as sync:
            assert values([sync.at(1).get(NS, "k"), sync.at(2).get(NS, "k")]) == [long, "short"]
