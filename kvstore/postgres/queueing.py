"""What waits to be written, root by root: who goes next, and who has to wait for whom.

Writes of one item are applied in the order in which they were asked for. What names the same root
therefore waits in one line; lines of different roots have nothing to do with each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvstore.collecting import uncollected
from kvstore.description import Description
from kvstore.operations import Operation, Put, PutColumns, Restore
from kvstore.plan import Address
from kvstore.postgres.keys import root_of
from kvstore.postgres.quick_jobs import quick_job
from kvstore.postgres.wide import roots_of
from kvstore.postgres.workspace import is_decided, is_light

__all__ = ["Group", "Lines", "RootLine", "Unit", "by_root", "is_quick"]

BATCH_OPS = 2_000  # what one group commit may hold, so that it never holds the lock long
BATCH_BYTES = 8 * 2**20
BATCH_ROOTS = 500  # likewise: what others write under these waits meanwhile
_MANY = 1_000  # operations of a unit, whose addresses are worth more than the collector's pause
ALONE: Final[frozenset[Address]] = frozenset()
_LEAST_LINES = 1_000  # of roots, before those that nobody waits for are forgotten


class Unit:
    """Operations that are applied together or not at all, and the caller that waits for them.

    Attributes:
        roots: under which it writes; `None`: it finds out itself.
        is_plain: it is puts without conditions.
        is_decided: in memory; see there.
        is_groupable: it is plain puts that may go with those of other roots, as they are few.
        is_once: what it carries can be read but once.
        size: roughly, in bytes.
    """

    __slots__ = (
        "future", "is_decided", "is_groupable", "is_once", "is_plain", "ops", "roots", "size",
    )  # fmt: skip

    def __init__(self, ops: Sequence[Operation], future: asyncio.Future[list[Any]]) -> None:
        self.ops = ops
        self.future = future
        if isinstance(ops, PutColumns):
            self.roots: frozenset[str] | None = frozenset((root_of(ops.path),))
            self.is_plain = self.is_decided = True
            self.is_once = self.is_groupable = False
            average = sum(map(len, ops.datas)) // len(ops.datas)  # of those that are encoded
            self.size = (256 + average) * len(ops)
            return
        plain = True
        once = False
        size = 256 * len(ops)
        for op in ops:
            if type(op) is Put:
                size += len(op.data)
                if op.expected is not None or op.keep:
                    plain = False
            else:
                plain = False
                once = once or type(op) is Restore
        self.roots = roots_of(ops)
        is_single = self.roots is not None and len(self.roots) == 1
        self.is_plain = plain and is_single
        self.is_groupable = self.is_plain and len(ops) < BATCH_OPS
        self.is_decided = plain or is_decided(ops)
        self.is_once = once
        self.size = size

    def addresses(self) -> list[Address]:
        """What the operations of a plain unit write, in order."""
        if len(self.ops) < _MANY:
            return [(op.path, op.key) for op in self.ops]  # type: ignore[union-attr]
        with uncollected():
            return [(op.path, op.key) for op in self.ops]  # type: ignore[union-attr]

    async def spread(self) -> Sequence[Operation]:
        """Return the operations one by one, for what goes by each of them.

        Raises:
            StoreError: a value cannot be encoded.
        """
        if isinstance(self.ops, PutColumns):
            await self.ops.encoded()
            with uncollected():
                self.ops = list(self.ops)
        return self.ops

    def settle(self, outcome: list[Any] | BaseException) -> None:
        """Answer the caller, if it is still there."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


def is_quick(ops: Sequence[Operation]) -> bool:
    """Whether a unit is one that a call of its own does as a rule: a plain put, or one of jobs."""
    op = ops[0]
    if len(ops) > 1:
        return False
    if type(op) is Put:
        return op.expected is None and not op.keep
    return quick_job(ops) is not None


