"""A backend over a dict: the worked example of docs/backends.md, all that a backend must have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from kvstore import Change, Item, Report, Stats, codec, operations
from kvstore.backend import Backend, NamespaceQuery, Page, Selection, Span
from kvstore.feed import ChangePage
from kvstore.filters import Filter, matches
from kvstore.instants import to_datetime
from kvstore.namespace import decode_namespace, subtree_range
from kvstore.operations import Named, OfSequence, Operation, Record, Wide, named_of
from kvstore.patterns import Pattern
from kvstore.plan import Address, Admission, Effects, Note, decide, gone
from kvstore.report import Meter
from kvstore.text import contains
from kvstore.types import Namespace, pack_item

__all__ = ["DictBackend"]


class DictBackend(Backend):
    """Rows under (path, key), and the changes for those who watch."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[Address, Record] = {}
        self._version = 0
        self._notes: list[Note] = []
        self._begin = 0  # the notes hold every change after this version ...
        self._lease = 0  # ... while there is a lease, until then

    # Lifecycle: nothing to acquire, nothing to release

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    # Read

    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        now = self.now()
        rows = (self._rows.get((path, key)) for key in keys)
        return [_item(row) for row in rows if row is not None and row.is_live(now)]

    async def select(self, path: str, selection: Selection) -> list[Item]:
        found = [
            row
            for row in self._live(path, selection.subtree)
            if matches(selection.filter, value := codec.decode(row.data))
            and (selection.text is None or contains(row.key, value, selection.text))
        ]
        found.sort(key=lambda row: row.version, reverse=True)
        return [_item(row) for row in found[selection.offset :][: selection.limit]]

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        found = (decode_namespace(row.path) for row in self._live("", subtree=True))
        cut = {labels[: asked.max_depth] for labels in found if asked.matches(labels)}
        return sorted(cut)[offset:][:limit]

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        return [row.key for row in self._in_span(span)][:limit]

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        return len(self._in_span(Span(path, pattern, subtree)))

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        rows = self._in_span(span)[:limit]
        items = [_item(row) for row in rows]
        passing = [item for item in items if matches(filter, item.value)]
        return Page(passing, (rows[-1].path, rows[-1].key) if len(rows) == limit else None)

    def _in_span(self, span: Span) -> list[Record]:
        rows = [
            row
            for row in self._live(span.path, span.subtree)
            if span.pattern.matches(row.key)
            and (span.after is None or (row.path, row.key) > span.after)
            and (span.before is None or (row.path, row.key) < span.before)
        ]
        return rows[::-1] if span.reverse else rows

    def _live(self, path: str, subtree: bool) -> list[Record]:
        """Return the live rows of a namespace or a subtree, in order."""
        now, (low, high) = self.now(), subtree_range(path)
        return [
            row
            for (at, _), row in sorted(self._rows.items())
            if row.is_live(now)
            and (low <= at and (high is None or at < high) if subtree else at == path)
        ]

    # Write: what operations come to is decided by kvstore.plan; here it is carried out

    async def apply(self, ops: Sequence[Operation]) -> list[Any]:
        now, named, before = self.now(), named_of(ops), self._version
        effects = decide(named, self._rows, now, before, is_watched=bool(self._lease))
        self._carry_out(effects)
        answers = iter(effects.answers)
        given = [next(answers) if isinstance(op, Named) else self._run(op, now) for op in ops]
        if self._lease and self._version != before:
            self.bell.ring()
        return given

    def _carry_out(self, effects: Effects) -> None:
        for address in effects.drops:
            del self._rows[address]
        for row in [*(row for row, _ in effects.writes), *effects.renewals]:
            self._rows[row.path, row.key] = row
        self._version = effects.version
        self._notes += effects.notes

    def _run(self, op: Wide, now: int) -> Any:
        """Do what finds its rows by itself, or is about none."""
        if isinstance(op, OfSequence):
            raise NotImplementedError  # it has no logs and no queues
        match op:
            case operations.Remove():
                rows = self._live(op.path, op.subtree)
                return self._drop("delete", [row for row in rows if op.pattern.matches(row.key)])
            case operations.Sweep():
                expired = [row for row in self._rows.values() if not row.is_live(now)]
                return self._drop("expire", expired[: op.limit])
            case operations.Restore():
                admission = Admission(op, self._version, now, is_watched=bool(self._lease))
                there = {at for at, row in self._rows.items() if row.is_live(now)}
                self._carry_out(admission.admit(op.records, there))
                return admission.written
            case operations.Lease():
                if not self._lease:
                    self._notes, self._begin = [], self._version
                self._lease = now + op.span
                return self._version, self._begin
            case operations.Trim():
                old = [note for note in self._notes if note.at <= now - op.history][: op.limit]
                if old:
                    self._begin = old[-1].version
                    del self._notes[: len(old)]
                if self._lease <= now and not op.is_watched:
                    self._lease = 0
                return len(old)
            case operations.Adopt():
                return 0  # there is no index
            case operations.Reindex():
                return 0, 0, []
            case operations.Keep() | operations.Forget() | operations.Rewind():
                raise AssertionError("it has no past: see keeps_history")
        assert_never(op)

    def _drop(self, kind: Any, rows: list[Record]) -> int:
        addresses = [(row.path, row.key) for row in rows]
        is_watched = bool(self._lease)
        self._carry_out(gone(kind, addresses, self.now(), self._version, is_watched=is_watched))
        return len(rows)

    # Watch

    async def read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        now, (low, high) = self.now(), subtree_range(path)
        found = []
        for note in self._notes:
            inside = low <= note.path and (high is None or note.path < high)
            if note.version <= after or not pattern.matches(note.key):
                continue
            if inside if subtree else note.path == path:
                labels = decode_namespace(note.path)
                items = await self.get_many(labels, note.path, (note.key,))
                item = items[0] if note.kind == "put" and items else None
                at = to_datetime(note.at)
                found.append(Change(note.kind, labels, note.key, note.version, at, item))
        position = self._notes[-1].version if self._notes else after
        is_due = any(not row.is_live(now) for row in self._rows.values())
        return ChangePage(found, max(after, position), self._begin, self._lease, is_due, now)

    # Upkeep

    async def check(self, meter: Meter) -> Report:
        return Report(len(self._rows), ())

    async def stats(self) -> Stats:
        rows = self._live("", subtree=True)
        size = sum(len(row.data) for row in rows)
        return Stats(len(rows), len({row.path for row in rows}), size, version=self._version)


def _item(row: Record) -> Item:
    times = row.created_at, row.updated_at, row.expires_at
    return pack_item(decode_namespace(row.path), row.key, row.data, row.version, *times)
