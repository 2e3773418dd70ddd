"""An append-only sequence of values in a namespace, for the adapters that keep order.

An entry is an item whose key is its position, with leading zeros. Positions are given by a counter
beside them and never twice, also when entries are taken off or cleared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvstore.errors import ConflictError
from kvstore.instants import FOREVER
from kvstore.store import Store
from kvstore.types import Item, Namespace

__all__ = ["Entries"]

_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a namespace in an open store."""

    store: Store
    namespace: Namespace

    async def append(self, values: Sequence[Any]) -> None:
        """Add values at the end, all or none of them."""
        if values:
            counter = (*self.namespace, "counter")
            last = await self.store.increment(counter, "last", len(values), ttl=FOREVER)
            first = int(last) - len(values) + 1
            entries = {f"{first + at:0{_DIGITS}}": value for at, value in enumerate(values)}
            await self.store.put_many(self.namespace, entries, ttl=FOREVER)

    async def tail(self, limit: int | None = None) -> list[Item]:
        """Return the last entries, the oldest of them first; `None`: all."""
        keys = await self.store.keys(self.namespace)
        wanted = keys if limit is None else keys[max(0, len(keys) - limit) :]
        return [*(await self.store.get_many(self.namespace, wanted)).values()]

    async def pop(self) -> Any | None:
        """Take the last entry off and return its value; no two callers get the same one."""
        while keys := await self.store.keys(self.namespace):
            last = await self.store.get(self.namespace, keys[-1])
            if last is None:
                continue  # another one has it
            try:
                if await self.store.delete(self.namespace, last.key, if_version=last.version):
                    return last.value
            except ConflictError:
                continue
        return None

    async def clear(self) -> None:
        """Take all entries away."""
        await self.store.remove(self.namespace, "*")
