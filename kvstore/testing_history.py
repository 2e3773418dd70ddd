"""`HistoryConformance`: the contract of the past as a pytest class, for authors of backends.

As `kvstore.testing.StoreConformance`: give it a fixture `store_factory(**options)` that makes a
store which is not open yet; here it takes `history` and `index`, too. A backend that keeps no
history says so by `Backend.keeps_history`, and these tests are then skipped.

    class TestMyHistory(HistoryConformance):
        @pytest.fixture
        def store_factory(self, tmp_path):
            return partial(MyStore, tmp_path / "my.store")
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

from kvstore.distribution import or_install
from kvstore.errors import HistoryExpiredError, InvalidArgumentError, InvalidPatternError
from kvstore.past_view import Past
from kvstore.store import Store
from kvstore.testing import SPAN, ManualClock, StoreFactory, StoreFixtures, refused, there
from kvstore.types import Change, IndexConfig, Namespace

_NEEDS = "kvstore.testing_history needs pytest and pytest-asyncio"
with or_install(_NEEDS, "test", "pytest", "pytest-asyncio"):
    import pytest
    import pytest_asyncio

__all__ = ["HistoryConformance", "PastModel"]

NS = ("users", "alice")


def told(changes: list[Change]) -> list[tuple[str, int, Any]]:
    """Return of each change its kind, its version and the value of its item."""
    return [
        (each.kind, each.version, None if each.item is None else each.item.value)
        for each in changes
    ]


class HistoryConformance(StoreFixtures):
    """The contract of the past; subclass it and give it the fixture `store_factory`."""

    @pytest_asyncio.fixture
    async def store(self, history_factory: StoreFactory) -> AsyncIterator[Store]:  # type: ignore[override]
        """An empty, open store that keeps its history for an hour."""
        async with history_factory() as store:
            yield store

    # What was there

    async def test_history_tells_puts_deletes_and_expiries_newest_first(
        self, store: Store, clock: ManualClock
    ) -> None:
        began = clock.now
        first = await store.put(NS, "k", {"a": 1})
        clock.advance(1)
        second = await store.put(NS, "k", 2, ttl=5)
        clock.advance(10)
        await store.sweep()
        clock.advance(1)
        await store.put(NS, "k", 3)
        await store.delete(NS, "k")
        found = await store.history(NS, "k")
        assert told(found) == [
            *(("delete", 5, None), ("put", 4, 3), ("expire", 3, None), ("put", 2, 2)),
            ("put", 1, {"a": 1}),
        ]
        assert [(each.at - began).total_seconds() for each in found] == [12, 12, 11, 1, 0]
        assert (found[-1].item, found[-2].item) == (first, second)
        assert found[-1].namespace == NS
        assert await store.history(NS, "k", limit=2) == found[:2]
        assert await store.history(NS, "k", limit=0) == []
        assert await store.history(NS, "other") == []

    async def test_a_past_item_has_the_lifetime_that_it_had_last(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "k", 1, ttl=10)
        clock.advance(5)
        await store.get(NS, "k", refresh_ttl=True)
        clock.advance(7)
        await store.put(NS, "k", 2)
        (_, old) = await store.history(NS, "k")
        assert old.item is not None
        assert old.item.expires_at == clock.now + timedelta(seconds=3)
        assert (await store.at(1).get_many(NS, ["k"]))["k"] == old.item

    async def test_at_a_version_is_the_store_after_it(self, store: Store) -> None:
        await store.put_many(NS, {"a": 1, "b": 2, "c": 3})
        await store.delete(NS, "a")
        await store.put(("other",), "d", 4)
        assert await everything(store.at(0)) == {}
        assert await everything(store.at(2)) == {(NS, "a"): 1, (NS, "b"): 2}
        assert await everything(store.at(3)) == {(NS, "a"): 1, (NS, "b"): 2, (NS, "c"): 3}
        past = store.at(3)
        await store.remove((), "*", subtree=True)
        assert await past.keys(NS) == ["a", "b", "c"]
        assert await past.keys((), "[bc]", subtree=True, limit=1) == ["b"]
        assert await past.count(NS, "a*") == 1
        assert await past.list_namespaces() == [NS]
        assert await past.list_namespaces(max_depth=1) == [("users",)]
        assert await store.at(5).list_namespaces(("other",)) == [("other",)]
        item = await there(past, NS, "a")
        assert (item.value, item.version) == (1, 1)
        assert await past.get(NS, "x") is None
        assert list(await past.get_many(NS, ["c", "x", "a"])) == ["c", "a"]

    async def test_the_past_is_listed_as_the_present_is(
        self, store: Store, clock: ManualClock
    ) -> None:
        places: list[tuple[Namespace, str]] = []
        for labels in ((), ("a",), ("a", "b"), ("c",)):
            items = await store.put_many(labels, dict.fromkeys("xyz", 1))
            places += [(item.namespace, item.key) for item in items]
        past = store.at(clock.now)
        clock.advance(1)
        await store.remove((), "[xy]", subtree=True)
        for first, last in ((None, None), (2, 10), (4, None), (None, 7), (7, 4)):
            after, before = (None if place is None else places[place] for place in (first, last))
            inside = places[0 if first is None else first + 1 : last]
            for reverse in (False, True):
                told = inside[::-1] if reverse else inside
                bounds: Any = {"after": after, "before": before, "reverse": reverse}
                found = [item async for item in past.scan(**bounds, batch_size=2)]
                assert [(item.namespace, item.key) for item in found] == told
                keys = await past.keys((), subtree=True, limit=3, **bounds)
                assert keys == [key for _, key in told[:3]]
        assert await past.keys(("a",), after="x", before="z") == ["y"]

    async def test_at_an_instant_never_splits_a_transaction(
        self, store: Store, clock: ManualClock
    ) -> None:
        clock.advance(1)
        before = clock.now - timedelta(microseconds=1)
        await store.put_many(NS, {"a": 1, "b": 2})
        await store.put(NS, "c", 3)
        then = clock.now
        clock.advance(1)
        await store.put(NS, "a", 4)
        assert await store.at(before).count(NS) == 0
        assert await store.at(then).keys(NS) == ["a", "b", "c"]
        assert await store.at(then + timedelta(seconds=0.5)).keys(NS) == ["a", "b", "c"]
        assert (await there(store.at(clock.now), NS, "a")).value == 4

    async def test_what_was_over_by_then_is_not_there_whenever_it_is_swept(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "short", 1, ttl=5)
        await store.put(NS, "long", 2)
        clock.advance(10)
        await store.put(NS, "other", 3)
        assert await store.at(2).keys(NS) == ["long", "short"]
        assert await store.at(3).keys(NS) == ["long", "other"]
        await store.sweep()
        assert await store.at(2).keys(NS) == ["long", "short"]
        assert await store.at(3).keys(NS) == ["long", "other"]
        assert await store.at(clock.now - timedelta(seconds=5)).keys(NS) == ["long"]
        assert await store.at(clock.now - timedelta(seconds=6)).keys(NS) == ["long", "short"]

    async def test_instants_never_go_back(self, store: Store, clock: ManualClock) -> None:
        await store.put(NS, "short", 1, ttl=5)
        clock.advance(100)
        await store.put(NS, "a", 1)
        ahead = clock.now
        clock.advance(-100)
        await store.put(NS, "a", 2)
        (newer, older) = await store.history(NS, "a")
        assert newer.at == older.at == ahead
        assert await store.at(3).keys(NS) == ["a"]
        assert (await there(store.at(ahead), NS, "a")).value == 2

    async def test_the_past_is_searched_by_filter_and_by_words(
        self, history_factory: StoreFactory
    ) -> None:
        async with history_factory(index=IndexConfig()) as store:
            await store.put(NS, "a", {"text": "The quick brown fox", "n": 1})
            await store.put(NS, "b", {"text": "A lazy dog", "n": 2})
            await store.put(NS, "c", {"text": "quick dogs", "n": 3}, index=False)
            await store.remove(NS, "*")
            past = store.at(3)
            assert [item.key for item in await past.search(NS)] == ["c", "b", "a"]
            found = await past.search(NS, filter={"n": {"$gte": 2}}, limit=1, offset=1)
            assert [item.key for item in found] == ["b"]
            (item,) = await past.search(("users",), "fox quick", subtree=True)
            assert item.key == "a"
            assert 0 < (item.score or 0) <= 1
            assert await past.search(NS, "quick", filter={"n": 2}) == []
            for mode in ("semantic", "hybrid", "other"):
                await refused(InvalidArgumentError, past.search(NS, "fox", mode=mode))
            await refused(InvalidArgumentError, past.search(NS, vector=[1.0]), match="vectors")

    async def test_what_was_read_is_forgotten_as_all_else(
        self, store: Store, clock: ManualClock
    ) -> None:
        for number in range(3):
            await store.put(NS, "k", number, ttl=5)
        await store.put(NS, "other", "same")
        past = store.at(2)
        for _ in range(2):
            await store.get(NS, "k")
            item = await there(past, NS, "k")
            assert item.value == 1
            assert await past.get(NS, "other") is None
        last = store.at(4)
        clock.advance(10)  # over by now, and there at that moment
        for _ in range(2):
            assert [await last.get(NS, key) is not None for key in ("k", "other")] == [True, True]
            assert await store.get(NS, "k") is None
        await store.put(NS, "k", 3)
        for _ in range(2):
            assert await past.get(NS, "k") == item
        await store.forget(NS, "k")
        assert await past.get(NS, "k") is None
        clock.advance(2 * SPAN)  # with no write in between
        await refused(HistoryExpiredError, past.get(NS, "other"))

    async def test_random_histories_are_as_they_were_recorded(
        self, store: Store, clock: ManualClock
    ) -> None:
        model = PastModel(store, clock, seed=1)
        for _ in range(60):
            await model.step()
        await model.check()
        assert (await store.check()).ok

    # What is kept

    async def test_what_is_older_than_the_history_is_refused(
        self, store: Store, clock: ManualClock
    ) -> None:
        then = clock.now
        await store.put(NS, "a", 1)
        await store.put(NS, "b", 1)
        clock.advance(SPAN / 2)
        await store.put(NS, "a", 2)
        clock.advance(SPAN / 2)  # version 1 ceased to be exactly now
        for sweep in (False, True):
            if sweep:
                await store.sweep()
            for moment in (1, then - timedelta(seconds=1)):
                with pytest.raises(HistoryExpiredError, match="older than what is kept"):
                    await store.at(moment).get(NS, "a")
                await refused(HistoryExpiredError, store.rewind(moment))
            assert await everything(store.at(2)) == {(NS, "a"): 1, (NS, "b"): 1}
        clock.advance(SPAN / 2)
        await store.sweep()
        assert await everything(store.at(3)) == {(NS, "a"): 2, (NS, "b"): 1}
        for moment in (2, then):
            await refused(
                HistoryExpiredError,
                store.at(moment).get(NS, "b"),
                store.at(moment).count(("users",), subtree=True),
                store.rewind(moment),
            )
        assert told(await store.history(NS, "a")) == [("put", 3, 2)]
        stats = await store.stats()
        assert (stats.past, stats.past_bytes) == (0, 0)

    async def test_an_instant_before_what_is_kept_is_refused_whatever_was_trimmed(
        self, store: Store, clock: ManualClock
    ) -> None:
        then = (await store.put(NS, "a", 1)).updated_at
        clock.advance(1)
        await store.put(NS, "a", 2)
        for _ in range(2):
            clock.advance(SPAN)
            await refused(
                HistoryExpiredError,
                store.at(then).get(NS, "a"),
                store.at(then).keys(NS),
                store.rewind(then, namespace=NS),
            )
            await store.sweep()

    async def test_what_was_untouched_for_long_is_in_the_kept_past(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "old", 1)
        clock.advance(SPAN * 10_000)
        await store.sweep()
        await store.put(NS, "old", 2)
        clock.advance(SPAN / 2)
        assert (
            await there(store.at(clock.now - timedelta(seconds=SPAN / 2 + 1)), NS, "old")
        ).value == 1

    async def test_a_scan_that_outlives_the_history_is_told_so(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put_many(NS, {f"{number:03}": number for number in range(50)})
        await store.remove(NS, "*")
        seen = []

        async def read() -> None:
            async for item in store.at(50).scan(batch_size=10):
                seen.append(item.key)
                if len(seen) == 15:
                    clock.advance(SPAN)
                    await store.sweep()

        await refused(HistoryExpiredError, read())
        assert seen == [f"{number:03}" for number in range(20)]

    async def test_without_history_nothing_is_kept(self, history_factory: StoreFactory) -> None:
        async with history_factory(history=None) as store:
            await store.put(NS, "a", 1)
            await store.put(NS, "a", 2)
            stats = await store.stats()
            assert (stats.past, stats.changes) == (0, 0)
            assert told(await store.history(NS, "a")) == [("put", 2, 2)]
            await refused(
                HistoryExpiredError, store.at(1).get(NS, "a"), store.rewind(1), match="history="
            )
            assert await store.forget(NS, "*") == 0

    async def test_an_unchanged_value_is_kept_once(self, store: Store) -> None:
        value = "x" * 10_000
        for _ in range(10):
            await store.put(NS, "a", value)
        await store.put(NS, "a", "y")
        stats = await store.stats()
        assert stats.past == 10
        assert stats.past_bytes < 2 * len(value)
        assert [each.item and each.item.value for each in await store.history(NS, "a")] == [
            "y",
            *[value] * 10,
        ]
        assert (await store.check()).ok

    async def test_what_is_still_there_takes_no_room_in_the_past(self, store: Store) -> None:
        for _ in range(3):
            await store.put(NS, "a", "x" * 1_000)
        stats = await store.stats()
        assert (stats.past, stats.past_bytes) == (2, 0)

    async def test_forget_takes_the_past_and_leaves_the_present(self, store: Store) -> None:
        for value in (1, 2, 3):
            await store.put(NS, "secret", value)
            await store.put((*NS, "below"), "secret", value)
            await store.put(NS, "other", value)
        version = (await store.stats()).version
        await store.delete((*NS, "below"), "secret")
        assert await store.forget(NS, "s*") == 2
        assert told(await store.history(NS, "secret")) == [("put", 7, 3)]
        assert len(await store.history(NS, "other")) == 3
        past = store.at(4)
        assert await past.get(NS, "secret") is None
        assert await past.keys(NS, subtree=True) == ["other", "secret"]
        assert await store.forget((), "secret", subtree=True) == 3
        assert await store.history((*NS, "below"), "secret") == []
        assert await store.at(version).keys(NS, subtree=True) == ["other", "secret"]
        assert await store.rewind(4) == 1  # what is not known any more is left alone
        assert (await everything(store)) == {(NS, "secret"): 3, (NS, "other"): 1}
        assert (await store.check()).ok
        await refused(InvalidPatternError, store.forget(NS, "[a"))

    # Back to then

    async def test_rewind_is_one_watched_change_that_can_be_undone(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put_many(NS, {"same": 1, "changed": 1, "deleted": 1})
        await store.put(("other",), "k", 1)
        clock.advance(1)
        await store.put(NS, "changed", 2)
        await store.delete(NS, "deleted")
        await store.put(NS, "new", 1)
        await store.put(NS, "same", 2)
        await store.put(NS, "same", 1)
        await store.put(("other",), "k", 2)
        before, version = await everything(store), (await store.stats()).version
        kept = await store.get(NS, "same")
        async with store.watch() as changes:
            assert await store.rewind(4, namespace=("users",)) == 3
            told = [await anext(changes) for _ in range(3)]
        assert [(change.kind, change.key) for change in told] == [
            ("put", "changed"),
            ("put", "deleted"),
            ("delete", "new"),
        ]
        assert all(change.version > version and change.at == clock.now for change in told)
        ones: State = {(NS, key): 1 for key in ("changed", "deleted", "same")}
        assert await everything(store) == {(("other",), "k"): 2, **ones}
        assert await store.get(NS, "same") == kept
        assert await store.rewind(version) == 3
        assert await everything(store) == before
        assert await store.rewind(version) == 0
        assert await store.rewind(4, namespace=NS[:1], subtree=False) == 0

    async def test_rewind_leaves_lifetimes_absolute(self, store: Store, clock: ManualClock) -> None:
        await store.put(NS, "over", 1, ttl=5)
        long = await store.put(NS, "long", 1, ttl=100)
        clock.advance(10)
        await store.put(NS, "over", 2)
        await store.delete(NS, "long")
        assert await store.rewind(2) == 2
        assert await store.get(NS, "over") is None
        item = await there(store, NS, "long")
        assert item.expires_at == long.expires_at
        assert item.version > 4

    async def test_rewind_writes_what_the_index_finds(self, history_factory: StoreFactory) -> None:
        async with history_factory(index=IndexConfig()) as store:
            await store.put(NS, "a", "a quick fox")
            await store.put(NS, "a", "a lazy dog")
            await store.put(NS, "b", "a quick dog")
            await store.rewind(1)
            assert [item.key for item in await store.search(NS, "fox")] == ["a"]
            assert await store.search(NS, "dog") == []
            assert (await store.check()).ok

    # Watching

    async def test_a_watch_resumes_with_items_as_they_were(self, store: Store) -> None:
        first = await store.put(NS, "a", 1)
        await store.put(NS, "a", 2)
        await store.delete(NS, "a")
        await store.put(NS, "b", 3)
        async with store.watch(since=0) as changes:
            found = [await anext(changes) for _ in range(4)]
        assert told(found) == [("put", 1, 1), ("put", 2, 2), ("delete", 3, None), ("put", 4, 3)]
        assert found[0].item == first
        async with store.watch(since=found[1]) as changes:
            assert (await anext(changes)).kind == "delete"

    async def test_a_watch_tells_of_items_whose_time_is_over_by_now(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "a", 1, ttl=5)
        await store.put(NS, "b", 2)
        await store.expire(NS, "b", 5)
        clock.advance(10)
        await store.put(NS, "a", 3)
        async with store.watch(since=0) as changes:
            found = [await anext(changes) for _ in range(4)]
        assert told(found) == [("put", 1, 1), ("put", 2, 2), ("expire", 3, None), ("put", 4, 3)]

    # Bad input

    async def test_moments_that_are_none_are_refused(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.put(NS, "a", 1)
        naive = clock.now.replace(tzinfo=None)
        for bad in (naive, "1", 1.0, True, None, -1):
            with pytest.raises(InvalidArgumentError):
                store.at(bad)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError):
                await store.rewind(bad)  # type: ignore[arg-type]
        utmost = datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))  # 10000 by UTC
        for future in (2, clock.now + timedelta(seconds=1), 2**70, utmost):
            await refused(
                InvalidArgumentError,
                store.at(future).get(NS, "a"),
                store.rewind(future),
                match="future",
            )
        with pytest.raises(InvalidArgumentError):
            store.at(1, root=1)  # type: ignore[arg-type]
        assert await store.at(1, root="users").count(NS) == 1
        await refused(InvalidArgumentError, store.history(NS, "a", limit=-1))

    @pytest.mark.parametrize("bad", [0, -1, "1", True, float("nan"), float("inf"), 1e10])
    async def test_histories_that_are_none_are_refused(
        self, history_factory: StoreFactory, bad: Any
    ) -> None:
        with pytest.raises(InvalidArgumentError, match="history"):
            history_factory(history=bad)

    async def test_a_history_may_be_a_timedelta(self, history_factory: StoreFactory) -> None:
        async with history_factory(history=timedelta(days=7)) as store:
            await store.put(NS, "a", 1)
            assert await store.at(1).count(NS) == 1


State = dict[tuple[Namespace, str], Any]


async def everything(store: Store | Past) -> State:
    """Return all that is there, by address."""
    return {(item.namespace, item.key): item.value async for item in store.scan()}


class PastModel:
    """Writes at random, and remembers what was there after each version.

    Args:
        store: to write to, empty.
        clock: that it goes by; it is moved on, too.
        seed: of the chances.
        root: the namespace in which it writes; `()`: under several root labels.
        by_version: whether moments are versions, too, and not instants alone, as where each root
            label has versions of its own.

    Attributes:
        states: after each version that a write has left: that, the instant, and all items.
    """

    def __init__(
        self,
        store: Store,
        clock: ManualClock,
        seed: int,
        *,
        root: Namespace = (),
        by_version: bool = True,
    ) -> None:
        self._store = store
        self._clock = clock
        self._by_version = by_version
        self._namespaces = [(*root, *rest) for rest in [("a",), ("a", "b"), ("ab",), ()]]
        self._chance = random.Random(seed)
        self.states: list[tuple[int, datetime, State]] = []

    async def step(self) -> None:
        """Write something, and remember what is there now."""
        store, chance = self._store, self._chance
        namespace = chance.choice(self._namespaces)
        key = f"k{chance.randrange(4)}"
        value = {"n": chance.randrange(3), "pad": "x" * chance.choice([0, 0, 5000])}
        ttl = chance.choice([None, None, 1, 5])
        match chance.randrange(9):
            case 0 | 1 | 2:
                await store.put(namespace, key, value, ttl=ttl)
            case 3:
                await store.put_many(namespace, {key: value, "k9": 1, "k8": 2}, ttl=ttl)
            case 4:
                await store.delete(namespace, key)
            case 5:
                await store.remove(namespace, "k[01]", subtree=chance.random() < 0.5)
            case 6:
                await store.update(namespace, key, lambda old: [old if old is None else 1, 2])
            case 7:
                await store.sweep()
            case 8 if self.states:
                version, at, _ = chance.choice(self.states)
                within = chance.choice([(), self._namespaces[0], namespace])
                moment = version if chance.random() < 0.5 and self._by_version else at
                await store.rewind(moment, namespace=within, subtree=chance.random() < 0.7)
        version = (await store.stats()).version
        self.states.append((version, self._clock.now, await everything(store)))
        self._clock.advance(chance.choice([0, 0.5, 1, 2]))

    async def check(self) -> None:
        """Hold the past against what was remembered, by versions and by instants."""
        last_at = {at: number for number, (_, at, _) in enumerate(self.states)}
        first_of: dict[int, int] = {}
        for number, (version, at, state) in enumerate(self.states):
            if last_at[at] == number:  # equal instants mean the last
                await self._compare(at, state)
            if not self._by_version:
                continue
            # What was over since is there at the version's own instant, which is its first one
            first = first_of.setdefault(version, number)
            if first == number and (number == 0 or self.states[number - 1][0] != version):
                await self._compare(version, state)

    async def _compare(self, moment: int | datetime, state: State) -> None:
        """Look at all that was there at a moment, and again at some of it, one by one."""
        past = self._store.at(moment)
        assert await everything(past) == state, moment
        for _ in range(3):
            namespace = self._chance.choice(self._namespaces)
            key = f"k{self._chance.randrange(4)}"
            await self._store.get(namespace, key)  # what is there now may be known, then
            item = await past.get(namespace, key)
            value = state.get((namespace, key))
            assert (None if item is None else item.value) == value, (moment, namespace, key)