class RootLine:
    """What waits to be written under one root, and what is known of it.

    Attributes:
        waiting: in order.
        committing: what is on its way.
        index: the description of its index, at the last look; `None`: there was none.
        fields: of one that has words and no vectors; `None`: it is none of these.
        is_lone: what is first goes by itself, as it was left out where it was to go with others.
        locked_turns: transactions to come that lock before they read, after one that did not and
            failed.
        long_turns: calls of queues, and puts into an index, to come that go the long way, after one
            that had to.
    """

    __slots__ = (
        "committing", "fields", "index", "is_lone", "locked_turns", "long_turns", "root",
        "waiting",
    )  # fmt: skip

    def __init__(self, root: str) -> None:
        self.root = root
        self.waiting: deque[Unit] = deque()
        self.committing: list[Group] = []
        self.index: str | None = None
        self.fields: tuple[str, ...] | None = None
        self.is_lone = False
        self.locked_turns = self.long_turns = 0

    @property
    def is_groupable(self) -> bool:
        """Whether what is first may go with that of other roots, by one call."""
        if self.committing or self.is_lone or self.is_indexed or not self.waiting:
            return False
        return self.waiting[0].is_groupable

    @property
    def is_indexed(self) -> bool:
        """Whether there was an index, at the last look."""
        return self.index is not None

    def learn(self, index: str | None) -> None:
        """Take note of how the index of the root is described."""
        if index == self.index:
            return
        self.index = index
        self.fields = None
        if index is not None:
            description = Description.parse(index)
            if description.model is None:
                self.fields = description.fields

    def is_of_words(self, unit: Unit) -> bool:
        """Whether a unit is one put whose words, and nothing else, go into the index with it."""
        if self.fields is None or not unit.is_plain or len(unit.ops) > 1:
            return False
        return not unit.ops[0].vectors and is_light([unit.ops])  # type: ignore[union-attr]

    def take(self, share: int) -> Group:
        """Take what one transaction may hold.

        Puts without conditions go together, as long as no two are of one item; so does anything
        else that names its items under this root alone. The rest goes by itself.

        Args:
            share: into how many transactions what waits is to be cut.
        """
        return self.take_some(-(-len(self.waiting) // share))

    def take_some(self, puts: int) -> Group:
        """As `take`, of so many plain puts at most, but for the first unit.

        Args:
            puts: at least one.
        """
        self.is_lone = False
        waiting = self.waiting
        first = waiting[0]
        if isinstance(first.ops, PutColumns) and not self.is_indexed:
            return Group([waiting.popleft()], ALONE)
        if not first.is_decided or first.roots is None or len(first.roots) > 1:
            return Group([waiting.popleft()], None)
        is_plain = first.is_plain and not self.is_indexed
        if is_plain and len(waiting) == len(first.ops) == 1:
            return Group([waiting.popleft()], set(first.addresses()))
        most = min(BATCH_OPS, puts) if is_plain else BATCH_OPS
        addresses: set[Address] = set()
        taken: list[Unit] = []
        ops = size = 0
        while waiting:
            unit = waiting[0]
            ops += len(unit.ops)
            size += unit.size
            if taken and (
                ops > most
                or size > BATCH_BYTES
                or not unit.is_decided
                or unit.roots != first.roots
                or (is_plain and not unit.is_plain)
            ):
                break
            if is_plain:
                before = len(addresses)
                named = unit.addresses()
                if taken and not addresses.isdisjoint(named):
                    break
                addresses.update(named)
                if len(addresses) < before + len(named):  # a unit with two puts of an item
                    is_plain = False
            taken.append(waiting.popleft())
        return Group(taken, addresses if is_plain else None)


@dataclass(slots=True, eq=False)
class Group:
    """Units that are on their way in one transaction.

    Attributes:
        addresses: what they write, of puts without conditions and of different items, or `ALONE`
            of so many of them that none of another group goes beside; `None`: it is something else.
        parts: of plain puts under several roots, those of each; `None`: it is something else.
    """

    units: list[Unit]
    addresses: set[Address] | frozenset[Address] | None
    parts: dict[str, list[Unit]] | None = None

    @property
    def roots(self) -> Collection[str]:
        """Of them all; none of what finds out itself."""
        return self.parts or self.units[0].roots or ()

    def with_units(self, units: list[Unit]) -> Group:
        """Return some of it."""
        if self.parts is None or len(units) == len(self.units):
            return Group(units, self.addresses, self.parts)
        parts = by_root(units)
        return Group(units, self.addresses, parts if len(parts) > 1 else None)


def by_root(units: Iterable[Unit]) -> dict[str, list[Unit]]:
    """Return units by the one root that each is of, in order."""
    found: dict[str, list[Unit]] = {}
    for unit in units:
        for root in unit.roots or ():
            found.setdefault(root, []).append(unit)
    return found


class Lines:
    """The lines of all roots.

    A unit over several roots waits in each of their lines, and goes when it is the first of all.
    One that finds its roots itself waits for all that came before it, and all that comes later
    waits for it.

    Args:
        gathers: puts of different roots may go in one transaction.
    """

    def __init__(self, *, gathers: bool = False) -> None:
        self._gathers = gathers
        self._lines: dict[str, RootLine] = {}
        self._ready: dict[str, None] = {}  # roots of which the first may go, in order
        self._groupable: dict[str, None] = {}  # likewise, that are to be gathered
        self._later: deque[Unit] = deque()  # from a unit on that finds its roots itself
        self._waiting = 0  # in the lines
        self._committing = 0
        self._most = _LEAST_LINES

    def add(self, unit: Unit) -> None:
        """Have a unit wait."""
        if unit.roots is None or self._later:
            self._later.append(unit)
        else:
            self._enter(unit, unit.roots)

    def _enter(self, unit: Unit, roots: frozenset[str]) -> None:
        self._waiting += 1
        for root in roots:
            line = self.line(root)
            line.waiting.append(unit)
            self._make_ready(line)

    def _make_ready(self, line: RootLine) -> None:
        root = line.root
        if self._gathers and line.is_groupable:
            self._groupable[root] = None
            self._ready.pop(root, None)
        else:
            self._ready[root] = None

    @property
    def may_go(self) -> bool:
        """Whether something waits that may go now, most likely."""
        return bool(self._ready or self._groupable or self._later)

    @property
    def may_gather(self) -> bool:
        """Whether there is something for `gather`, most likely."""
        return bool(self._groupable)

    def line(self, root: str) -> RootLine:
        """Return the line of a root."""
        line = self._lines.get(root)
        if line is None:
            if len(self._lines) > self._most:
                self._forget()
            line = self._lines[root] = RootLine(root)
        return line

    def _forget(self) -> None:
        self._lines = {
            root: line
            for root, line in self._lines.items()
            if line.waiting or line.committing or root in self._ready or root in self._groupable
        }
        self._most = max(_LEAST_LINES, 2 * len(self._lines))

    def gather(self, share: int) -> Group | None:
        """Take puts of as many roots as wait, which go by one call; `None`: there are none.

        Args:
            share: into how many transactions at once what waits is to be cut.
        """
        parts: dict[str, list[Unit]] = {}
        addresses: set[Address] = set()
        most = min(BATCH_OPS, -(-self._waiting // share))
        size = 0
        while self._groupable and len(parts) < BATCH_ROOTS and size < BATCH_BYTES and most > 0:
            root = next(iter(self._groupable))
            del self._groupable[root]
            line = self._lines[root]
            if not line.is_groupable:
                self._ready[root] = None
                continue
            group = line.take_some(most)
            if group.addresses is None:
                if not parts:
                    return self._send(group)
                line.waiting.extendleft(reversed(group.units))
                self._ready[root] = None
                continue
            if line.waiting:  # which another connection may carry
                self._ready[root] = None
            parts[root] = group.units
            addresses.update(group.addresses)
            most -= len(group.addresses)
            size += sum([unit.size for unit in group.units])
        if not parts:
            return None
        units = [unit for some in parts.values() for unit in some]
        return self._send(Group(units, addresses, parts if len(parts) > 1 else None))

    def give_back(self, units: Sequence[Unit]) -> None:
        """Have units wait again, before all others, and each go by itself.

        Args:
            units: of a group that is not yet `done`.
        """
        self._waiting += len(units)
        for unit in reversed(units):
            for root in unit.roots or ():
                line = self._lines[root]
                line.waiting.appendleft(unit)
                line.is_lone = True

    def next(self, share: Callable[[RootLine], int]) -> Group | None:
        """Take what goes next; `None`: nothing may go now.

        Args:
            share: into how many transactions at once what waits in a line is to be cut.
        """
        while True:
            for root in list(self._ready):
                line = self._lines[root]
                group = self._first_of(line, share(line))
                if group is None or not line.waiting:
                    del self._ready[root]  # until something is committed, or comes
                if group is not None:
                    return self._send(group)
            if self._committing or self._waiting or not self._later:
                return None
            unit = self._later.popleft()
            if unit.roots is None:
                return self._send(Group([unit], None))
            self._enter(unit, unit.roots)
            while self._later and (roots := self._later[0].roots) is not None:
                self._enter(self._later.popleft(), roots)

    def _first_of(self, line: RootLine, share: int) -> Group | None:
        """Take the next group of a line, if it may go."""
        if not line.waiting:
            return None
        roots = line.waiting[0].roots
        assert roots is not None
        if len(roots) > 1:
            others = [self._lines[root] for root in roots]
            if any(each.committing or each.waiting[0] is not line.waiting[0] for each in others):
                return None
            group = line.take(1)
            for each in others:
                if each is not line:
                    each.waiting.popleft()
            return group
        if not line.committing:
            return line.take(share)
        others_write = [group.addresses for group in line.committing]
        if len(others_write) >= share or not all(others_write):
            return None
        group = line.take(1)
        if not group.addresses or not all(
            map(group.addresses.isdisjoint, others_write)  # type: ignore[arg-type]
        ):
            line.waiting.extendleft(reversed(group.units))
            return None
        return group

    def send_alone(self, unit: Unit) -> Group | None:
        """Have a unit that `is_quick` go at once, as nobody waits; `None`: it may not."""
        if self._committing or self._waiting or self._later:
            return None
        (root,) = unit.roots or ("",)
        line = self.line(root)
        if line.is_indexed and not line.is_of_words(unit):
            return None
        if line.long_turns and (line.is_indexed or not unit.is_plain):
            return None
        addresses: set[Address] | None = None
        if unit.is_plain:
            addresses = {(op.path, op.key) for op in unit.ops}  # type: ignore[union-attr]
        group = Group([unit], addresses)
        line.committing.append(group)
        self._committing += 1
        return group

    def _send(self, group: Group) -> Group:
        self._committing += 1
        if group.units[0].roots is not None:
            self._waiting -= len(group.units)
            for root in group.roots:
                self._lines[root].committing.append(group)
        return group

    def done(self, group: Group) -> None:
        """Have those go who waited for a group."""
        self._committing -= 1
        self.leave(group, group.roots)

    def leave(self, group: Group, roots: Collection[str]) -> None:
        """Have those go who waited for a group under some of its roots."""
        for root in roots:
            line = self._lines[root]
            line.committing.remove(group)
            if line.waiting:
                self._make_ready(line)
