"""What `InMemoryStore` has changed: the feed, and the past, which is what ceased to be."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kvstore.feed import lease_after
from kvstore.namespace import decode_namespace, is_within
from kvstore.operations import Keep, Lease, Record, Trim
from kvstore.past import Kept, Moment
from kvstore.past_view import changes_of
from kvstore.patterns import Pattern
from kvstore.plan import Address, Effects, Note, ends_of
from kvstore.types import Change

__all__ = ["MemoryPast"]

_MOST_NOTES = 250_000  # that the feed holds, however young: some 40 MB


class _Ended(NamedTuple):
    """An item as it was, and what ended it."""

    row: Record
    by: Note
    began_at: int


class MemoryPast:
    """The changes that are recorded, and what they ended.

    Attributes:
        last: the instant of the last change.
        notes_begin: every change after this version is there, while they are recorded.
        watched_until: when the recording of changes may end; 0: nobody watches.
    """

    def __init__(self) -> None:
        self._ended: dict[Address, list[_Ended]] = {}
        self._order: list[Address] | None = None  # all of those addresses, if they are sorted
        self._notes: list[Note] = []  # the feed
        self.notes_begin = self.watched_until = 0
        self._span = self._until = 0  # for how long the past is kept, and how long that holds
        self._begin = Moment(0, 0)
        self._has_waited = False  # a change has another instant than its item: a clock was set back
        self._known = (0, 0, 0, 0), 0  # of the last moment that was required: what it hangs on, end
        self.last = 0

    @property
    def is_kept(self) -> bool:
        """Whether what ceases to be is kept."""
        return self._span > 0

    @property
    def is_recording(self) -> bool:
        """Whether changes are noted: somebody watches, or the past is kept."""
        return bool(self.watched_until) or self.is_kept

    # Write

    def _record(self, version: int) -> None:
        """Have changes recorded from now on, if they are not."""
        if not self.is_recording:
            self._notes.clear()
            self.notes_begin = version

    def lease(self, op: Lease, version: int, now: int) -> tuple[int, int]:
        """Begin a recording, or prolong the one that there is; return what `Lease` answers."""
        self._record(version)
        self.watched_until = now + op.span
        return version, self.notes_begin

    def keep(self, op: Keep, version: int, now: int) -> None:
        """Begin to keep it, or go on."""
        self._record(version)
        if not self.is_kept:
            self._forget_all()
            self.last = max(self.last, now)
            self._begin = Moment(version, self.last)
        if op.span > self._span or self._until < now:
            self._span = op.span
        if op.span >= self._span:
            self._until = now + op.span

    def take(self, effects: Effects, rows: Mapping[Address, Record]) -> None:
        """Note changes, and keep what they are about to end; the rows are as they are before."""
        if self.is_kept:
            self._keep_ended(effects, rows)
        self._notes += effects.notes
        if effects.notes:
            self.last = effects.notes[-1].at
            self._has_waited = self._has_waited or self.last != effects.now
        if len(self._notes) > _MOST_NOTES and not self.is_kept:
            self._cut(_MOST_NOTES // 10)

    def _keep_ended(self, effects: Effects, rows: Mapping[Address, Record]) -> None:
        for row, _ in effects.writes:
            before = rows.get((row.path, row.key))
            if before is not None and before.data == row.data:
                row.data = before.data  # an unchanged value is kept once
        for note in ends_of(effects):
            address = note.path, note.key
            there = rows.get(address)
            if there is not None:
                began = there.updated_at
                if self._has_waited:
                    began = self._instant_of(there.version, began)
                if address not in self._ended:
                    self._ended[address] = []
                    self._order = None
                self._ended[address].append(_Ended(there, note, began))

    def _instant_of(self, version: int, otherwise: int) -> int:
        """Return the instant of a change, if it is kept."""
        place = bisect_left(self._notes, version, key=lambda note: note.version)
        if place < len(self._notes) and self._notes[place].version == version:
            return self._notes[place].at
        return otherwise

    def trim(self, op: Trim, version: int, now: int) -> int:
        """Do a slice of the upkeep; return how many changes went."""
        if op.keeps is not None:
            self.keep(Keep(op.keeps), version, now)
        elif self.is_kept and self._until < now:
            self._span = self._until = 0
            self._forget_all()
        self.watched_until = self.watched_until and lease_after(self.watched_until, op, now)
        kept = self.notes_after(self._begin.version, op.limit) if self.is_kept else []
        gone = kept[: bisect_right(kept, now - self._span, key=lambda note: note.at)]
        if gone:
            self._begin = Moment(gone[-1].version, gone[-1].at)
        for address in {(note.path, note.key) for note in gone} & self._ended.keys():
            old = self._ended[address]  # in the order of what ended them
            del old[: bisect_right(old, self._begin.version, key=lambda each: each.by.version)]
            if not old:
                del self._ended[address]
                self._order = None
        oldest = now - max(op.history, self._span)
        number = bisect_right(self._notes[: op.limit], oldest, key=lambda note: note.at)
        self._cut(number)
        return max(number, len(gone))

    def _cut(self, number: int) -> None:
        """Let the first changes go."""
        if number:
            self.notes_begin = self._notes[number - 1].version
            del self._notes[:number]

    def _forget_all(self) -> None:
        self._ended.clear()
        self._order = None

    def forget(self, path: str, pattern: Pattern, subtree: bool) -> int:
        """Take the past of some keys away; return how many old items went."""
        doomed = [at for at in self._ended if _is_inside(at, path, pattern, subtree)]
        number = 0
        for address in doomed:
            # That it was there is known still, so that a rewind leaves alone what it cannot tell
            old = self._ended[address]
            number += sum(bool(each.row.data) for each in old)
            self._ended[address] = [each._replace(row=_without_data(each.row)) for each in old]
        return number

    # Read

    def notes_after(self, version: int, limit: int | None = None) -> list[Note]:
        """Return the changes after a version, in order: so many of them."""
        begin = bisect_right(self._notes, version, key=lambda note: note.version)
        return self._notes[begin : None if limit is None else begin + limit]

    def kept(self, version: int) -> Kept:
        """Return how much is kept."""
        return Kept(self._span, self._begin, version, self.last)

    def moment(self, version: int | None, instant: int | None, newest: int, now: int) -> Moment:
        """Find a moment; the errors are those of `Backend.moment`."""
        kept = self.kept(newest)
        if version is not None:
            kept.require_version(version)
            place = bisect_right(self._notes, version, key=lambda note: note.version)
            at = self._notes[place - 1].at if place else 0
            moment = Moment(version, max(at, self._begin.instant))
        else:
            assert instant is not None
            kept.require_instant(instant, now)
            place = bisect_right(self._notes, instant, key=lambda note: note.at)
            last = max(self._notes[place - 1].version if place else 0, self._begin.version)
            moment = Moment(max(last, newest) if place == len(self._notes) else last, instant)
        self.require(moment, newest, now)
        return moment

    def require(self, moment: Moment, newest: int, now: int) -> None:
        """Raise `HistoryExpiredError` unless a moment is kept."""
        asked = moment.version, newest, self._span, self._begin.version
        known, until = self._known
        if asked == known and now < until:
            return
        following = next((note.at for note in self.notes_after(moment.version, 1)), None)
        self._known = asked, self.kept(newest).require(moment, following, now)

    def row_at(self, moment: Moment, address: Address, present: Record | None) -> Record | None:
        """Return what was at an address, if it was live; without data if that is forgotten."""
        row = present if present is not None and present.version <= moment.version else None
        if row is None:
            for each in reversed(self._ended.get(address, ())):
                if each.row.version <= moment.version:
                    row = each.row if each.by.version > moment.version else None
                    break
        return row if row is not None and row.is_live(moment.instant) else None

    def addresses(self) -> list[Address]:
        """Return those of which something ended, in order."""
        if self._order is None:
            self._order = sorted(self._ended)
        return self._order

    def changed_since(self, version: int, path: str, subtree: bool) -> list[Address]:
        """Return the addresses of what has changed since a version, in order."""
        found = {(note.path, note.key) for note in self.notes_after(version)}
        return sorted(at for at in found if is_within(at[0], path, subtree))

    def changes(self, address: Address, present: Record | None) -> list[Change]:
        """Return the changes of an item, the newest first."""
        labels, ended = decode_namespace(address[0]), self._ended.get(address, ())
        told = [
            changes_of(labels, row, began_at, (by.version, by.at, by.kind))
            for row, by, began_at in reversed(ended)
            if row.data
        ]
        if present is not None:
            at = self._instant_of(present.version, present.updated_at)
            told.insert(0, changes_of(labels, present, at))
        return [change for changes in told for change in changes]

    def as_it_was(self, note: Note) -> Record | None:
        """Return the item of a put that another change has ended since."""
        for each in self._ended.get((note.path, note.key), ()):
            if each.row.version == note.version and each.row.data:
                return each.row
        return None

    def measure(self, present: Iterable[Record]) -> tuple[int, int, int]:
        """Return how many changes, how many old items, and the bytes of these, each kept once.

        One that is still there takes no room.
        """
        old = [each.row.data for some in self._ended.values() for each in some]
        sizes = {id(data): len(data) for data in old}
        for row in present:
            sizes.pop(id(row.data), None)
        return len(self._notes), len(old), sum(sizes.values())


def _is_inside(address: Address, path: str, pattern: Pattern, subtree: bool) -> bool:
    return is_within(address[0], path, subtree) and pattern.matches(address[1])


def _without_data(row: Record) -> Record:
    return Record(row.path, row.key, b"", row.version, 0, 0, row.expires_at)
