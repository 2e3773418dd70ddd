"""Declared filters in memory: which items may pass, by a hash of what they have at a path.

The rows of such a store note which of them have changed, and a look brings the entries of those up
to date: so a put costs a note, and many puts between two looks cost no more than the last of them.
As in a file, what is found may pass, and `matches` has the last word.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable
from typing import Any

from kvstore import codec
from kvstore.filters import And, Compare, Contains, Exists, Filter, In, Or, json_mark, json_type
from kvstore.operations import Record
from kvstore.ordering import place_of
from kvstore.paths import EACH, MISSING, Path, parse_path, resolve
from kvstore.plan import Address

__all__ = ["DeclaredRows"]

_RANKS = {"number": 2, "string": 3}  # of `place_of`, for what has bounds


class DeclaredRows(dict[Address, Record]):
    """Rows by their address, and what declared filters find among them.

    Args:
        paths: those that are declared.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        super().__init__()
        known = [path for path in map(parse_path, paths) if EACH not in path[:-1]]
        self._fields = {path: _Field(path) for path in known}
        self._changed: dict[Address, None] = {}  # of which the entries are not up to date

    def __setitem__(self, address: Address, row: Record) -> None:
        super().__setitem__(address, row)
        self._changed[address] = None

    def __delitem__(self, address: Address) -> None:
        super().__delitem__(address)
        self._changed[address] = None

    def candidates(self, path: str, node: Filter) -> Collection[Address] | None:
        """Return all items of a namespace that may pass a filter, and perhaps more; `None`: any."""
        self._catch_up()
        return self._find(path, node)

    def _catch_up(self) -> None:
        for address in self._changed:
            row = self.get(address)
            value = MISSING if row is None else codec.decode(row.data)
            for field in self._fields.values():
                field.put(address, value)
        self._changed = {}

    def _find(self, path: str, node: Filter) -> Collection[Address] | None:
        match node:
            case And(parts):
                found = [self._find(path, part) for part in parts]
                return min((each for each in found if each is not None), key=len, default=None)
            case Or(parts):
                found = [self._find(path, part) for part in parts]
                known = [each for each in found if each is not None]
                return {at for each in known for at in each} if len(known) == len(found) else None
            case Compare(at, "eq", operand) if at in self._fields:
                return self._fields[at].equal(path, [json_mark(operand)])
            case Compare(at, op, operand) if at in self._fields:
                return self._fields[at].between(path, op, operand)
            case In(at, _) if at in self._fields:
                return self._fields[at].equal(path, node.marks)
            case Exists(at) if at in self._fields:
                return self._fields[at].all(path)
            case Contains(at, operand) if (*at, EACH) in self._fields:
                return self._fields[(*at, EACH)].equal(path, [json_mark(operand), _TEXT])
        return None


_TEXT = object()  # the mark of a text in a list's place: any part of it is contained


class _Field:
    """The entries of one path."""

    def __init__(self, path: Path) -> None:
        self._is_list = path[-1:] == (EACH,)
        self._path = path[:-1] if self._is_list else path
        self._by_mark: dict[tuple[str, Hashable], set[Address]] = defaultdict(set)
        self._places: dict[str, dict[Address, Any]] = defaultdict(dict)  # by namespace
        self._sorted: dict[str, list[Any]] = {}  # those of a namespace, made at need
        self._marks: dict[Address, set[Hashable]] = {}

    def put(self, address: Address, value: Any) -> None:
        """Have the entries of an item be those of a value; `MISSING`: it is gone."""
        space = address[0]
        for mark in self._marks.pop(address, ()):
            found = self._by_mark[space, mark]
            found.discard(address)
            if not found:
                del self._by_mark[space, mark]
        self._places[space].pop(address, None)
        self._sorted.pop(space, None)
        there = resolve(value, self._path)
        if there is MISSING:
            return
        place = place_of(value, self._path)
        if not self._is_list:
            self._places[space][address] = place
            marks = {json_mark(there)}
        elif isinstance(there, list):
            marks = set(map(json_mark, there))
        else:
            marks = {_TEXT} if isinstance(there, str) else set()
        for mark in marks:
            self._by_mark[space, mark].add(address)
        self._marks[address] = marks

    def equal(self, space: str, marks: Iterable[Hashable]) -> set[Address]:
        """Return the items of a namespace that have one of some marks."""
        get = self._by_mark.get
        return {address for mark in marks for address in get((space, mark), ())}

    def all(self, space: str) -> Collection[Address]:
        """Return the items of a namespace that have something there."""
        return self._places.get(space, {})

    def between(self, space: str, op: str, operand: Any) -> Collection[Address] | None:
        """Return the items of a namespace on one side of a bound, which itself may be on it."""
        rank = _RANKS.get(json_type(operand))
        if rank is None:
            return None
        if space not in self._sorted:
            placed = ((*place, address) for address, place in self._places[space].items())
            self._sorted[space] = sorted(placed)
        entries = self._sorted[space]
        bound = rank, operand
        if op in ("gt", "gte"):
            begin, end = bisect_left(entries, bound), bisect_left(entries, (rank + 1,))
        else:
            begin = bisect_left(entries, (rank,))
            end = bisect_right(entries, bound, key=lambda entry: entry[:2])
        return [address for _, _, address in entries[begin:end]]
