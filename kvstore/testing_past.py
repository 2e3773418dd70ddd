"""`PastModel`: what a store held after each of many random writes, to hold its past against."""

from __future__ import annotations

import random
from datetime import datetime
from typing import Any

from kvstore.past_view import Past
from kvstore.store import Store
from kvstore.testing import ManualClock
from kvstore.types import Namespace

__all__ = ["PastModel", "State", "everything"]

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
