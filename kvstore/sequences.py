"""Logs and queues as backends keep them: positions, and what is kept of each beside its items.

An entry of a log is an item, and so is a job of a queue. Its key is its position, with leading
zeros, so that keys sort as positions do. A position is given under the store's lock, in the order
of the commits, and never twice: what goes leaves a hole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Literal

from kvstore.errors import InvalidKeyError, InvalidNamespaceError
from kvstore.namespace import decode_namespace, show
from kvstore.types import Item, Namespace

__all__ = [
    "DIGITS",
    "LAST_KEY",
    "LAST_POSITION",
    "EntryPage",
    "SequenceKind",
    "SequenceState",
    "Sequences",
    "key_of",
    "position_of",
    "queues_among",
    "refuse_other",
    "require_kind",
    "require_positions",
    "require_room",
]

SequenceKind = Literal["log", "queue"]

LAST_POSITION = 2**62  # no key is a greater one: with room to spare, they all fit 64 bits
LAST_KEY = str(LAST_POSITION)
DIGITS = len(LAST_KEY)  # of a position in a key


def key_of(position: int) -> str:
    """Return the key of an entry or a job."""
    return f"{position:0{DIGITS}}"


def position_of(key: str) -> int | None:
    """Return the position that a key is; `None`: it is none."""
    is_one = len(key) == DIGITS and key <= LAST_KEY and key.isascii() and key.isdigit()
    return int(key) if is_one else None


@dataclass(slots=True)
class SequenceState:
    """What is kept of a log or a queue beside its items.

    Attributes:
        path: of its namespace.
        kind: `None`: it has not begun.
        last: the position that was given last.
        trimmed: the last position that a trim has taken away.
        size: how many entries or jobs there are, expired ones included.
        delayed: of the jobs, how many were put off when somebody last looked; the same of the
            next ones.
        leased: how many are at work.
        dead: how many are given up.
        seen: an instant that was, in microseconds, by which a clock is told that was set back; see
            `kvstore.jobs.seen_at`.
        noted: of a backend that keeps nothing of jobs which nobody has taken yet: above this
            position there may be such ones.
        soonest: of one that looks for leases which are over: none is before this instant; 0: that
            is to be found out.
    """

    path: str
    kind: SequenceKind | None = None
    last: int = 0
    trimmed: int = 0
    size: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    seen: int = 0
    noted: int = 0
    soonest: int = 0

    def copied(self) -> SequenceState:
        """Return another one that is the same."""
        return SequenceState(*_all_of(self))


_all_of = attrgetter(*(field.name for field in fields(SequenceState)))


@dataclass(frozen=True, slots=True)
class EntryPage:
    """A piece of a log as it is at one moment: its entries, oldest first."""

    state: SequenceState
    items: list[Item]


class Sequences:
    """The logs and queues that a unit is about, as they become by it.

    Args:
        before: those of the paths that the unit names, which are left as they are.

    Attributes:
        changed: those that have become others.
    """

    def __init__(self, before: Mapping[str, SequenceState]) -> None:
        self._before = before
        self.changed: dict[str, SequenceState] = {}

    def get(self, path: str) -> SequenceState | None:
        """Return the one of a namespace, to be looked at; `None`: it is no sequence."""
        state = self.changed.get(path) or self._before.get(path)
        return None if state is None or state.kind is None else state

    def change(self, path: str) -> SequenceState:
        """Return the one of a namespace, to be changed."""
        state = self.changed.get(path)
        if state is None:
            state = self.changed[path] = self._before[path].copied()
        return state

    def drop(self, path: str, key: str) -> None:
        """Take note that an item goes."""
        if self._before and self.get(path) is not None and position_of(key) is not None:
            self.change(path).size -= 1


def queues_among(states: Mapping[str, SequenceState]) -> set[str]:
    """Return the paths of those logs and queues that are queues."""
    return {path for path, state in states.items() if state.kind == "queue"}


def require_kind(state: SequenceState, kind: SequenceKind) -> None:
    """Have a sequence begin, or raise unless it is of a kind.

    Raises:
        InvalidNamespaceError: it is of the other kind.
    """
    if state.kind is None:
        state.kind = kind
    elif state.kind != kind:
        where = show(decode_namespace(state.path))
        raise InvalidNamespaceError(
            f"{where} is a {state.kind}, and no {kind}: use store.{state.kind}() for it, or "
            "another namespace"
        )


def require_positions(state: SequenceState, number: int) -> None:
    """Raise `InvalidNamespaceError` unless so many positions are left to be given."""
    if state.last + number > LAST_POSITION:
        where, last = show(decode_namespace(state.path)), key_of(state.last)
        raise InvalidNamespaceError(
            f"{where} has no positions left: the key {last!r} in it is one of the last that there "
            "are; name another namespace"
        )


def refuse_other(state: SequenceState, kind: SequenceKind) -> None:
    """Raise unless a sequence is of a kind, or has not begun, and leave it be.

    Raises:
        InvalidNamespaceError: it is of the other kind.
    """
    if state.kind is not None:
        require_kind(state, kind)


def require_room(state: SequenceState, namespace: Namespace, key: str, *, is_there: bool) -> None:
    """Raise unless an item may be written in a namespace that is a sequence.

    Args:
        state: of the namespace.
        namespace: which.
        key: of the item.
        is_there: whether there is such an item.

    Raises:
        InvalidKeyError: it is a job, or would be an entry with a position that nobody has given.
    """
    where = show(namespace, key)
    if state.kind == "queue":
        raise InvalidKeyError(
            f"{where} lies in a queue, whose jobs come by put and go by take; delete() cancels "
            "one, and other items belong in another namespace"
        )
    if position_of(key) is not None and not is_there:
        raise InvalidKeyError(
            f"{where} would be an entry of a log, which gives out the positions by itself: append "
            "the value"
        )
