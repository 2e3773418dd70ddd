"""Each method of an adapter is written once, and has a blocking half and an awaited one."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

from kvstore import SQLiteStore, Store
from kvstore.integrations.access import Access, Adapter, halves


class Shelf(Adapter):
    def __init__(self, target: Path | Store) -> None:
        self._access = Access(target, type(self).__name__)

    async def _keep(self, store: Store, key: str, value: int, *, twice: bool = False) -> int:
        """Keep a number."""
        return (await store.put(("shelf",), key, value * (1 + twice))).version

    keep, keep_async = halves(_keep)


def test_both_halves_do_the_same_and_look_like_methods(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf.db")
    assert shelf.keep("a", 1, twice=True) == 1
    assert asyncio.run(shelf.keep_async("a", value=2)) == 2
    shelf.close()
    for method, name in ((Shelf.keep, "keep"), (Shelf.keep_async, "keep_async")):
        assert (method.__name__, method.__doc__) == (name, "Keep a number.")
        assert method.__qualname__ == f"Shelf.{name}"
        assert [*inspect.signature(method).parameters] == ["self", "key", "value", "twice"]
    assert inspect.iscoroutinefunction(Shelf.keep_async)
    assert not inspect.iscoroutinefunction(Shelf.keep)


async def test_the_blocking_half_names_the_awaited_one_on_the_stores_own_loop(
    tmp_path: Path,
) -> None:
    async with SQLiteStore(tmp_path / "shelf.db") as store:
        with pytest.raises(
            asyncio.InvalidStateError, match=r"keep would block.*such as keep_async"
        ):
            Shelf(store).keep("a", 1)
