"""Changes of one plain item (`increment`, `append`, `pop`): read, changed and put over at once.

A `Mutate` comes to a put of what it makes of the value. It takes this short way if what is there
has neither lifetime nor indexing of its own, and is known or can be read in a moment; or if
nothing is there and it asks for no lifetime. Then nothing is left for `kvstore.plan` to decide:
what is kept of the item is when it was created, and there is one write, one version and one note.
All else goes the long way, with nothing written before: items of another kind, expired, damaged or
long ones, those of logs and queues, and files with an index. A change that is made there once more
is pure. A property test holds both against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from kvstore.operations import Mutate, Put
from kvstore.sqlite import driver
from kvstore.sqlite.plain_puts import PlainPuts, is_plain, put_plain, read_plain
from kvstore.sqlite.read_cache import ABSENT, Address, Entry

__all__ = ["Changed", "Outcome", "PlainChanges", "change_plain"]

Outcome = list[Any] | Exception
"""The answers to a unit, or its error."""


class Changed(NamedTuple):
    """What a change has come to: the item as it now is, if it was written, and the answer."""

    entry: Entry | None
    answer: Any


class PlainChanges(PlainPuts):
    """Rows, of which many are changed at once."""

    def _change_each(
        self, ops: Sequence[Mutate], by_itself: Callable[[Sequence[Mutate]], Outcome]
    ) -> list[Outcome]:
        """Change items, each a unit, in order: those that are known are written together."""
        outcomes: list[Outcome] = []
        puts: list[tuple[Address, bytes]] = []
        addresses = [(op.path, op.key) for op in ops]
        known = {
            at: entry.data
            for at, entry in zip(addresses, self._known(addresses), strict=True)
            if entry is not None
        }
        for op, address in zip(ops, addresses, strict=True):
            present = known.get(address)
            if present is None:
                self._put_known(puts)
                outcomes.append(by_itself((op,)))
                (entry,) = self._known((address,))
                if entry is not None:
                    known[address] = entry.data
                continue
            try:
                data, answer = op.change(present)
            except Exception as exc:  # noqa: BLE001 - it belongs to the unit's caller
                outcomes.append(exc)
                continue
            if data is not None:
                known[address] = data
                puts.append((address, data))
            outcomes.append([answer])
        self._put_known(puts)
        return outcomes

    def _put_known(self, puts: list[tuple[Address, bytes]]) -> None:
        if puts:
            self._write_all(*zip(*puts, strict=True), keep=True)
            puts.clear()

    def _change(self, op: Mutate) -> list[Any] | None:
        """Change an item by itself; `None`: nothing is done, as one of another kind is there."""
        address, version, now = (op.path, op.key), self._version + 1, self._now
        at = max(now, self._last) if self._is_watched else None
        (there,) = self._known((address,))
        changed = change_plain(self._execute, op, version, now, self._most, there, at, self._keeps)
        if changed is None:
            return None
        if changed.entry is not None:
            self._version = version
            if at is not None:
                self._last = at
            if self.changed is not None:
                self.changed[address] = changed.entry
        return [changed.answer]


def change_plain(
    execute: Callable[..., driver.Cursor],
    op: Mutate,
    version: int,
    now: int,
    longest: int,
    there: Entry | None,
    at: int | None = None,
    keeps: bool = False,
) -> Changed | None:
    """Change a plain item by itself, and note that; the arguments are those of `put_plain`.

    Returns:
        What it has come to; `None`: nothing is written, as the long way is to be gone.

    Raises:
        Exception: what the change raises; nothing is written.
    """
    if there is None:
        there = read_plain(execute, op.path, op.key, longest, with_data=True)
    if there is ABSENT:
        if op.ttl is not None:
            return None
        data, answer = op.change(None)
    elif is_plain(there, longest):
        data, answer = op.change(there.data)
    else:
        return None
    if data is None:
        return Changed(None, answer)
    put = Put(op.namespace, op.path, op.key, data)
    created = put_plain(execute, put, version, now, longest, there, at, keeps)
    return None if created is None else Changed(Entry(data, version, created, now, None), answer)
