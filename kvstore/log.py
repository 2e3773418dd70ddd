"""`Log`: an append-only sequence of entries, which are the items of one namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kvstore.arguments import TTL, check_count
from kvstore.backend import Host
from kvstore.errors import HistoryExpiredError, InvalidArgumentError
from kvstore.namespace import address, show
from kvstore.operations import PopEntry, TrimLog
from kvstore.sequences import position_of, refuse_other
from kvstore.types import Item, Namespace

__all__ = ["Entry", "Log"]

_AT_ONCE = 500  # entries in hand


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a log.

    Attributes:
        position: its place, from 1; entries that went leave holes.
        value: what was appended.
        created_at: when, as an aware UTC `datetime`.
    """

    position: int
    value: Any
    created_at: datetime


class Log:
    """An append-only sequence; made by `Store.log`. No call costs by its length.

    Entries are items of the namespace, whose keys are their positions with leading zeros.
    Positions are given in the order of the commits, from 1, and never twice: what is popped,
    trimmed, expired or removed leaves a hole.

    Its methods raise what those of `Store` do, and `InvalidNamespaceError` if the namespace is a
    queue.

    Attributes:
        namespace: where its entries are.
    """

    def __init__(self, store: Host, namespace: Sequence[str]) -> None:
        self._store = store
        self.namespace: Namespace
        self.namespace, self._path = address(namespace)

    def __repr__(self) -> str:
        return f"<Log {show(self.namespace)} of {self._store!r}>"

    async def append(self, value: Any, *more: Any, ttl: TTL = None) -> int:
        """Add entries to the end, all or none of them; return the position of the last one.

        Args:
            value: the first one: JSON and `bytes`.
            more: those after it.
            ttl: their lifetime in seconds or as a `timedelta`; `None`: the store's default.

        Raises:
            ValueEncodingError: something in a value could not come back unchanged.
            ValueTooLargeError: an encoded value is longer than `max_value_bytes`.
            InvalidTTLError: the ttl is not a positive, finite duration.
        """
        self._store.require_writable()
        op = self._store.prepare_append(self.namespace, (value, *more), ttl)
        position: int = (await self._store.apply((op,)))[0]
        return position

    async def tail(self, limit: int = 10) -> list[Entry]:
        """Return the last entries, the oldest of them first."""
        self._store.require_open()
        limit = check_count(limit, "limit")
        page = await self._store.backend.entries(self._path, None, limit)
        refuse_other(page.state, "log")
        return _entries(await self._store.renewed(page.items))

    async def read(self, after: int = 0) -> AsyncIterator[Entry]:
        """Iterate over the entries after a position, to the end as it is when it is reached.

        Args:
            after: the position of the last entry that is known; 0: begin with what is kept.

        Raises:
            HistoryExpiredError: entries after it were trimmed away, before or meanwhile.
            InvalidArgumentError: it is ahead of the log.
        """
        position = check_count(after, "after")
        while True:
            entries = await self._next(position)
            for entry in entries:
                yield entry
            if not entries:
                return
            position = entries[-1].position

    async def follow(self, after: int = 0) -> AsyncIterator[Entry]:
        """Iterate over the entries after a position, and go on as others come, from any process.

        It ends with `StoreClosedError` when the store closes; leave it by `break` or by cancelling
        the task. The arguments and the other errors are those of `read`.
        """
        position = check_count(after, "after")
        bell = self._store.backend.bell
        while True:
            listener = bell.listen()
            try:
                entries = await self._next(position)
                if not entries:
                    await bell.wait(listener)
                    self._store.require_open()
            finally:
                bell.forget(listener)
            for entry in entries:
                yield entry
                position = entry.position

    async def _next(self, after: int) -> list[Entry]:
        """Return the next entries; none: there are no more."""
        self._store.require_open()
        page = await self._store.backend.entries(self._path, after, _AT_ONCE)
        state = page.state
        refuse_other(state, "log")
        where = show(self.namespace)
        if after > state.last:
            raise InvalidArgumentError(
                f"after={after} is ahead of the log {where}, whose last position is {state.last}; "
                "was the store restored from a backup? Read the log anew, from after=0"
            )
        if 0 < after < state.trimmed:
            raise HistoryExpiredError(
                f"the entries of the log {where} after {after} are no longer kept: it was trimmed "
                f"up to {state.trimmed}; read what is there, from after=0"
            )
        return _entries(await self._store.renewed(page.items))

    async def pop(self) -> Entry | None:
        """Take the newest entry off, and return it; `None`: there is none."""
        self._store.require_writable()
        item: Item | None = (await self._store.apply((PopEntry(self.namespace, self._path),)))[0]
        return None if item is None else _entries([item])[0]

    async def length(self) -> int:
        """Return how many entries there are."""
        self._store.require_open()
        refuse_other((await self._store.backend.entries(self._path, None, 0)).state, "log")
        return await self._store.backend.length(self._path)

    async def trim(self, keep: int) -> int:
        """Delete all entries but the last `keep`, in one transaction; return how many went."""
        self._store.require_writable()
        op = TrimLog(self.namespace, self._path, check_count(keep, "keep"))
        number: int = (await self._store.apply((op,)))[0]
        return number


def _entries(items: Sequence[Item]) -> list[Entry]:
    return [Entry(position_of(item.key) or 0, item.value, item.created_at) for item in items]
