"""A unit of new items takes a short way, and comes to what it would come to by the long one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kvstore import FOREVER, ConflictError, IndexConfig, InMemoryStore, SQLiteStore, Store
from kvstore.namespace import address
from kvstore.operations import Check, Operation, Put
from kvstore.sqlite import statements
from kvstore.sqlite.series import Series
from kvstore.testing import ManualClock
from kvstore.types import Item

pytestmark = pytest.mark.skipif(
    not statements.READS_LENGTH_ALONE, reason="nothing is written on the loop's thread"
)
NS = ("a", "b")


@pytest.fixture
def alone(unhurried: None, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Notes of each unit that was tried the short way whether it went it."""
    gone: list[bool] = []
    add_alone = Series.add_alone

    def note(self: Series, ops: Any, *args: Any) -> list[Item | None] | None:
        answers = add_alone(self, ops, *args)
        gone.append(answers is not None)
        return answers

    monkeypatch.setattr(Series, "add_alone", note)
    return gone


def new(store: Store, key: str, value: Any, if_version: int | None = 0) -> Put:
    return store.prepare_put(NS, key, value, FOREVER, False, if_version)


async def test_new_items_beside_a_known_one(tmp_path: Path, alone: list[bool]) -> None:
    async with SQLiteStore(tmp_path / "store.db") as store:
        parent = await store.put(NS, "parent", 0)
        check = Check(*address(NS), "parent", parent.version)
        unit: list[Operation] = [check, new(store, "piece", 1), new(store, "child", 2, None)]
        answers = await store.apply(unit)
        assert alone == [True]
        assert answers == [None, await store.get(NS, "piece"), await store.get(NS, "child")]
        assert await store.keys(NS) == ["child", "parent", "piece"]
        assert (await store.check()).ok


async def test_one_that_is_there_keeps_the_others_out(tmp_path: Path, alone: list[bool]) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store, SQLiteStore(path) as other:
        await other.put(NS, "there", "theirs")
        await store.put(NS, "mine", 0)
        await store.put(NS, "mine", 0)
        with pytest.raises(ConflictError, match="there"):
            await store.apply([new(store, "new", 1), new(store, "there", "mine")])
        assert alone == [False]
        assert await store.keys(NS) == ["mine", "there"]


@pytest.mark.parametrize("history", [None, 3_600], ids=["alone", "history"])
@pytest.mark.parametrize("seed", range(8))
async def test_any_units_come_to_the_same(
    tmp_path: Path, alone: list[bool], seed: int, history: float | None
) -> None:
    clock, seen = ManualClock(1_000.0), []
    options: dict[str, Any] = {"clock": clock, "history": history}
    for store in (SQLiteStore(tmp_path / "store.db", **options), InMemoryStore(**options)):
        dice, clock.seconds = random.Random(seed), 1_000.0
        outcomes: list[Any] = []
        async with store:
            for number in range(150):
                clock.seconds += dice.choice((0, 1))
                keys = dice.sample([f"k{n}" for n in range(12)], dice.choice((1, 2, 3)))
                unit: list[Operation] = []
                for at, key in enumerate(keys):
                    item = await store.get(NS, key) if dice.random() < 0.7 else None
                    if at == 0 and item is not None and dice.random() < 0.5:
                        version = item.version - dice.choice((0, 0, 0, 1))
                        unit.append(Check(*address(NS), key, version))
                    else:
                        unit.append(new(store, key, number, dice.choice((0, 0, None))))
                try:
                    outcomes.append(await store.apply(unit))
                except ConflictError as exc:
                    outcomes.append(str(exc))
                doomed = dice.choice(keys)
                match dice.choice(("delete", "delete", "expire", "nothing")):
                    case "delete":
                        outcomes.append(await store.delete(NS, doomed))
                    case "expire":
                        outcomes.append(await store.expire(NS, doomed, 1))
            outcomes.append([item async for item in store.scan(NS)])
            if history is not None:
                outcomes += [await store.history(NS, f"k{n}") for n in range(12)]
            assert (await store.check()).ok
        seen.append(outcomes)
    assert seen[0] == seen[1]
    assert alone.count(True) > 20


@pytest.mark.parametrize("options", [{"index": IndexConfig()}, {"read_cache_bytes": 0}])
async def test_a_file_that_keeps_more_goes_the_long_way(
    tmp_path: Path, alone: list[bool], options: dict[str, Any]
) -> None:
    async with SQLiteStore(tmp_path / "store.db", **options) as store:
        for number in range(3):
            await store.put(NS, str(number), number, index=False, if_version=0)
        assert True not in alone
        assert await store.count(NS) == 3
